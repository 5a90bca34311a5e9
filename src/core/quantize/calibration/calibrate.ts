/**
 * Runs the float model over samples and shows chosen intermediate values to observers, batch by batch. Nothing is stored: a batch's tensors
 * are let go before the next run, and the model runs as often for each batch as it takes to keep the tensors of one run within a budget.
 */
import { checkCancelled } from "../../errors.ts";
import type { DType } from "../../onnx/dtype.ts";
import { GraphBuilder } from "../../onnx/graph-builder.ts";
import type { Graph, Model, Node, Value } from "../../onnx/ir.ts";
import { elementCount, floatsOf, hasArray, isFloat, type Tensor, tensor } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import { type DTypes, inferDTypes } from "../../passes/value-dtypes.ts";
import type { Session, SessionOptions } from "../../runtime/session.ts";
import { inferredDims } from "./inferred-dims.ts";
import type { Observer } from "./observers.ts";
import { type ChannelAxis, isLarge, SummaryOutputs } from "./summaries.ts";

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

/** A model that also gives out values, and what they are called. */
interface Tapped {
  readonly model: Model;
  /** Outputs that are values as they are. */
  readonly taps: ReadonlyMap<string, string>;
  /** Outputs that tell of values that are too large to be given out. */
  readonly summaries: SummaryOutputs;
  readonly told: ReadonlySet<string>;
  /** The model's own outputs. */
  readonly own: readonly OwnOutput[];
}

/** A model whose values are observed. It is loaded when it first runs, and stays so until it is closed. */
export class TappedModel {
  readonly #model: Model;
  /** Values that are observed, and what their summaries tell; those that are always seen whole are not in the latter. */
  readonly #names: readonly string[];
  readonly #summarized: ReadonlyMap<string, ChannelAxis>;
  readonly #inputs: ReadonlySet<string>;
  readonly #options: CalibrateOptions;
  /** The largest size that each value has had, in bytes. */
  readonly #sizes = new Map<string, number>();
  #tapped: Tapped | undefined;
  #session: Session | undefined;
  /** Gives out whole what has summaries, for what they do not tell. */
  #whole: TappedModel | undefined;

  /** `summarized`: names that may be observed by summaries. */
  constructor(
    model: Model,
    names: Iterable<string>,
    options: CalibrateOptions,
    { summarized = new Map() }: { readonly summarized?: ReadonlyMap<string, ChannelAxis> } = {},
  ) {
    this.#model = model;
    this.#names = [...names];
    this.#summarized = summarized;
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
    let count = 0;
    for await (const feeds of batches) {
      for (const [name, observer] of observers) if (this.#inputs.has(name)) show(observer, feeds[name]);
      const { taps, summaries, told: large } = await this.#open(feeds);
      const names = [...observers.keys()];
      const told = names.some((name) => large.has(name)) ? summaries.names : [];
      let own: readonly OwnOutput[] | undefined = onOutputs && (await this.#ownOutputs(feeds));
      const groups = runsFor(
        names.filter((name) => taps.has(name)),
        this.#sizes,
        maxTapBytes,
      );
      for (const [i, group] of (groups.length > 0 ? groups : [[]]).entries()) {
        const outputs = group.map((name) => taps.get(name)!);
        const others = [...(i === 0 ? told : []), ...(own ?? []).map(([, output]) => output)];
        const all = [...new Set([...outputs, ...others])];
        const results = all.length > 0 ? await this.#run(feeds, all) : {};
        if (own) onOutputs!(feeds, Object.fromEntries(own.map(([name, output]) => [name, results[output]!])));
        own = undefined;
        for (const [i, name] of group.entries()) {
          const result = results[outputs[i]!];
          this.#sizes.set(name, Math.max(result?.byteLength ?? 0, this.#sizes.get(name) ?? 0));
          show(observers.get(name)!, result);
        }
        if (i === 0 && told.length > 0) await this.#summarize(feeds, results, observers);
      }
      count++;
      onBatch?.(count);
    }
    return count;
  }

  /** Shows summaries to observers, and whole values where a summary does not tell. */
  async #summarize(
    feeds: Feeds,
    results: Readonly<Record<string, Tensor>>,
    observers: ReadonlyMap<string, Observer>,
  ): Promise<void> {
    const untold = new Map<string, Observer>();
    for (const [name, summary] of this.#tapped!.summaries.read(results)) {
      const observer = observers.get(name);
      if (!observer) continue;
      if (summary) observer.observeSummary!(summary);
      else untold.set(name, observer);
    }
    if (untold.size === 0) return;
    const { onBatch: _, ...options } = this.#options;
    this.#whole ??= new TappedModel(this.#model, this.#tapped!.told, options);
    await this.#whole.observe(untold, only(feeds));
  }

  async #ownOutputs(feeds: Feeds): Promise<OwnOutput[]> {
    const { own } = await this.#open(feeds);
    const numeric = new Set(
      this.#session!.outputs.filter(({ dtype }) => dtype !== null && hasArray(dtype)).map(({ name }) => name),
    );
    return own.filter(([, output]) => numeric.has(output));
  }

