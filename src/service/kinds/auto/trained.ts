import { QuantizeParams } from "../quantize/params.ts";
import type { QuantizeSpec } from "../quantize/spec.ts";
import type { AutoSpec } from "./spec.ts";

/** The candidates of a search that are trained, each a complete job; none where it is not to train. */
export function trainedCandidates({
  model_id,
  params,
  evaluation,
}: AutoSpec): readonly (readonly [string, QuantizeSpec])[] {
  if (!params.training) return [];
  const [target] = params.targets;
  return ([8, 4, 2] as const).map((weights) => {
    const sent = { method: "qat", dataset_id: params.dataset_id, bits: { weights }, target, seed: params.seed };
    const spec = {
      type: "quantize",
      model_id,
      params: QuantizeParams.parse(sent),
      evaluation,
      acceptance: {},
    } as const;
    return [`trained-${weights}-bit`, spec];
  });
}
