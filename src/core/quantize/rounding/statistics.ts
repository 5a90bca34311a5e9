/**
 * What roundings need to know of a layer's inputs: products of them with themselves, summed over samples (see `rounding.ts`), computed by
 * onnxruntime. For the float model it is given a product of each input with itself, so that activations are never copied out, and only
 * [depth, depth] floats come back from each run. For what the quantized model gives in its place, both inputs are handed to a small model.
 */
import { onnxOfDtype } from "../../onnx/dtype.ts";
import { type Attr, type Graph, Model, type Node, type Value } from "../../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../onnx/tensor.ts";
import { type CalibrateOptions, type Feeds, observe } from "../calibration/calibrate.ts";
import { inferredDims } from "../calibration/inferred-dims.ts";
import type { Observer } from "../calibration/observers.ts";
import { stacked, takesNoStack } from "../calibration/stacked.ts";
import type { LayerStatistics, Moments } from "./rounding.ts";

/** A layer and the rows of X that its weight meets: of a MatMul or Gemm those of its input, of a Conv the patches under its filters. */
export interface LayerSite {
  /** Position among all nodes of the model. */
  readonly index: number;
  readonly depth: number;
  /** Dims of a filter bank [M, C, …]; undefined for MatMul and Gemm. */
  readonly filters: readonly number[] | undefined;
}

/** One batch in so many is held out; with fewer, none is. */
const HELD_OUT_EVERY = 4;
/** Batches that are looked at together: those of them that are not held out are one run, and the others another. */
const TOGETHER = 16;
/** The rows that one layer has in such a run take so many bytes at most. */
const MAX_ROW_BYTES = 64 * 2 ** 20;

/**
 * Sums H over batches of the float model, by the index of the node. Sites that share an input share the result. A node that no batch reaches
 * has none. Takes 8 · depth² bytes for each input. `batches` is asked for once more where the model does not take several as one.
 */
export async function floatStatistics(
  model: Model,
  sites: readonly LayerSite[],
  batches: () => AsyncIterable<Feeds>,
  options: CalibrateOptions,
): Promise<ReadonlyMap<number, LayerStatistics>> {
  const copy = model.clone();
  const nodes = [...copy.nodes()];
  const made = new Map<Value, Map<string, Value>>();
  const names = new Map<number, string>();
  const rowNames = new Set<string>();
  const depths = new Map<string, number>();
  for (const site of sites) {
    const node = nodes[site.index]!;
    const input = node.inputs[0]!;
    const ofInput = made.get(input) ?? new Map<string, Value>();
    made.set(input, ofInput);
    const key = rowsKey(node, site);
    let gram = ofInput.get(key);
    if (!gram) {
      const rows = rowsOf(nodeMaker(node), input, node, site);
      rowNames.add(rows.name);
      gram = product(nodeMaker(node), rows, rows);
    }
    ofInput.set(key, gram);
    names.set(site.index, gram.name);
    depths.set(gram.name, site.depth);
  }
  const sum = async (runs: (heldOut: (is: boolean) => void) => AsyncIterable<Feeds>) => {
    const observers = new Map([...depths].map(([name, depth]) => [name, new GramObserver(depth)]));
    const heldOut = (is: boolean) => {
      for (const observer of observers.values()) observer.isHeldOut = is;
    };
    await observe(copy, observers, runs(heldOut), options);
    return new Map(
      [...names].flatMap(([index, name]) => {
        const statistics = observers.get(name)!.result();
        return statistics ? [[index, statistics] as const] : [];
      }),
    );
  };
  const together = await batchesTogether(copy, rowNames, batches(), options);
  try {
    return await sum((heldOut) => inRuns(model, batches(), together, heldOut));
  } catch (error) {
    if (together === 1 || !takesNoStack(error)) throw error;
    return await sum((heldOut) => inRuns(model, batches(), 1, heldOut));
  }
}

