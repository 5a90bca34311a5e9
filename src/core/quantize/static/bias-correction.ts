/**
 * Bias correction: rounding shifts the mean of a layer's output, and a shift, unlike noise, adds up from layer to layer. Layer by layer, in the
 * order in which they run and with everything before already quantized and corrected,
 *
 *     b_c += E[y_c] − E[ŷ_c]
 *
 * with y of the float model and ŷ of the quantized one (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
 * Correction", 2019, section 4.2, the empirical form).
 *
 * A mean over all positions serves one kind of them at the cost of others. The padding behind a line of text is one value over and over: its
 * error is large and the same everywhere, moves the mean, and the correction then moves the text away from what is right. A reader of text lines
 * lost two points of its characters so, while the error over all positions fell. So the mean m is held against how it differs from place
 * to place: samples are cut into cells along every axis but that of the channels, and with σ² the variance of the cells' means the
 * correction is m · max(0, 1 − σ²/m²). What is left is what nearly every place needs.
 */
import { CoreError } from "../../errors.ts";
import type { Model, Node } from "../../onnx/ir.ts";
import { arrayOf, elementCount, floatsOf, type Tensor, tensorOf } from "../../onnx/tensor.ts";
import { canSumRows, sumsOfRows } from "../calibration/activation-simd.ts";
import { type CalibrateOptions, type Feeds, observe } from "../calibration/calibrate.ts";
import type { Observer } from "../calibration/observers.ts";
import { StagedRun } from "../calibration/staged-run.ts";
import { correctInBatch, PARTS } from "./batched-correction.ts";
import type { Placement } from "./placement.ts";

/** What to add to the bias of a layer, for each of its output channels, by the name of its node. */
export type BiasShifts = ReadonlyMap<string, Float64Array>;

/** A layer whose bias can be corrected. */
export interface CorrectableLayer {
  /** The Conv, Gemm or MatMul. */
  readonly name: string;
  /** The value that the bias has been added to, in the float model. */
  readonly result: string;
  /** The node that makes that value in the quantized model. */
  readonly last: string;
  readonly channelAxis: number;
}

/** Layers of the main graph that are quantized and have a bias, or a place for one. To be asked before the placement is written. */
export function correctableLayers({ units }: Placement): CorrectableLayer[] {
  return units.flatMap(({ node, rule, biasAdd, result, quantized }) => {
    const operand = rule.weight?.(node);
    if (!quantized || node.graph.owner || !operand || (rule.bias === undefined && !biasAdd)) return [];
    const channelAxis = operand.activationAxis;
    return [{ name: node.name, result: result.name, last: (biasAdd ?? node).name, channelAxis }];
  });
}

/**
 * The corrections that bring `quantized` closest to `model`, which it was made from. Every element of `samples` counts as one sample, however
 * many it holds.
 */
export async function correctBiases(
  model: Model,
  quantized: Model,
  layers: readonly CorrectableLayer[],
  samples: readonly Feeds[],
  options: CalibrateOptions,
): Promise<BiasShifts> {
  const positions = new Map(quantized.graph.nodes.map((node, i) => [node.name, { node, i }]));
  const inOrder = layers.map((layer) => ({ ...layer, ...positions.get(layer.last)! })).sort((a, b) => a.i - b.i);
  const found = await correctInBatch(model, quantized, inOrder, samples, options);
  if (found) return found;
  const expected = new Map(layers.map(({ result, channelAxis }) => [result, new CellObserver(channelAxis)]));
  await observe(model, expected, streamOf(samples), options);
  const shifts = new Map<string, Float64Array>();
  const run = new StagedRun(quantized, samples, options);
  for (const { name, result, node, channelAxis } of inOrder) {
    const tensors = await run.runTo(node).catch(refuseOthers);
    // Behind a sequence that goes on, layers keep their biases.
    if (!tensors) break;
    const actual = new CellObserver(channelAxis);
    for (const tensor of tensors) actual.observe(floatsOf(tensor), tensor.dims);
    const shift = shiftBetween(expected.get(result)!.means, actual.means);
    if (!shift) continue;
    shifts.set(name, shift);
    for (const tensor of tensors) shiftTensor(tensor, shift, channelAxis);
  }
  return shifts;
}

function refuseOthers(error: unknown): undefined {
  if (!(error instanceof CoreError) || error.code !== "unsupported") throw error;
}

async function* streamOf(samples: readonly Feeds[]): AsyncGenerator<Feeds> {
  yield* samples;
}

/** Means of the channels, for each cell of each sample. */
class CellObserver implements Observer {
  readonly means: Float32Array[] = [];
  readonly #axis: number;

  constructor(axis: number) {
    this.#axis = axis;
  }

  observe(values: Float32Array, dims: readonly number[]): void {
    if (values.length === 0) return;
    const axis = this.#axis < 0 ? this.#axis + dims.length : this.#axis;
    const channels = dims[axis]!;
    const outer = cellsOf(dims.slice(0, axis));
    const inner = cellsOf(dims.slice(axis + 1));
    const sums = Array.from({ length: outer.count * inner.count }, () => new Float64Array(channels));
    if (axis === dims.length - 1) addRows(values, runsOf(outer.cellAt), sums);
    else addPlanes(values, outer.cellAt, dims.slice(axis + 1), sums);
    const sizes = new Float64Array(sums.length);
    for (const first of outer.cellAt) for (const cell of inner.cellAt) sizes[first * inner.count + cell]!++;
    sums.forEach((sum, cell) => {
      this.means.push(new Float32Array(sum.map((x) => x / sizes[cell]!)));
    });
  }
}

