/**
 * Runs the float model over samples and shows chosen intermediate values to observers, batch by batch. Nothing is stored: a batch's tensors
 * are let go before the next run, and the model runs as often for each batch as it takes to keep the tensors of one run within a budget.
 */
import { checkCancelled } from "../../errors.ts";
import type { DType } from "../../onnx/dtype.ts";
import type { Graph, Model, Node, Value } from "../../onnx/ir.ts";
import { floatsOf, hasArray, isFloat, type Tensor, tensor } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import { type DTypes, inferDTypes } from "../../passes/value-dtypes.ts";
import type { Session, SessionOptions } from "../../runtime/session.ts";
import type { Observer } from "./observers.ts";

/** Loads a model that may have no file yet. */
export type OpenModel = (model: Model, options?: SessionOptions) => Promise<Session>;

export type Feeds = Readonly<Record<string, Tensor>>;

export interface CalibrateOptions {
  readonly openModel: OpenModel;
  readonly threads?: number;
  /** Bytes of tapped tensors that one run may give out; a single larger tensor is still tapped, alone. */
  readonly maxTapBytes?: number;
  readonly onBatch?: (batches: number) => void;
  readonly signal?: AbortSignal | undefined;
}

const MAX_TAP_BYTES = 256 * 2 ** 20;
/** Values of a run whose sizes are not known yet. */
const FIRST_TAPS = 32;

/**
 * Shows each named value of every run to its observer. Names must be unique in the whole model, bodies of If and Loop included; values in
 * a branch that is not taken, and names that are not float tensors, are never observed. `batches` is read once.
 * Answers the number of batches.
 */
export async function observe(
  model: Model,
  observers: ReadonlyMap<string, Observer>,
  batches: AsyncIterable<Feeds>,
  options: CalibrateOptions,
): Promise<number> {
  await using tapped = new TappedModel(model, observers.keys(), options);
  return await tapped.observe(observers, batches);
}

/** Takes what a model gives out for the feeds. */
export type OnOutputs = (feeds: Feeds, outputs: Readonly<Record<string, Tensor>>) => void;

/** An output of a model, and what it is called in one that gives out more. */
type OwnOutput = readonly [name: string, output: string];

/** A model that also gives out the values that are named. It is loaded when it first runs, and stays so until it is closed. */
export class TappedModel {
  /** With the values among its outputs. */
  readonly #model: Model;
  /** The model's own outputs, and what they are called in `#model`. */
  readonly #outputs: readonly OwnOutput[];
  readonly #taps: ReadonlyMap<string, string>;
  readonly #inputs: ReadonlySet<string>;
  readonly #options: CalibrateOptions;
  /** The largest size that each value has had, in bytes. */
  readonly #sizes: Map<string, number>;
  #session: Session | undefined;

  /** `like`: a model that has run, whose values have the same sizes. */
  constructor(model: Model, names: Iterable<string>, options: CalibrateOptions, like?: TappedModel) {
    this.#sizes = new Map(like ? like.#sizes : []);
    const tapped = exposeValues(model, [...names]);
    this.#model = tapped.model;
    this.#taps = tapped.outputs;
    this.#outputs = model.graph.outputs.map(({ name }, i) => [name, tapped.model.graph.outputs[i]!.name]);
    this.#inputs = new Set(model.graph.inputs.map(({ name }) => name));
    this.#options = options;
  }