/** How many batches may be one, by the rows that layers have for the first one. */
async function batchesTogether(
  model: Model,
  rowNames: ReadonlySet<string>,
  batches: AsyncIterable<Feeds>,
  { openModel }: CalibrateOptions,
): Promise<number> {
  for await (const feeds of batches) {
    const rows = await inferredDims(model, rowNames, feeds, openModel);
    if (rows.size < rowNames.size) return 1;
    const bytes = Math.max(...[...rows.values()].map((dims) => 4 * elementCount(dims)));
    return Math.max(1, Math.min(TOGETHER, Math.floor(MAX_ROW_BYTES / bytes)));
  }
  return 1;
}

/** The batches, up to `together` as one where that is possible; says of each run, before it is made, whether it is held out. */
async function* inRuns(
  model: Model,
  batches: AsyncIterable<Feeds>,
  together: number,
  heldOut: (is: boolean) => void,
): AsyncGenerator<Feeds> {
  const waiting: { readonly [kind in "fit" | "held"]: Feeds[] } = { fit: [], held: [] };
  function* runs(kind: "fit" | "held") {
    const whole = stacked(model, waiting[kind]);
    for (const feeds of whole ? [whole] : waiting[kind]) {
      heldOut(kind === "held");
      yield feeds;
    }
    waiting[kind].length = 0;
  }
  let count = 0;
  for await (const feeds of batches) {
    const kind = ++count % HELD_OUT_EVERY === 0 ? "held" : "fit";
    waiting[kind].push(feeds);
    if (waiting[kind].length === together) yield* runs(kind);
  }
  yield* runs("fit");
  yield* runs("held");
}

/**
 * Statistics of one layer for inputs that differ between the float model (`x`) and the quantized one (`given`), a tensor for each sample. `node` is
 * that of either model: its attributes say what its rows are.
 */
export async function driftStatistics(
  node: Node,
  site: Omit<LayerSite, "index">,
  x: readonly Tensor[],
  given: readonly Tensor[],
  { openModel, threads }: Pick<CalibrateOptions, "openModel" | "threads">,
): Promise<LayerStatistics> {
  const { irVersion, opset } = node.graph.model;
  const model = new Model({ irVersion, opsets: [["", opset]], graphName: "moments" });
  const { graph } = model;
  const make = graphMaker(graph);
  const [float, quantized] = [graph.addInput("x", x[0]!.dtype), graph.addInput("given", given[0]!.dtype)].map((input) =>
    rowsOf(make, input, node, site),
  ) as [Value, Value];
  const drift = make("Sub", [quantized, float]);
  const outputs = { gram: [quantized, quantized], cross: [quantized, drift], power: [drift, drift] } as const;
  for (const [name, [a, b]] of Object.entries(outputs)) {
    const result = product(make, a, b);
    result.name = model.freshName(name);
    result.retype("float32", [site.depth, site.depth]);
    graph.addOutput(result);
  }
  const heldOutFrom = x.length >= HELD_OUT_EVERY;
  const sums = [emptyMoments(site.depth), emptyMoments(site.depth)] as const;
  const session = await openModel(model, threads === undefined ? {} : { threads });
  try {
    for (const [i, tensor] of x.entries()) {
      const moments = sums[heldOutFrom && (i + 1) % HELD_OUT_EVERY === 0 ? 1 : 0];
      const results = await session.run({ x: tensor, given: given[i]! });
      addTo(moments.gram, results.gram!);
      addTo(moments.drift.cross, results.cross!);
      addTo(moments.drift.power, results.power!);
    }
  } finally {
    await session.close();
  }
  return { fit: sums[0], heldOut: heldOutFrom ? sums[1] : sums[0] };
}

function emptyMoments(depth: number): Required<Moments> {
  const zeros = () => new Float32Array(depth * depth);
  return { gram: zeros(), drift: { cross: zeros(), power: zeros() } };
}

function addTo(sum: Float32Array, result: Tensor): void {
  const values = floatsOf(result);
  for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + values[i]!;
}

