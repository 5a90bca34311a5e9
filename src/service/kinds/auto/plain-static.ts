import { QuantizeParams } from "../quantize/params.ts";
import type { StaticSpec } from "../quantize/spec.ts";
import type { AutoSpec } from "./spec.ts";

/** Static quantization at its defaults: what a search calibrates with and measures layers for, and what decides which samples are tried on. */
export function plainStatic({ model_id, params, evaluation }: AutoSpec): StaticSpec {
  const [target] = params.targets;
  const sent = { method: "static", dataset_id: params.dataset_id, target: target!, seed: params.seed } as const;
  const own = QuantizeParams.parse(sent) as StaticSpec["params"];
  return { type: "quantize", model_id, evaluation, acceptance: {}, params: own };
}