  /** Shows values of every run to their observers, as `observe` does, and what the model gives out, as `run` answers it, to `onOutputs`. */
  async observe(
    observers: ReadonlyMap<string, Observer>,
    batches: AsyncIterable<Feeds>,
    onOutputs?: OnOutputs,
  ): Promise<number> {
    const { onBatch, maxTapBytes = MAX_TAP_BYTES } = this.#options;
    const names = [...observers.keys()];
    const inputs = names.filter((name) => this.#inputs.has(name));
    const taps = names.filter((name) => this.#taps.has(name));
    let count = 0;
    for await (const feeds of batches) {
      for (const name of inputs) show(observers.get(name)!, feeds[name]);
      let own: readonly OwnOutput[] | undefined = onOutputs && (await this.#ownOutputs());
      const groups = runsFor(taps, this.#sizes, maxTapBytes);
      for (const group of groups.length > 0 ? groups : [[]]) {
        const outputs = group.map((name) => this.#taps.get(name)!);
        const all = [...new Set([...outputs, ...(own ?? []).map(([, output]) => output)])];
        const results = all.length > 0 ? await this.#run(feeds, all) : {};
        if (own) onOutputs!(feeds, Object.fromEntries(own.map(([name, output]) => [name, results[output]!])));
        own = undefined;
        for (const [i, name] of group.entries()) {
          const result = results[outputs[i]!];
          this.#sizes.set(name, Math.max(result?.byteLength ?? 0, this.#sizes.get(name) ?? 0));
          show(observers.get(name)!, result);
        }
      }
      count++;
      onBatch?.(count);
    }
    return count;
  }

  async #ownOutputs(): Promise<OwnOutput[]> {
    const { outputs } = await this.#open();
    const numeric = new Set(outputs.filter(({ dtype }) => dtype !== null && hasArray(dtype)).map(({ name }) => name));
    return this.#outputs.filter(([, output]) => numeric.has(output));
  }

  /** What the model itself gives out, as far as those are tensors of numbers. */
  async run(feeds: Feeds): Promise<Record<string, Tensor>> {
    const wanted = await this.#ownOutputs();
    if (wanted.length === 0) return {};
    const results = await this.#run(
      feeds,
      wanted.map(([, output]) => output),
    );
    return Object.fromEntries(wanted.map(([name, output]) => [name, results[output]!]));
  }

  async #run(feeds: Feeds, outputs: readonly string[]): Promise<Record<string, Tensor>> {
    const session = await this.#open();
    return await session.run(feeds, outputs, this.#options.signal);
  }

  async #open(): Promise<Session> {
    const { openModel, threads, signal } = this.#options;
    checkCancelled(signal);
    this.#session ??= await openModel(this.#model, threads === undefined ? {} : { threads });
    return this.#session;
  }

  /** Frees the memory of the loaded model; another run loads it again. */
  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function show(observer: Observer, value: Tensor | undefined): void {
  if (value && isFloat(value.dtype)) observer.observe(floatsOf(value), value.dims);
}

/** Names in groups, each within the budget going by the largest size each value has had. */
function runsFor(names: readonly string[], sizes: ReadonlyMap<string, number>, maxBytes: number): string[][] {
  const runs: string[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const name of names) {
    const size = sizes.get(name) ?? maxBytes / FIRST_TAPS;
    if (bytes + size > maxBytes) {
      runs.push([]);
      bytes = 0;
    }
    runs.at(-1)!.push(name);
    bytes += size;
  }
  return runs;
}

/**
 * A copy of `model` that also gives out the named values, and the output names they have there. A value of a body becomes an output of the
 * nodes around it: other branches of an If give an empty tensor in its place, a Loop gives the values of all iterations, one after the other.
 */
export function exposeValues(
  model: Model,
  names: readonly string[],
): { readonly model: Model; readonly outputs: ReadonlyMap<string, string> } {
  const copy = model.clone();
  const found = findValues(copy, new Set(names), inferDTypes(copy));
  // Of the copies too that were made of values in bodies.
  const types = inferDTypes(copy);
  // Innermost bodies first, so that what one level gives out is there for the next.
  for (const body of [...copy.graphs()].reverse()) if (body.owner) raise(body.owner, body, found, types);
  const outputs = new Map<string, string>();
  for (const [name, value] of found) {
    if (!copy.graph.outputs.includes(value)) {
      // onnxruntime infers the type itself; a declaration that has become wrong would be refused.
      value.source = undefined;
      copy.graph.addOutput(value);
    }
    outputs.set(name, value.name);
  }
  return { model: copy, outputs };
}

/** Whether a session can give out values of this type: no bfloat16, no floats of 8 or 4 bits. What is not known is tried. */
function canLeave(dtype: DType | undefined): boolean {
  return dtype === undefined || dtype === "string" || hasArray(dtype);
}

/** Outputs of nodes, and inputs of bodies, by name; those left out that a session cannot give out. */
function findValues(model: Model, names: ReadonlySet<string>, types: DTypes): Map<string, Value> {
  const found = new Map<string, Value>();
  for (const graph of model.graphs()) {
    for (const value of [...graph.inputs, ...graph.nodes.flatMap(({ outputs }) => outputs)]) {
      if (!names.has(value.name) || !canLeave(types.get(value))) continue;
      if (!graph.owner) found.set(value.name, value);
      // A body gives out each value once at most, and none of its own inputs; a copy can always be given out.
      else if (value.isGraphOutput || !value.producer) found.set(value.name, copyOf(value));
      else found.set(value.name, value);
    }
  }
  for (const { name } of model.graph.inputs) found.delete(name);
  return found;
}

function copyOf(value: Value): Value {
  const init = { opType: "Identity", inputs: [value], outputs: 1 };
  const { graph, producer } = value;
  const node = producer ? graph.insertAfter(producer, init) : graph.prepend(init);
  return node.outputs[0]!;
}

type GiveOut = (owner: Node, body: Graph, value: Value, dtype: DType | undefined) => boolean;

/** How a node gives out a value of one of its bodies, by one more output of them; answers whether it can. */
const GIVES_OUT: Readonly<Record<string, GiveOut>> = {
  If: (owner, body, value, dtype) => {
    // Branches must agree in type: where it is not known, or has no empty tensor here, nothing can stand for the value in the others.
    if (dtype === undefined || dtype === "string") return false;
    for (const branch of owner.bodies()) {
      branch.addOutput(
        branch === body ? value : branch.addInitializer("untaken", tensor(dtype, [0], new Uint8Array(0))),
      );
    }
    return true;
  },
  Loop: (_, body, value) => {
    body.addOutput(value);
    return true;
  },
} satisfies Partial<Record<OpType, GiveOut>>;

/** Gives `owner` further outputs for those of the `found` values that are made in `body`; those that cannot be given out are dropped. */
function raise(owner: Node, body: Graph, found: Map<string, Value>, types: DTypes): void {
  for (const [name, value] of [...found]) {
    if (value.graph !== body) continue;
    const dtype = types.get(value) ?? value.dtype;
    if (GIVES_OUT[owner.opType]?.(owner, body, value, dtype)) found.set(name, owner.addOutput(name, dtype));
    else found.delete(name);
  }
}
