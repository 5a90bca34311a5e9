/**
 * Where in a model the error arises: values inside the original and the compressed model, side by side, on a few samples.
 */
import type { Batch } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import { CoreError, checkCancelled } from "../errors.ts";
import type { LayerError } from "../facts.ts";
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";
import { isFloat, type Tensor } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import { exposeValues, type OpenModel } from "../quantize/calibration/calibrate.ts";
import type { Session } from "../runtime/session.ts";
import { FidelityMeter } from "./fidelity.ts";
import { isLayer } from "./layer-facts.ts";

export interface LayerErrorOptions {
  /**
   * The original as the method got it, after simplification. (Values of the file that was uploaded may have names in common with those of the
   * compressed model and mean something else: a BatchNormalization that is folded away changes what the Conv before it gives.)
   */
  readonly reference: Model;
  readonly compressed: Model;
  /**
   * The values of `compressed` that others read in place of values of `reference`, by the names that those have there. A value that is not
   * in it has kept its name.
   */
  readonly results?: Readonly<Record<string, string>> | undefined;
  /** Labels of the nodes that the method has changed. */
  readonly changed: ReadonlySet<string>;
  readonly batches: AsyncIterable<Batch>;
  readonly openModel: OpenModel;
  readonly threads: number;
  /** After so long no further layer is looked at; all are unless given. */
  readonly budgetMs?: number;
  /** Called when the time was up, with how many layers of how many were compared. */
  readonly onIncomplete?: (compared: number, of: number) => void;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (fraction: number) => void;
}

/** More layers than this are looked at only in part, evenly spread. */
const MAX_LAYERS = 512;
/** Bytes of values that a run of both models may give out. */
const MAX_TAP_BYTES = 64 * 2 ** 20;
/** Values of the first run, whose sizes are not known yet. */
const FIRST_TAPS = 4;
/** So large at least is a value taken to be whose size is not known. */
const MIN_SIZE = 4 * 2 ** 20;
/** Runs of each model: when one batch takes many, there are fewer batches. */
const MAX_RUNS = 16;

/** A layer, and what its result is called in each model. */
interface Point {
  readonly node: Node;
  readonly before: string;
  readonly after: string;
}

/**
 * The signal to noise ratio of every layer's result, in the order of the nodes; layers without a counterpart are left out. Null when no
 * layer has one, or when onnxruntime does not take a model that gives out its inner values.
 *
 * Operators whose results are given out are not fused with what follows them, so an integer kernel may be computed as the float
 * operators that it stands for: the rounding is the same, the saturation of the kernel's own sums is not seen.
 */
export async function measureLayerErrors(options: LayerErrorOptions): Promise<readonly LayerError[] | null> {
  try {
    return await compareLayers(options);
  } catch (error) {
    // What this shows is extra: a job whose result is good does not fail over it.
    if (!(error instanceof CoreError) || error.code === "cancelled") throw error;
    return null;
  }
}

async function compareLayers(options: LayerErrorOptions): Promise<readonly LayerError[] | null> {
  const { reference, compressed, threads, openModel, signal, onProgress } = options;
  const points = spread(findPoints(reference, compressed, new Map(Object.entries(options.results ?? {}))), MAX_LAYERS);
  if (points.length === 0) return null;
  const names = { before: points.map(({ before }) => before), after: points.map(({ after }) => after) };
  const taps = { before: exposeValues(reference, names.before), after: exposeValues(compressed, names.after) };
  const meters = new Map(
    points.map((point) => [point, new FidelityMeter({ name: "", dtype: null, shape: null }, false)]),
  );
  const compared = new Set<Point>();
  const sizes = new Map<Point, number>();
  const before = await openModel(taps.before.model, { threads });
  try {
    const after = await openModel(taps.after.model, { threads });
    try {
      let runs = 0;
      const end = performance.now() + (options.budgetMs ?? Number.POSITIVE_INFINITY);
      let isLate = false;
      for await (const { feeds } of options.batches) {
        const given = { before: feedsFor(before.inputs, feeds), after: feedsFor(after.inputs, feeds) };
        const runsBefore = runs;
        for (let done = 0; done < points.length && !isLate; runs++) {
          checkCancelled(signal);
          const group = nextGroup(points, done, sizes);
          const original = await readTaps(before, given.before, taps.before.outputs, group, "before", signal);
          const candidate = await readTaps(after, given.after, taps.after.outputs, group, "after", signal);
          for (const point of group) {
            const [x, y] = [original.get(point), candidate.get(point)];
            sizes.set(point, (x?.byteLength ?? 0) + (y?.byteLength ?? 0));
            // Nothing comes from a branch that was not taken.
            if (!x || !y || x.byteLength === 0 || !isFloat(x.dtype) || !isFloat(y.dtype)) continue;
            meters.get(point)!.add(x, y);
            compared.add(point);
          }
          done += group.length;
          isLate = performance.now() > end;
          onProgress?.(Math.min(1, (runs + 1) / MAX_RUNS));
        }
        if (isLate || runs + runs - runsBefore > MAX_RUNS) break;
      }
      if (isLate && compared.size < points.length) options.onIncomplete?.(compared.size, points.length);
    } finally {
      await after.close();
    }
  } finally {
    await before.close();
  }
  const ratios = new Map<Node, number | null>();
  for (const point of compared) {
    const { sqnr_db, shape_mismatches } = meters.get(point)!.result();
    if (shape_mismatches === 0) ratios.set(point.node, sqnr_db);
  }
  const inputRatios = ratiosBefore(reference.graph, ratios);
  const errors = points.flatMap(({ node }): LayerError[] => {
    const sqnr_db = ratios.get(node);
    if (sqnr_db === undefined) return [];
    const { label, opType } = node;
    return [
      { node: label, op: opType, sqnr_db, input_sqnr_db: inputRatios.get(node)!, changed: options.changed.has(label) },
    ];
  });
  return errors.length > 0 ? errors : null;
}

