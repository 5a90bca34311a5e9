import { OfflineDistillParams } from "../distill/params.ts";
import type { DistillSpec } from "../distill/spec.ts";
import { PipelineParams } from "../pipeline/params.ts";
import type { PipelineSpec } from "../pipeline/spec.ts";
import { QuantizeParams } from "../quantize/params.ts";
import type { QuantizeSpec } from "../quantize/spec.ts";
import type { AutoSpec } from "./spec.ts";

/** The job of a candidate. */
export type SearchedSpec = QuantizeSpec | DistillSpec | PipelineSpec;

/** What `methods` of a search calls that which makes a candidate. */
export function methodOf(spec: SearchedSpec): string {
  return spec.type === "quantize" ? spec.params.method : "distill";
}

/** Shares of the width of the original that students have. */
const WIDTHS = { half: 0.5, quarter: 0.25 } as const;

/**
 * The candidates of a search that are trained, each a complete job, those that change least first; none where it is not to train: the model with
 * rounding in it, taught by itself, and narrower students that it teaches, as they are and then in static int8.
 */
export function trainedCandidates(spec: AutoSpec): readonly (readonly [name: string, job: SearchedSpec])[] {
  if (!spec.params.training) return [];
  return [
    ...([8, 4, 2] as const).map((bits) => [`trained-${bits}-bit`, withRounding(spec, bits)] as const),
    ...(["half", "quarter"] as const).flatMap((width) => [
      [`student-${width}`, student(spec, WIDTHS[width])] as const,
      [`student-${width}-int8`, studentInInt8(spec, WIDTHS[width])] as const,
    ]),
  ];
}

function withRounding({ model_id, params, evaluation }: AutoSpec, bits: 8 | 4 | 2): QuantizeSpec {
  const { dataset_id, seed } = params;
  const [target] = params.targets;
  const own = QuantizeParams.parse({ method: "qat", dataset_id, bits: { weights: bits }, target, seed });
  return { type: "quantize", model_id, params: own, evaluation, acceptance: {} };
}

/** Learns from the original alone, because a search need not have labels to learn from. */
function student({ model_id, params, evaluation }: AutoSpec, width: number): DistillSpec {
  const { dataset_id, seed } = params;
  const own = OfflineDistillParams.parse({
    mode: "offline",
    teacher_model_id: model_id,
    dataset_id,
    student: { derive: { width } },
    loss: { kl_weight: 1, label_weight: 0 },
    seed,
  });
  return { type: "distill", params: own, evaluation, acceptance: {} };
}

function studentInInt8(spec: AutoSpec, width: number): PipelineSpec {
  const { params, evaluation } = spec;
  const [target] = params.targets;
  const quantized = { method: "static", dataset_id: params.dataset_id, target, seed: params.seed };
  const steps = PipelineParams.parse({
    steps: [
      { type: "distill", name: "student", params: student(spec, width).params },
      { type: "quantize", name: "int8", params: quantized },
    ],
  });
  return { type: "pipeline", model_id: null, params: steps, evaluation, acceptance: {} };
}
