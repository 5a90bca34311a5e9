import { CoreError } from "../../errors.ts";
import { byteLengthOf, type DType } from "../../onnx/dtype.ts";
import type { Graph, Model, Value } from "../../onnx/ir.ts";
import { deriveTensors, elementCount } from "../../onnx/tensor.ts";
import type { WeightView } from "../../passes/weight-views.ts";
import {
  type BlockLayout,
  type BlockScheme,
  blockCount,
  type QuantizedBlocks,
  quantizeBlocks,
  type WeightMatrix,
} from "./blocks.ts";

/** What a tensor of codes or zero points looks like in the file; `pack` makes its bytes out of a byte for each code. */
export interface CodesForm {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly pack?: (codes: Uint8Array) => Uint8Array;
}

/** How one weight is quantized and what its three tensors look like. */
export interface QuantizedForm {
  readonly matrix: Omit<WeightMatrix, "values">;
  readonly scheme: BlockScheme;
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

/** Weights by the name of their constant: [rows, depth] in row-major order, with parameters [rows, blocks]. */
export type RoundedWeights = ReadonlyMap<string, QuantizedBlocks>;

/**
 * The quantized weights of one model. A weight that several nodes read in the same form is quantized and stored once. Nothing is computed
 * until the bytes are asked for; then the three tensors of a weight are made together.
 */
export class QuantizedWeights {
  readonly #made = new Map<Graph, Map<string, QuantizedWeight>>();
  readonly #forms = new Map<string, Map<string, QuantizedForm>>();
  readonly #rounded: RoundedWeights;

  /** Weights that are rounded already, in the form that they get here; all others are rounded to the nearest codes. */
  constructor(rounded: RoundedWeights = new Map()) {
    this.#rounded = rounded;
  }

  /** The forms that weights out of the constant of this name have been given. */
  formsOf(constant: string): QuantizedForm[] {
    return [...(this.#forms.get(constant)?.values() ?? [])];
  }

  /** The initializers belong to `graph`, in which all that the view reads must be visible. */
  of(view: WeightView, form: QuantizedForm, graph: Graph = view.graph): QuantizedWeight {
    const inGraph = this.#made.get(graph) ?? new Map<string, QuantizedWeight>();
    this.#made.set(graph, inGraph);
    const key = `${view.key} ${JSON.stringify(form)}`;
    const source = view.sources[0]!.name;
    const forms = this.#forms.get(source) ?? new Map<string, QuantizedForm>();
    this.#forms.set(source, forms.set(key, form));
    const made = inGraph.get(key) ?? makeWeight(view, form, graph, this.#rounded.get(source));
    inGraph.set(key, made);
    return made;
  }
}

function makeWeight(
  view: WeightView,
  form: QuantizedForm,
  graph: Graph,
  rounded: QuantizedBlocks | undefined,
): QuantizedWeight {
  const source = view.sources[0]!.name;
  const { codes, scales, zeroPoints } = form;
  const types = { codes, scales, ...(zeroPoints && { zeroPoints }) };
  const tensors = deriveTensors<"codes" | "scales" | "zeroPoints">(types as Required<typeof types>, () => {
    const made = rounded ? arranged(rounded, form) : quantized(view, form, source);
    return {
      codes: codes.pack?.(made.codes) ?? made.codes,
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

function quantized(view: WeightView, { matrix, scheme, layout }: QuantizedForm, source: string) {
  try {
    return quantizeBlocks({ ...matrix, values: view.read() }, scheme, layout);
  } catch (error) {
    if (!(error instanceof CoreError) || error.code !== "non_finite") throw error;
    throw new CoreError("non_finite", `The weight "${source}" cannot be quantized: ${error.message}`, source, {
      cause: error,
    });
  }
}

/** Codes and parameters in row-major order, as `quantizeBlocks` would have laid them out. */
function arranged(rounded: QuantizedBlocks, { matrix, scheme, layout }: QuantizedForm): QuantizedBlocks {
  const { rows, depth, batches } = matrix;
  const blockSize = Math.min(scheme.blockSize, depth);
  const blocks = blockCount(depth, blockSize);
  const { codes, scales, zeroPoints } = rounded;
  if (layout.layout === "column-major") {
    // Batches are blocks of one matrix, cut out along its depth.
    return {
      codes: turned(codes, new Uint8Array(codes.length), rows, batches * depth),
      scales: turned(scales, new Float32Array(scales.length), rows, batches * blocks),
      zeroPoints: turned(zeroPoints, new Uint8Array(scales.length), rows, batches * blocks),
    };
  }
  const rowLength = layout.padded ? blocks * scheme.blockSize : depth;
  if (rowLength === depth) return { codes, scales: scales.slice(), zeroPoints };
  const paddedCodes = new Uint8Array(rows * rowLength);
  for (let row = 0; row < rows; row++) {
    paddedCodes.fill(zeroPoints[(row + 1) * blocks - 1]!, row * rowLength + depth, (row + 1) * rowLength);
    paddedCodes.set(codes.subarray(row * depth, (row + 1) * depth), row * rowLength);
  }
  return { codes: paddedCodes, scales: scales.slice(), zeroPoints };
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
