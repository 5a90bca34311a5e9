/**
 * Runs the float model over samples and shows chosen intermediate values to observers, batch by batch. Nothing is stored: a batch's tensors
 * are let go before the next run, and the model runs as often for each batch as it takes to keep the tensors of one run within a budget.
 */
import { checkCancelled } from "../errors.ts";
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";
import { floatsOf, isFloat, type Tensor, tensorOf } from "../onnx/tensor.ts";
import type { Session, SessionOptions } from "../runtime/session.ts";
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
  const { openModel, threads, signal, onBatch, maxTapBytes = MAX_TAP_BYTES } = options;
  const tapped = exposeValues(model, [...observers.keys()]);
  const session = await openModel(tapped.model, threads === undefined ? {} : { threads });
  try {
    const sizes = new Map<string, number>();
    const inputs = [...observers.keys()].filter((name) => model.graph.inputs.some((input) => input.name === name));
    let count = 0;
    for await (const feeds of batches) {
      for (const name of inputs) show(observers.get(name)!, feeds[name]);
      for (const names of runsFor([...tapped.outputs.keys()], sizes, maxTapBytes)) {
        checkCancelled(signal);
        const outputs = names.map((name) => tapped.outputs.get(name)!);
        const results = await session.run(feeds, outputs, signal);
        for (const name of names) {
          const tensor = results[tapped.outputs.get(name)!];
          sizes.set(name, Math.max(tensor?.byteLength ?? 0, sizes.get(name) ?? 0));
          show(observers.get(name)!, tensor);
        }
      }
      count++;
      onBatch?.(count);
    }
    return count;
  } finally {
    await session.close();
  }
}

function show(observer: Observer, tensor: Tensor | undefined): void {
  if (tensor && isFloat(tensor.dtype)) observer.observe(floatsOf(tensor), tensor.dims);
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
  const found = findValues(copy, new Set(names));
  // Innermost bodies first, so that what one level gives out is there for the next.
  for (const body of [...copy.graphs()].reverse()) if (body.owner) raise(body.owner, body, found);
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

/** Outputs of nodes, and inputs of bodies, by name. */
function findValues(model: Model, names: ReadonlySet<string>): Map<string, Value> {
  const found = new Map<string, Value>();
  // onnxruntime refuses silero VAD, whose Ifs have Ifs inside, when values of any body are given out: there it is the main graph only.
  const isNested = [...model.graphs()].some(
    ({ owner }) => owner?.opType === "If" && owner.graph.owner?.opType === "If",
  );
  for (const graph of model.graphs()) {
    if (isNested && graph.owner) continue;
    for (const value of [...graph.inputs, ...graph.nodes.flatMap(({ outputs }) => outputs)]) {
      if (!names.has(value.name)) continue;
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
  const node = producer ? graph.insertAfter(producer, init) : graph.insertBefore(graph.nodes[0]!, init);
  return node.outputs[0]!;
}

/** How a node gives out values of its body: adds them to the outputs of the bodies, in the order of the node's own new outputs. */
const GIVES_OUT: Readonly<Record<string, (owner: Node, body: Graph, values: readonly Value[]) => void>> = {
  If: (owner, body, values) => {
    for (const value of values) {
      for (const branch of owner.bodies()) {
        branch.addOutput(branch === body ? value : branch.addInitializer("untaken", tensorOf("float32", [0], [])));
      }
    }
  },
  Loop: (_, body, values) => {
    for (const value of values) body.addOutput(value);
  },
};

/**
 * Replaces `owner` by a node that also gives out those of the `found` values that are made in `body`, and puts its outputs in their place.
 * Values that cannot be given out (those of a Scan) are dropped.
 */
function raise(owner: Node, body: Graph, found: Map<string, Value>): void {
  const inside = [...found].filter(([, value]) => value.graph === body);
  if (inside.length === 0) return;
  const giveOut = GIVES_OUT[owner.opType];
  if (!giveOut) {
    for (const [name] of inside) found.delete(name);
    return;
  }
  giveOut(
    owner,
    body,
    inside.map(([, value]) => value),
  );
  const { graph } = owner;
  const attrs = Object.fromEntries(owner.attrs);
  // The bodies move to the new node: the old one must not take their uses with it when it goes.
  for (const name of Object.keys(attrs)) owner.setAttr(name, undefined);
  const wider = graph.insertBefore(owner, {
    opType: owner.opType,
    name: owner.name,
    inputs: owner.inputs,
    outputs: owner.outputs.length + inside.length,
    attrs,
  });
  owner.outputs.forEach((value, i) => {
    const replacement = wider.outputs[i]!;
    replacement.retype(value.dtype, value.shape);
    for (const [name, other] of found) if (other === value) found.set(name, replacement);
    graph.replaceUses(value, replacement);
  });
  inside.forEach(([name], i) => {
    found.set(name, wider.outputs[owner.outputs.length + i]!);
  });
  graph.remove(owner);
}
