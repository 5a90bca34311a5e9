/**
 * Bias correction in two runs. The samples become one batch. In the float model each layer's result is brought down to the means of its cells; in the
 * quantized one the graph itself holds its own means against those, shifts the result and goes on from there, so that all behind a layer sees
 * it corrected. What comes out are the shifts. Values of single elements never leave the runtime.
 */
import { GraphBuilder } from "../../onnx/graph-builder.ts";
import type { Model, Value } from "../../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../../onnx/tensor.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";
import { inferredDims } from "../calibration/inferred-dims.ts";
import { stacked, takesNoStack } from "../calibration/stacked.ts";
import type { BiasShifts, CorrectableLayer } from "./bias-correction.ts";

/** Parts that each axis but that of the channels is cut into, where it is that long. */
export const PARTS = 4;

/** Of the largest result in the batch. */
const MAX_RESULT_BYTES = 512 * 2 ** 20;

/** The results of a layer for the whole batch. */
interface Result {
  readonly layer: CorrectableLayer;
  /** [samples, what one sample has along the first axis, the others]. */
  readonly dims: readonly number[];
  /** In `dims`. */
  readonly channelAxis: number;
}

/**
 * What `correctBiases` answers; undefined where the model does not take the samples as one batch, or that would take too much memory. `layers` are in
 * the order in which they run.
 */
export async function correctInBatch(
  model: Model,
  quantized: Model,
  layers: readonly CorrectableLayer[],
  samples: readonly Feeds[],
  options: CalibrateOptions,
): Promise<BiasShifts | undefined> {
  const feeds = stacked(model, samples);
  if (!feeds) return undefined;
  try {
    const results = await resultsOf(model, layers, feeds, samples.length, options);
    if (!results) return undefined;
    const means = await runOnce(meansOf(model, results), feeds, options);
    const shifts = await runOnce(correcting(quantized, results), { ...feeds, ...means }, options);
    return new Map(results.map(({ layer: { name } }, i) => [name, Float64Array.from(floatsOf(shifts[`shift_${i}`]!))]));
  } catch (error) {
    if (takesNoStack(error)) return undefined;
    throw error;
  }
}

/** The sizes of the results of the layers; undefined where they are not those of so many samples, or too large. */
async function resultsOf(
  model: Model,
  layers: readonly CorrectableLayer[],
  feeds: Feeds,
  samples: number,
  { openModel }: CalibrateOptions,
): Promise<Result[] | undefined> {
  const known = await inferredDims(model, new Set(layers.map(({ result }) => result)), feeds, openModel);
  const results: Result[] = [];
  for (const layer of layers) {
    const found = known.get(layer.result);
    if (!found) return undefined;
    const [first = 1, ...others] = found;
    if (first % samples !== 0 || 4 * elementCount([first, ...others]) > MAX_RESULT_BYTES) return undefined;
    const dims = [samples, first / samples, ...others];
    const channelAxis = layer.channelAxis < 0 ? dims.length + layer.channelAxis : layer.channelAxis + 1;
    results.push({ layer, dims, channelAxis });
  }
  return results;
}

function valuesOf({ graph }: Model): Map<string, Value> {
  return new Map(
    [...graph.inputs, ...graph.nodes.flatMap(({ outputs }) => outputs)].map((value) => [value.name, value]),
  );
}

async function runOnce(
  model: Model,
  feeds: Feeds,
  { openModel, threads, signal }: CalibrateOptions,
): Promise<Record<string, Tensor>> {
  const session = await openModel(model, { ...(threads !== undefined && { threads }), dequantized: true });
  try {
    return await session.run(feeds, undefined, signal);
  } finally {
    await session.close();
  }
}

/** A copy of the float model that gives out the means of all cells of each result: "mean_0", "mean_1", … */
function meansOf(model: Model, results: readonly Result[]): Model {
  const copy = model.clone();
  const { graph } = copy;
  for (const output of [...graph.outputs]) graph.removeOutput(output);
  const values = valuesOf(copy);
  const g = new GraphBuilder(graph);
  for (const [i, result] of results.entries()) {
    const means = cellMeans(g, values.get(result.layer.result)!, result);
    means.name = `mean_${i}`;
    graph.addOutput(means);
  }
  return copy;
}

