/**
 * How a weight is quantized: which integers it uses, and what shares a scale. How its values are rounded to them (`rounding/`), and what
 * they look like in the file (`weights/codes.ts`, `static/qdq.ts`), are choices of their own. Plain data, keyed by nothing.
 */
import { type CodeDType, type CodeRange, codeRange, type ScaleDType } from "./params.ts";

/** What has a scale and a zero point of its own: the weight, each output channel, or each run of `block` weights along the reduced axis. */
export type Granularity = "tensor" | "channel" | { readonly block: number };

export interface WeightScheme {
  readonly bits: 2 | 4 | 8;
  readonly signed: boolean;
  readonly symmetric: boolean;
  readonly granularity: Granularity;
  /**
   * Kernels for x64 without VNNI multiply unsigned activations (up to 255) with weights of 8 bits and add two products in 16 bits, which
   * saturates. With this, no two neighbours along the reduced axis can. Needs signed, symmetric weights of 8 bits.
   */
  readonly reduceRange?: boolean;
  /** float32 unless given. */
  readonly scaleDType?: ScaleDType;
}

type WeightDType = Extract<CodeDType, `${string}int${2 | 4 | 8}`>;

/** The ONNX type of the quantized values. */
export function dtypeOf({ bits, signed }: Pick<WeightScheme, "bits" | "signed">): WeightDType {
  return `${signed ? "int" : "uint"}${bits}`;
}

/** The quantized values that a scheme uses. */
export function rangeOf(scheme: Pick<WeightScheme, "bits" | "signed" | "symmetric">): CodeRange {
  return codeRange(dtypeOf(scheme), { symmetric: scheme.symmetric });
}

/** Weights that share a scale, of `depth` along the reduced axis. */
export function blockSizeOf({ granularity }: Pick<WeightScheme, "granularity">, depth: number): number {
  return typeof granularity === "object" ? granularity.block : depth;
}
