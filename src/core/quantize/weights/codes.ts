import { CoreError } from "../../errors.ts";
import { byteLengthOf, type DType } from "../../onnx/dtype.ts";
import type { Graph, Model, Value } from "../../onnx/ir.ts";
import { deriveTensors, elementCount } from "../../onnx/tensor.ts";
import type { WeightView } from "../../passes/weight-views.ts";
import { type BlockLayout, quantizeBlocks, type RoundedWeight, type WeightMatrix } from "../rounding/blocks.ts";
import type { RoundedWeights } from "../rounding/round-layers.ts";
import { blockCount } from "../rounding/weight-tiles.ts";
import { blockSizeOf, type WeightScheme } from "../scheme.ts";

/** What a tensor of codes or zero points looks like in the file; `pack` makes its bytes out of a byte for each code. */
export interface CodesForm {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly pack?: (codes: Uint8Array) => Uint8Array;
}

/** How one weight is quantized and what its three tensors look like. */
export interface QuantizedForm {
  readonly matrix: Omit<WeightMatrix, "values">;
  readonly scheme: WeightScheme;
  /** Keep the sum of each row, as `quantizeBlocks` does. */
  readonly keepSums?: boolean;
  readonly layout: BlockLayout;
  readonly codes: CodesForm;
  readonly scales: {
    readonly dtype: "float32" | "float16";
    readonly dims: readonly number[];
    /** The scales are multiplied by it once the codes are made: the alpha of a Gemm. */
    readonly factor?: number;
  };
  /** Absent where the reader takes the middle code for zero. */
  readonly zeroPoints?: CodesForm;
}

/** The initializers of a quantized weight. */
export interface QuantizedWeight {
  readonly codes: Value;
  readonly scales: Value;
  readonly zeroPoints: Value | undefined;
}

/** Bytes of the three tensors together. */
export function quantizedBytes({ codes, scales, zeroPoints }: QuantizedForm): number {
  return [codes, scales, ...(zeroPoints ? [zeroPoints] : [])].reduce(
    (sum, { dtype, dims }) => sum + byteLengthOf(dtype, elementCount(dims)),
    0,
  );
}

/** 4-bit tensors are in the format since IR version 10, the one of opset 21. */
export function requireCodes(model: Model, { codes }: QuantizedForm): void {
  if (codes.dtype === "int4" || codes.dtype === "uint4") model.irVersion = Math.max(model.irVersion, 10);
}

/**
 * The quantized weights of one model. A weight that several nodes read in the same form is quantized and stored once. Nothing is computed
 * until the bytes are asked for; then the three tensors of a weight are made together.
 */
export class QuantizedWeights {
  readonly #made = new Map<Graph, Map<string, QuantizedWeight>>();
  readonly #rounded: RoundedWeights;

  /** Weights that are rounded already, in the form that they get here; all others are rounded to the nearest codes. */
  constructor(rounded: RoundedWeights = new Map()) {
    this.#rounded = rounded;
  }

  /** The initializers belong to `graph`, in which all that the view reads must be visible. */
  of(view: WeightView, form: QuantizedForm, graph: Graph = view.graph): QuantizedWeight {
    const inGraph = this.#made.get(graph) ?? new Map<string, QuantizedWeight>();
    this.#made.set(graph, inGraph);
    const key = `${view.key} ${JSON.stringify(form)}`;
    const made = inGraph.get(key) ?? makeWeight(view, form, graph, this.#rounded.get(view.sources[0]!.name));
    inGraph.set(key, made);
    return made;
  }
}

function makeWeight(
  view: WeightView,
  form: QuantizedForm,
  graph: Graph,
  rounded: RoundedWeight | undefined,
): QuantizedWeight {
  const source = view.sources[0]!.name;
  const { codes, scales, zeroPoints } = form;
  const types = { codes, scales, ...(zeroPoints && { zeroPoints }) };
  const tensors = deriveTensors<"codes" | "scales" | "zeroPoints">(types as Required<typeof types>, () => {
    const made = rounded ? arranged(rounded, form) : quantized(view, form, source);
    return {
      codes: codes.pack?.(made.q) ?? made.q,
      scales: scaleBytes(made.scales, scales.dtype, scales.factor),
      zeroPoints: zeroPoints?.pack?.(made.zeroPoints) ?? made.zeroPoints,
    };
  });
  return {
    codes: graph.addInitializer(`${source}_q`, tensors.codes),
    scales: graph.addInitializer(`${source}_scale`, tensors.scales),
    zeroPoints: zeroPoints && graph.addInitializer(`${source}_zero`, tensors.zeroPoints),
  };
}

function quantized(view: WeightView, { matrix, scheme, layout, keepSums = false }: QuantizedForm, source: string) {
  try {
    return quantizeBlocks({ ...matrix, values: view.read() }, scheme, layout, { keepSums });
  } catch (error) {
    if (!(error instanceof CoreError) || error.code !== "non_finite") throw error;
    throw new CoreError("non_finite", `The weight "${source}" cannot be quantized: ${error.message}`, source, {
      cause: error,
    });
  }
}

/** Codes and parameters in row-major order, as `quantizeBlocks` would have laid them out. */
function arranged(rounded: RoundedWeight, { matrix, scheme, layout }: QuantizedForm): RoundedWeight {
  const { rows, depth, batches } = matrix;
  const wanted = blockSizeOf(scheme, depth);
  const blocks = blockCount(depth, wanted);
  const { q, scales, zeroPoints } = rounded;
  if (layout.layout === "column-major") {
    // Batches are blocks of one matrix, cut out along its depth.
    return {
      q: turned(q, new Uint8Array(q.length), rows, batches * depth),
      scales: turned(scales, new Float32Array(scales.length), rows, batches * blocks),
      zeroPoints: turned(zeroPoints, new Uint8Array(scales.length), rows, batches * blocks),
    };
  }
  const rowLength = layout.padded ? blocks * wanted : depth;
  if (rowLength === depth) return { q, scales: scales.slice(), zeroPoints };
  const padded = new Uint8Array(rows * rowLength);
  for (let row = 0; row < rows; row++) {
    padded.fill(zeroPoints[(row + 1) * blocks - 1]!, row * rowLength + depth, (row + 1) * rowLength);
    padded.set(q.subarray(row * depth, (row + 1) * depth), row * rowLength);
  }
  return { q: padded, scales: scales.slice(), zeroPoints };
}

/** [rows, columns] → [columns, rows] */
function turned<A extends Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>>(
  from: A,
  to: A,
  rows: number,
  columns: number,
): A {
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) to[i * rows + row] = from[row * columns + i]!;
  }
  return to;
}

function scaleBytes(scales: Float32Array<ArrayBuffer>, dtype: "float32" | "float16", factor = 1): Uint8Array {
  if (factor !== 1) for (let i = 0; i < scales.length; i++) scales[i] = scales[i]! * factor;
  return new Uint8Array((dtype === "float16" ? Float16Array.from(scales) : scales).buffer);
}