  /** What the model itself gives out, as far as those are tensors of numbers. */
  async run(feeds: Feeds): Promise<Record<string, Tensor>> {
    const wanted = await this.#ownOutputs(feeds);
    if (wanted.length === 0) return {};
    const results = await this.#run(
      feeds,
      wanted.map(([, output]) => output),
    );
    return Object.fromEntries(wanted.map(([name, output]) => [name, results[output]!]));
  }

  async #run(feeds: Feeds, outputs: readonly string[]): Promise<Record<string, Tensor>> {
    return await this.#session!.run(feeds, outputs, this.#options.signal);
  }

  /** Which values are large is told by the first feeds. */
  async #open(feeds: Feeds): Promise<Tapped> {
    const { openModel, threads, signal } = this.#options;
    checkCancelled(signal);
    this.#tapped ??= await this.#tap(feeds);
    this.#session ??= await openModel(this.#tapped.model, threads === undefined ? {} : { threads });
    return this.#tapped;
  }

  async #tap(feeds: Feeds): Promise<Tapped> {
    const original = this.#model;
    const wanted = new Set(this.#summarized.keys());
    const dims =
      wanted.size > 0
        ? await inferredDims(original, wanted, feeds, this.#options.openModel)
        : new Map<string, readonly number[]>();
    const isTold = (name: string) => dims.has(name) && isLarge(dims.get(name)!);
    const whole = this.#names.filter((name) => !isTold(name));
    const { model, outputs: taps } = exposeValues(original, whole);
    for (const name of whole) {
      const known = dims.get(name);
      if (known && !this.#sizes.has(name)) this.#sizes.set(name, 4 * elementCount(known));
    }
    const { graph } = model;
    const own = original.graph.outputs.map(({ name }, i): OwnOutput => [name, graph.outputs[i]!.name]);
    const large = graph.nodes.flatMap(({ outputs }) => outputs).filter(({ name }) => wanted.has(name) && isTold(name));
    for (const value of large) {
      // As onnxruntime has inferred it with the dims. What the file declares may be wrong, and be refused by operators that read it.
      value.dtype = "float32";
      value.shape = undefined;
      value.source = undefined;
    }
    const summaries = new SummaryOutputs(
      new GraphBuilder(graph),
      large.map((value) => ({ value, dims: dims.get(value.name)!, axis: this.#summarized.get(value.name) })),
    );
    return { model, taps, summaries, told: new Set(large.map(({ name }) => name)), own };
  }

  /** Frees the memory of the loaded model; another run loads it again. */
  async close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.close();
    await this.#whole?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function* only(feeds: Feeds): AsyncGenerator<Feeds> {
  yield feeds;
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
