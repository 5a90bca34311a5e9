import type { ROUNDINGS } from "../../../core/contract.ts";
import type { QuantizeParams } from "./params.ts";

type Titles = { readonly [M in QuantizeParams["method"]]: (params: Extract<QuantizeParams, { method: M }>) => string };

/** How weights were rounded, where that is worth a word. */
const ROUNDED_BY: Readonly<Record<(typeof ROUNDINGS)[number], string>> = {
  nearest: "",
  gptq: ", rounded by GPTQ",
  adaround: ", rounded by AdaRound",
  stochastic: ", rounded by the best of random draws",
};

/** What each method does, for people who do not know its name. What stands before a colon says it in short. */
const TITLES: Titles = {
  simplify: () => "simplified, nothing quantized",
  float16: () => "16-bit floats",
  dynamic: () => "dynamic int8: 8-bit weights, activations quantized while the model runs",
  static: ({ rounding }) => `static int8: 8-bit weights and activations${ROUNDED_BY[rounding]}`,
  weight_only: ({ bits, block_size, rounding, format }) =>
    `${bits}-bit weights in blocks of ${block_size}${ROUNDED_BY[rounding ?? "nearest"]}${format === "qdq" ? ", as plain ONNX" : ""}`,
  qat: ({ bits: { weights, activations } }) =>
    `trained with the rounding in it: ${weights}-bit weights${activations === null ? "" : `, ${activations}-bit activations`}`,
};

/** What a quantization does, in words. */
export function titleOf(params: QuantizeParams): string {
  // The method of the parameters settles which entry it is.
  return (TITLES[params.method] as (params: QuantizeParams) => string)(params);
}