class GramObserver implements Observer {
  readonly #sums: [Float32Array, Float32Array];
  readonly #seen = [false, false];
  /** Whether what comes next is held out. */
  isHeldOut = false;

  constructor(depth: number) {
    this.#sums = [new Float32Array(depth * depth), new Float32Array(depth * depth)];
  }

  /** One product, or in a Loop those of all its turns. */
  observe(values: Float32Array): void {
    if (values.length === 0) return;
    const kind = this.isHeldOut ? 1 : 0;
    this.#seen[kind] = true;
    const sum = this.#sums[kind]!;
    for (let start = 0; start < values.length; start += sum.length) {
      for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + values[start + i]!;
    }
  }

  /** Where only batches that are held out came through, they are what there is. */
  result(): LayerStatistics | undefined {
    const [fit, heldOut] = this.#sums.map((gram): Moments => ({ gram })) as [Moments, Moments];
    if (!this.#seen[0]) return this.#seen[1] ? { fit: heldOut, heldOut } : undefined;
    return { fit, heldOut: this.#seen[1] ? heldOut : fit };
  }
}

/** Equal for layers that see the same rows of the same input. */
function rowsKey(node: Node, { filters }: Pick<LayerSite, "filters">): string {
  if (!filters) return `${isTransposed(node)}`;
  return `${filters.slice(1)} ${[...windowOf(node)].map(([name, { value }]) => `${name}=${value}`)}`;
}

function isTransposed(node: Node): boolean {
  return node.opType === "Gemm" && node.int("transA", 0) !== 0;
}

/** The attributes that say which patches a Conv looks at. */
function windowOf(node: Node): Map<string, Attr> {
  return new Map([...node.attrs].filter(([name]) => WINDOW.has(name)));
}

const WINDOW: ReadonlySet<string> = new Set(["auto_pad", "dilations", "pads", "strides"]);

/** Adds an operator and answers its output. */
type Maker = (opType: string, inputs: readonly Value[], attrs?: Readonly<Record<string, Attr>>) => Value;

/** Operators right before a node. */
function nodeMaker(node: Node): Maker & { readonly graph: Graph } {
  const make: Maker = (opType, inputs, attrs = {}) =>
    node.graph.insertBefore(node, { opType, inputs, outputs: 1, attrs }).outputs[0]!;
  return Object.assign(make, { graph: node.graph });
}

/** Operators at the end of a graph. */
function graphMaker(graph: Graph): Maker & { readonly graph: Graph } {
  const make: Maker = (opType, inputs, attrs = {}) => graph.append({ opType, inputs, outputs: 1, attrs }).outputs[0]!;
  return Object.assign(make, { graph });
}

/** [rows, depth]: what `node` multiplies its weight with, out of its first input `value`. */
function rowsOf(
  make: Maker & { readonly graph: Graph },
  value: Value,
  node: Node,
  { depth, filters }: Omit<LayerSite, "index">,
): Value {
  const { graph } = make;
  let x = make("Cast", [value], { to: { type: "int", value: onnxOfDtype("float32") } });
  if (isTransposed(node)) x = make("Transpose", [x], permutation([1, 0]));
  if (filters) {
    const patches = looksAtPixels(node, filters) ? x : patchesOf(make, x, node, { depth, filters });
    const flat = graph.addInitializer("flat", tensorOf("int64", [3], [0, depth, -1]));
    x = make("Transpose", [make("Reshape", [patches, flat])], permutation([0, 2, 1]));
  }
  return make("Reshape", [x, graph.addInitializer("rows", tensorOf("int64", [2], [-1, depth]))]);
}

/** Whether patches are the pixels themselves, each once. */
function looksAtPixels(node: Node, filters: readonly number[]): boolean {
  const all = (name: string, value: number) => node.ints(name, []).every((it) => it === value);
  return filters.slice(2).every((size) => size === 1) && all("strides", 1) && all("pads", 0);
}

/** What lies under the filters of a node: [N, depth, …] or [N, C, places, …]. */
function patchesOf(
  make: Maker & { readonly graph: Graph },
  x: Value,
  node: Node,
  site: { readonly depth: number; readonly filters: readonly number[] },
): Value {
  const isGiven = node.string("auto_pad", "NOTSET") === "NOTSET";
  return isGiven && make.graph.model.opset >= SLICES_BY_INPUTS
    ? shiftedPatches(make, x, node, site.filters)
    : pickedPatches(make, x, node, site);
}

/** The version of ai.onnx since which Slice and Pad take what they do as inputs. */
const SLICES_BY_INPUTS = 11;
/** As an end: behind all elements. */
const LAST = 2 ** 31 - 1;

/** [N, C, places, …]: for each place of a patch, what all patches have there is a slice of the padded input. */
function shiftedPatches(
  make: Maker & { readonly graph: Graph },
  x: Value,
  node: Node,
  filters: readonly number[],
): Value {
  const integers = (values: readonly number[]) =>
    make.graph.addInitializer("places", tensorOf("int64", [values.length], values));
  const sizes = filters.slice(2);
  const each = (name: string, count: number, value: number) => node.ints(name, new Array<number>(count).fill(value));
  const [strides, dilations] = [each("strides", sizes.length, 1), each("dilations", sizes.length, 1)];
  const pads = each("pads", 2 * sizes.length, 0);
  const [before, after] = [pads.slice(0, sizes.length), pads.slice(sizes.length)];
  const padded = pads.some((pad) => pad > 0) ? make("Pad", [x, integers([0, 0, ...before, 0, 0, ...after])]) : x;
  const axes = integers(sizes.map((_, i) => i + 2));
  const steps = integers(strides);
  const places = sizes.reduce<number[][]>(
    (all, size) => all.flatMap((place) => Array.from({ length: size }, (_, i) => [...place, i])),
    [[]],
  );
  // [N, C, 1, …] each, so that the places of a channel come to lie behind each other.
  const slices = places.map((place) => {
    const starts = place.map((at, i) => at * dilations[i]!);
    const ends = place.map((at, i) => (at + 1 === sizes[i] ? LAST : (at + 1 - sizes[i]!) * dilations[i]!));
    const slice = make("Slice", [padded, integers(starts), integers(ends), axes, steps]);
    return make("Unsqueeze", ...unsqueezed(make.graph, slice, integers));
  });
  return make("Concat", slices, { axis: { type: "int", value: 2 } });
}

/** The inputs and attributes of an Unsqueeze of axis 2. */
function unsqueezed(
  { model }: Graph,
  value: Value,
  integers: (values: readonly number[]) => Value,
): [inputs: readonly Value[], attrs: Readonly<Record<string, Attr>>] {
  return model.opset >= UNSQUEEZES_BY_INPUT
    ? [[value, integers([2])], {}]
    : [[value], { axes: { type: "ints", value: [2] } }];
}

const UNSQUEEZES_BY_INPUT = 13;

/** [N, depth, …]: a filter for each place of a patch, which is 1 there and 0 elsewhere, gives the patch itself: as many products as a layer of the same depth has. */
function pickedPatches(
  make: Maker & { readonly graph: Graph },
  x: Value,
  node: Node,
  { depth, filters }: { readonly depth: number; readonly filters: readonly number[] },
): Value {
  const places = new Float32Array(depth * depth);
  for (let i = 0; i < depth; i++) places[i * (depth + 1)] = 1;
  const pick = make.graph.addInitializer("places", tensorOf("float32", [depth, ...filters.slice(1)], places));
  return make("Conv", [x, pick], Object.fromEntries(windowOf(node)));
}

/** aᵀ·b */
function product(make: Maker, a: Value, b: Value): Value {
  return make("MatMul", [make("Transpose", [a], permutation([1, 0])), b]);
}

function permutation(perm: readonly number[]): Record<string, Attr> {
  return { perm: { type: "ints", value: perm } };
}