/** A copy of the quantized model that corrects itself by those means, which are inputs of it, and gives out its corrections: "shift_0", … */
function correcting(quantized: Model, results: readonly Result[]): Model {
  const copy = quantized.clone();
  const { graph } = copy;
  for (const output of [...graph.outputs]) graph.removeOutput(output);
  const nodes = new Map(graph.nodes.map((node) => [node.name, node]));
  const g = new GraphBuilder(graph);
  for (const [i, result] of results.entries()) {
    const { layer, dims, channelAxis } = result;
    const actual = nodes.get(layer.last)!.outputs[0]!;
    const readers = [...actual.uses];
    const behind = graph.nodes[graph.nodes.indexOf(actual.producer!) + 1];
    const emit = () => {
      const differences = g.sub(graph.addInput(`mean_${i}`, "float32"), cellMeans(g, actual, result));
      const shift = shiftOf(g, differences, cellCount(result));
      const flat = g.reshape(shift, [dims[channelAxis]!]);
      const corrected = g.add(
        actual,
        g.reshape(shift, [dims[channelAxis]!, ...dims.slice(channelAxis + 1).map(() => 1)]),
      );
      for (const { node, index } of readers) node.setInput(index, corrected);
      flat.name = `shift_${i}`;
      graph.addOutput(flat);
    };
    if (behind) g.before(behind, emit);
    else emit();
  }
  return copy;
}

/**
 * m · max(0, 1 − σ²/m²) of each channel, [1, channels, 1], where m is the mean over cells of `differences` [first cells, channels, last cells] and σ²
 * their variance.
 */
function shiftOf(g: GraphBuilder, differences: Value, cells: number): Value {
  const sum = (x: Value) => g.sum(x, [0, 2]);
  const mean = g.div(sum(differences), cells);
  const variance = g.div(sum(g.square(g.sub(differences, mean))), cells - 1);
  // A mean of zero needs no correction, and its square must not divide.
  const ratio = g.div(variance, g.op("Max", [g.square(mean), g.scalar(SMALLEST, mean)]));
  return g.mul(mean, g.op("Relu", [g.sub(1, ratio)]));
}

/** The smallest normal float32. */
const SMALLEST = 2 ** -126;

/** How many cells one channel has in all samples. */
function cellCount({ dims, channelAxis }: Result): number {
  return dims.reduce((product, dim, axis) => (axis === channelAxis ? product : product * partsOf(dim, axis)), 1);
}

/** Every sample is a cell of its own, and is cut along all other axes. */
function partsOf(dim: number, axis: number): number {
  return axis === 0 ? dim : Math.min(dim, PARTS);
}

/** The means of the cells of `value`, [cells along axes before the channels, channels, cells along axes behind them]. */
function cellMeans(g: GraphBuilder, value: Value, { dims, channelAxis }: Result): Value {
  const channels = dims[channelAxis]!;
  let x = value;
  // Behind the channels, the last axis first: [rest, dim · parts behind it] · [dim · parts, parts · parts].
  let behind = 1;
  for (let axis = dims.length - 1; axis > channelAxis; axis--) {
    const dim = dims[axis]!;
    const parts = partsOf(dim, axis);
    if (parts < dim) x = g.matMul(g.reshape(x, [-1, dim * behind]), averaging(g, dim, parts, behind));
    behind *= parts;
  }
  // Before them, from the last axis on: [parts, dim] · [rest, dim, parts behind it · channels · cells].
  let inner = channels * behind;
  for (let axis = channelAxis - 1; axis > 0; axis--) {
    const dim = dims[axis]!;
    const parts = partsOf(dim, axis);
    if (parts < dim) x = g.matMul(averaging(g, dim, parts, 1, true), g.reshape(x, [-1, dim, inner]));
    inner *= parts;
  }
  return g.reshape(x, [-1, channels, behind]);
}

/** The matrix that means over `dim` positions, in `parts`, are a product with: of each of `width` columns beside each other. */
function averaging(g: GraphBuilder, dim: number, parts: number, width: number, transposed = false): Value {
  const partAt = Array.from({ length: dim }, (_, i) => Math.floor((i * parts) / dim));
  const [rows, columns] = [dim * width, parts * width];
  const matrix = new Float32Array(rows * columns);
  for (const [i, part] of partAt.entries()) {
    const share = 1 / partAt.filter((other) => other === part).length;
    for (let c = 0; c < width; c++) {
      const [row, column] = [i * width + c, part * width + c];
      matrix[transposed ? column * rows + row : row * columns + column] = share;
    }
  }
  return g.graph.addInitializer(
    "averaging",
    tensorOf("float32", transposed ? [columns, rows] : [rows, columns], matrix),
  );
}