/** Of each node with a ratio, the least ratio among the nodes with one that its inputs come from; null where there is no error. */
function ratiosBefore(graph: Graph, ratios: ReadonlyMap<Node, number | null>): ReadonlyMap<Node, number | null> {
  const before = new Map<Node, number | null>();
  /** The least ratio on the ways to each value; none for what has no error. */
  const least = new Map<Value, number>();
  const lowest = (values: Iterable<Value | undefined>) => {
    let found = Number.POSITIVE_INFINITY;
    for (const value of values) if (value) found = Math.min(found, least.get(value) ?? Number.POSITIVE_INFINITY);
    return found;
  };
  const visit = (body: Graph): void => {
    for (const node of body.nodes) {
      for (const inner of node.bodies()) visit(inner);
      const read = lowest([...node.inputs, ...[...node.bodies()].flatMap(({ outputs }) => outputs)]);
      const ratio = ratios.get(node);
      if (ratio !== undefined) before.set(node, Number.isFinite(read) ? read : null);
      const here = ratio === undefined ? read : (ratio ?? Number.POSITIVE_INFINITY);
      if (Number.isFinite(here)) for (const output of node.outputs) least.set(output, here);
    }
  };
  visit(graph);
  return before;
}

async function readTaps(
  session: Session,
  feeds: Readonly<Record<string, Tensor>>,
  outputs: ReadonlyMap<string, string>,
  points: readonly Point[],
  side: "before" | "after",
  signal: AbortSignal | undefined,
): Promise<Map<Point, Tensor | undefined>> {
  const nameOf = (point: Point) => outputs.get(point[side]);
  const wanted = points.map(nameOf).filter((name) => name !== undefined);
  const results = wanted.length > 0 ? await session.run(feeds, [...new Set(wanted)], signal) : {};
  return new Map(points.map((point) => [point, results[nameOf(point) ?? ""]]));
}

/** The points from `start` on that fit into one run. What is not known is taken to be as large as what came before it. */
function nextGroup(points: readonly Point[], start: number, sizes: ReadonlyMap<Point, number>): Point[] {
  const sizeBefore = start > 0 ? sizes.get(points[start - 1]!)! : MAX_TAP_BYTES / FIRST_TAPS;
  let end = start;
  for (let room = MAX_TAP_BYTES; end < points.length; end++) {
    room -= sizes.get(points[end]!) ?? Math.max(sizeBefore, MIN_SIZE);
    if (room < 0 && end > start) break;
  }
  return points.slice(start, end);
}

function spread<T>(items: readonly T[], most: number): readonly T[] {
  if (items.length <= most) return items;
  return Array.from({ length: most }, (_, i) => items[Math.floor((i * items.length) / most)]!);
}

/** Every layer whose result can be found in both models. `results` says which value of the compressed model stands for one of the reference. */
function findPoints(reference: Model, compressed: Model, results: ReadonlyMap<string, string>): Point[] {
  const before = resultsByName(reference);
  const after = resultsByName(compressed);
  const points: Point[] = [];
  for (const node of reference.nodes()) {
    if (!isLayer(node) && node.opType !== "MatMul") continue;
    const output = node.outputs[0]!;
    if (before.get(output.name) !== output) continue;
    const candidates = resultsOf(output).filter(({ name }) => before.has(name));
    // The rounding of a layer's result is part of its error, so a value that is known by its rounded form comes first.
    const rounded = candidates.find(({ name }) => after.has(results.get(name) ?? ""));
    const kept = candidates.find(({ name }) => !results.has(name) && after.has(name));
    if (rounded) points.push({ node, before: rounded.name, after: results.get(rounded.name)! });
    else if (kept) points.push({ node, before: kept.name, after: kept.name });
  }
  return points;
}

/** The output of a layer, then what becomes of it by operators with constants that no one else sees. */
function resultsOf(output: Value): Value[] {
  const results = [output];
  for (let value = output; ; value = results.at(-1)!) {
    const [use, other] = value.uses;
    if (!use || other || value.isGraphOutput || use.node.graph !== value.graph) return results;
    const { node } = use;
    const { clamps, constants } = operatorOf(node) ?? {};
    // A method can make a bias and a range part of the layer before them.
    if (!clamps && constants?.[1 - use.index] !== "bias") return results;
    if (node.inputs.some((input) => input && input !== value && !input.constant)) return results;
    results.push(node.outputs[0]!);
  }
}

/** Results of nodes whose name no other value of the model has, in whichever body. */
function resultsByName(model: Model): Map<string, Value> {
  const found = new Map<string, Value>();
  const taken = new Set<string>();
  for (const graph of model.graphs()) {
    for (const value of [...graph.inputs, ...graph.initializers, ...graph.nodes.flatMap(({ outputs }) => outputs)]) {
      if (taken.has(value.name)) found.delete(value.name);
      else if (value.producer && !value.constant && value.name !== "") found.set(value.name, value);
      taken.add(value.name);
    }
  }
  return found;
}