interface Run {
  readonly cell: number;
  readonly length: number;
}

/** Adds rows that have a value for each channel to the sums of their cells. */
function addRows(values: Float32Array, runs: readonly Run[], sums: readonly Float64Array[]): void {
  const channels = sums[0]!.length;
  const rows = groupedRows(values, channels, runs);
  let i = 0;
  for (const { cell } of rows.runs) {
    const sum = sums[cell]!;
    for (let c = 0; c < channels; c++) sum[c]! += rows.sums[i++]!;
  }
}

/** Adds planes of `dims`, one for each channel at each of the outer positions, to the sums of their cells. */
function addPlanes(
  values: Float32Array,
  outerCellAt: Uint32Array,
  dims: readonly number[],
  sums: readonly Float64Array[],
): void {
  const channels = sums[0]!.length;
  const columns = cellsOf(dims.slice(-1));
  const columnRuns = runsOf(columns.cellAt);
  const above = cellsOf(dims.slice(0, -1));
  const rows = groupedRows(values, dims.at(-1)!, runsOf(above.cellAt));
  let i = 0;
  for (const first of outerCellAt) {
    for (let c = 0; c < channels; c++) {
      for (const row of rows.runs) {
        const base = (first * above.count + row.cell) * columns.count;
        for (const { cell, length } of columnRuns) {
          let sum = 0;
          for (const end = i + length; i < end; i++) sum += rows.sums[i]!;
          sums[base + cell]![c]! += sum;
        }
      }
    }
  }
}

/** Sums of the rows of each run, in every plane; the rows themselves, each a run, where that is not worth while. */
function groupedRows(values: Float32Array, width: number, runs: readonly Run[]) {
  const lengths = runs.map(({ length }) => length);
  const rows = lengths.reduce((sum, length) => sum + length, 0);
  if (canSumRows(width) && rows >= 2 * runs.length) return { sums: sumsOfRows(values, width, lengths), runs };
  const single = runs.flatMap(({ cell, length }) => Array.from({ length }, () => ({ cell, length: 1 })));
  return { sums: values, runs: single };
}

/** Positions next to each other that are in one cell. */
function runsOf(cellAt: Uint32Array): readonly Run[] {
  const runs: { cell: number; length: number }[] = [];
  for (const cell of cellAt) {
    const last = runs.at(-1);
    if (last?.cell === cell) last.length++;
    else runs.push({ cell, length: 1 });
  }
  return runs;
}

/** The number of the cell that each position of a tensor of these dims is in. */
function cellsOf(dims: readonly number[]): { readonly count: number; readonly cellAt: Uint32Array } {
  let count = 1;
  let cellAt = new Uint32Array(1);
  for (const dim of dims) {
    const parts = Math.min(dim, PARTS);
    const finer = new Uint32Array(cellAt.length * dim);
    for (let i = 0; i < finer.length; i++) {
      finer[i] = cellAt[Math.floor(i / dim)]! * parts + Math.floor(((i % dim) * parts) / dim);
    }
    cellAt = finer;
    count *= parts;
  }
  return { count, cellAt };
}

/** The mean difference of each channel, less what differs between cells; undefined when there is nothing to compare. */
function shiftBetween(expected: readonly Float32Array[], actual: readonly Float32Array[]): Float64Array | undefined {
  const count = Math.min(expected.length, actual.length);
  if (count < 2) return undefined;
  return Float64Array.from(expected[0]!, (_, c) => {
    let sum = 0;
    let squares = 0;
    for (let i = 0; i < count; i++) {
      const difference = expected[i]![c]! - actual[i]![c]!;
      sum += difference;
      squares += difference * difference;
    }
    const mean = sum / count;
    const variance = Math.max(0, squares - count * mean * mean) / (count - 1);
    return mean === 0 ? 0 : mean * Math.max(0, 1 - variance / (mean * mean));
  });
}

/** Adds the shift to each channel, in place: nobody else has the tensors of the run. */
function shiftTensor(tensor: Tensor, shift: Float64Array, axis: number): void {
  const values = arrayOf(tensor, "float32");
  const at = axis < 0 ? axis + tensor.dims.length : axis;
  const inner = elementCount(tensor.dims.slice(at + 1));
  for (let i = 0; i < values.length; ) {
    for (const amount of shift) for (const end = i + inner; i < end; i++) values[i]! += amount;
  }
}

/** Adds a correction to the bias of a layer, in place. */
export function shiftBias(node: Node, shift: Float64Array): void {
  // The bias of a MatMul is in the Add behind it.
  const holder = node.opType === "MatMul" ? node.outputs[0]!.uses[0]!.node : node;
  const index = node.opType === "MatMul" ? (holder.inputs[0]?.constant ? 0 : 1) : 2;
  const bias = holder.inputs[index];
  const old = bias && arrayOf(bias.constant!, "float32");
  const dims = bias?.constant?.dims ?? [shift.length];
  const sum = Float32Array.from(shift, (value, c) => (old?.[c] ?? 0) + value);
  const name = `${bias?.name ?? `${node.label}_bias`}_corrected`;
  holder.setInput(index, node.graph.addInitializer(name, tensorOf("float32", dims, sum)));
}
