import type { ROUNDINGS } from "../../../core/contract.ts";
import type { QuantizeParams } from "./params.ts";

/** Weights as they are; floats of fewer bits, which hold what is no number as it is; or integers with scales, which do not. */
export type StoredAs = "kept" | "floats" | "integers";

/** What is known of a method without doing any of its work. */
interface MethodFacts<P> {
  /** What it does, for people who do not know its name. What stands before a colon says it in short. */
  readonly title: (params: P) => string;
  readonly weights: StoredAs;
}

/** How weights were rounded, where that is worth a word. */
const ROUNDED_BY: Readonly<Record<(typeof ROUNDINGS)[number], string>> = {
  nearest: "",
  gptq: ", rounded by GPTQ",
  adaround: ", rounded by AdaRound",
  stochastic: ", rounded by the best of random draws",
};

const FACTS: { readonly [M in QuantizeParams["method"]]: MethodFacts<Extract<QuantizeParams, { method: M }>> } = {
  simplify: { title: () => "simplified, nothing quantized", weights: "kept" },
  float16: { title: () => "16-bit floats", weights: "floats" },
  dynamic: {
    title: () => "dynamic int8: 8-bit weights, activations quantized while the model runs",
    weights: "integers",
  },
  static: {
    title: ({ rounding, weight_bits: bits }) =>
      `static int8: ${bits === 8 ? "8-bit weights and activations" : `${bits}-bit weights, 8-bit activations`}${ROUNDED_BY[rounding]}`,
    weights: "integers",
  },
  weight_only: {
    title: ({ bits, block_size, rounding, format }) =>
      `${bits}-bit weights in blocks of ${block_size}${ROUNDED_BY[rounding ?? "nearest"]}${format === "qdq" ? ", as plain ONNX" : ""}`,
    weights: "integers",
  },
  qat: {
    title: ({ bits: { weights, activations }, rounding }) =>
      `trained with the rounding in it: ${weights}-bit weights${ROUNDED_BY[rounding]}${activations === null ? "" : `, ${activations}-bit activations`}`,
    weights: "integers",
  },
};

function factsOf(params: QuantizeParams): MethodFacts<QuantizeParams> {
  // The method of the parameters settles which entry it is.
  return FACTS[params.method] as MethodFacts<QuantizeParams>;
}

/** What a quantization does, in words. */
export function titleOf(params: QuantizeParams): string {
  return factsOf(params).title(params);
}

/** What it stores weights as. */
export function storedAs(params: QuantizeParams): StoredAs {
  return factsOf(params).weights;
}
