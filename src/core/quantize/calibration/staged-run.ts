/**
 * Runs a model piece by piece over a few samples, so that what a piece has computed can be looked at, and changed, before the rest goes on
 * from there. Values are kept for as long as a later piece reads them. The whole costs one run of the model, however many pieces.
 */
import { CoreError, checkCancelled } from "../../errors.ts";
import type { Graph, Model, Node, Value } from "../../onnx/ir.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";

export type StagedRunOptions = Pick<CalibrateOptions, "openModel" | "threads" | "signal">;

export class StagedRun {
  readonly #model: Model;
  readonly #options: StagedRunOptions;
  readonly #samples: number;
  /** Values that are known, by name: one tensor for each sample. */
  readonly #values = new Map<string, Tensor[]>();
  readonly #positions: ReadonlyMap<Node, number>;
  /** The last node of the main graph that reads a value, directly or in a body. */
  readonly #lastReaders = new Map<string, number>();
  #done = 0;

  constructor(model: Model, samples: readonly Feeds[], options: StagedRunOptions) {
    this.#model = model;
    this.#options = options;
    this.#samples = samples.length;
    this.#positions = new Map(model.graph.nodes.map((node, i) => [node, i]));
    for (const input of model.graph.inputs) {
      if (!input.constant)
        this.#values.set(
          input.name,
          samples.map((feeds) => feedOf(feeds, input)),
        );
    }
    for (const value of valuesOf(model.graph)) {
      const readers = value.uses.map(({ node }) => this.#positions.get(topLevel(node, model.graph))!);
      this.#lastReaders.set(
        value.name,
        readers.reduce((a, b) => Math.max(a, b), -1),
      );
    }
  }

  /**
   * Runs everything up to `node`, which is in the main graph and behind the nodes of earlier calls, and answers its first output: one tensor for
   * each sample, whose elements may be changed, for the rest to go on from that. Throws `unsupported` where something that is no tensor (a sequence) is made before and read after it.
   */
  async runTo(node: Node): Promise<readonly Tensor[]> {
    const end = this.#positions.get(node)! + 1;
    const result = node.outputs[0]!.name;
    if (end <= this.#done) throw new CoreError("internal", "This part of the model has already run.", node.label);
    await this.#runUntil(end, result);
    const tensors = this.#values.get(result)!;
    this.#forget(end);
    return tensors;
  }

  /**
   * Runs everything before `node`, which is in the main graph and not before the nodes of earlier calls, and answers its first input: one tensor
   * for each sample. Constants that the node and those behind it read may be changed before the next call.
   */
  async runBefore(node: Node): Promise<readonly Tensor[]> {
    const end = this.#positions.get(node)!;
    if (end > this.#done) await this.#runUntil(end, undefined);
    this.#forget(end);
    const tensors = this.#values.get(node.inputs[0]?.name ?? "");
    if (!tensors) throw new CoreError("internal", "What the node reads is not at hand.", node.label);
    return tensors;
  }

  /** Runs the nodes up to position `end`; `result` is kept even if nothing behind reads it. */
  async #runUntil(end: number, result: string | undefined): Promise<void> {
    const { model, inputs, outputs } = segmentOf(this.#model, this.#done, end, (name) => {
      return name === result || (this.#lastReaders.get(name) ?? -1) >= end;
    });
    if (outputs.size === 0) {
      // Constants are part of every segment that reads them.
      this.#done = end;
      return;
    }
    for (const [input, name] of inputs) {
      const { dtype } = this.#values.get(name)![0]!;
      input.retype(dtype, undefined);
    }
    const { openModel, threads, signal } = this.#options;
    const session = await openModel(model, threads === undefined ? {} : { threads });
    try {
      const made = new Map<string, Tensor[]>([...outputs].map(([, name]) => [name, []]));
      for (let i = 0; i < this.#samples; i++) {
        checkCancelled(signal);
        const feeds = Object.fromEntries([...inputs].map(([input, name]) => [input.name, this.#values.get(name)![i]!]));
        const results = await session.run(feeds, undefined, signal);
        for (const [output, name] of outputs) {
          const tensor = results[output.name];
          if (!tensor) throw new CoreError("unsupported", "What is not a tensor cannot be carried on.", name);
          made.get(name)!.push(tensor);
        }
      }
      for (const [name, tensors] of made) this.#values.set(name, tensors);
    } finally {
      await session.close();
    }
    this.#done = end;
  }

  /** Lets go of what nothing from position `end` on reads. */
  #forget(end: number): void {
    for (const name of this.#values.keys()) if ((this.#lastReaders.get(name) ?? -1) < end) this.#values.delete(name);
  }
}

function feedOf(feeds: Feeds, input: Value): Tensor {
  const tensor = feeds[input.name];
  if (!tensor) throw new CoreError("invalid_dataset", `Nothing feeds the input "${input.name}".`, input.name);
  return tensor;
}

function* valuesOf(graph: Graph): Generator<Value> {
  yield* graph.inputs;
  for (const node of graph.nodes) yield* node.outputs;
}

/** The node of `graph` that a node is, or in whose body it is. */
function topLevel(node: Node, graph: Graph): Node {
  let outer = node;
  while (outer.graph !== graph) outer = outer.graph.owner!;
  return outer;
}

/**
 * Nodes `start` to `end` of the main graph as a model of their own. `inputs` and `outputs` are its values by the names that the whole model
 * has for them; `isWanted` chooses the outputs.
 */
function segmentOf(whole: Model, start: number, end: number, isWanted: (name: string) => boolean) {
  const model = whole.clone();
  const { graph } = model;
  for (const output of [...graph.outputs]) graph.removeOutput(output);
  for (const node of graph.nodes.slice(end).reverse()) graph.remove(node);
  const before = graph.nodes.slice(0, start);
  const isBefore = new Set(before);
  const inputs = new Map<Value, string>();
  for (const value of [
    ...graph.inputs.filter(({ constant }) => !constant),
    ...before.flatMap(({ outputs }) => outputs),
  ]) {
    if (value.constant) continue;
    const readers = value.uses.filter(({ node }) => !isBefore.has(topLevel(node, graph)));
    if (readers.length === 0) continue;
    const input = graph.addInput(model.freshName("segment_input"));
    for (const { node, index } of readers) node.setInput(index, input);
    inputs.set(input, value.name);
  }
  for (const node of before.reverse()) {
    if (node.outputs.every((value) => value.useCount === 0)) graph.remove(node);
  }
  for (const value of [...graph.inputs]) if (!inputs.has(value) && !value.constant) graph.setOverridable(value, false);
  for (const value of [...graph.initializers]) if (value.useCount === 0) graph.removeInitializer(value);
  const outputs = new Map<Value, string>();
  for (const value of graph.nodes.flatMap((node) => node.outputs)) {
    if (value.constant || !isWanted(value.name)) continue;
    value.source = undefined;
    graph.addOutput(value);
    outputs.set(value, value.name);
  }
  return { model, inputs, outputs };
}
