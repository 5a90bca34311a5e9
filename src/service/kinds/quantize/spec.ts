import type { OfflineSpec } from "../distill/spec.ts";
import type { Judgement } from "../evaluation.ts";
import type { StepKind } from "../kind.ts";
import type { LabelTask } from "../label-use.ts";
import { calibrationKeys } from "./cache-keys.ts";
import { titleOf } from "./method-facts.ts";
import { QuantizeParams } from "./params.ts";
import { QuantizeJobRequest, QuantizePlanFields, QuantizeStep } from "./wire.ts";

export interface QuantizeSpec extends Judgement {
  readonly type: "quantize";
  readonly model_id: string;
  readonly params: QuantizeParams;
}

type Params<M extends QuantizeParams["method"]> = Extract<QuantizeParams, { method: M }>;

export type StaticParams = Params<"static">;
export type StaticSpec = QuantizeSpec & { readonly params: StaticParams };

export type RoundedParams = Params<"weight_only"> & { readonly dataset_id: string };
export type RoundedSpec = QuantizeSpec & { readonly params: RoundedParams };

/** Jobs that look at samples of what the model will see. */
export type CalibratedSpec = StaticSpec | RoundedSpec;

export type QatSpec = QuantizeSpec & { readonly params: Params<"qat"> };

export function isStatic(spec: QuantizeSpec): spec is StaticSpec {
  return spec.params.method === "static";
}

/** Whether a job rounds weights for what samples show, rather than each to the nearest value. */
export function isRounded(spec: QuantizeSpec): spec is RoundedSpec {
  return spec.params.method === "weight_only" && spec.params.rounding !== "nearest";
}

export function isQat(spec: QuantizeSpec): spec is QatSpec {
  return spec.params.method === "qat";
}

/** The training of a quantization-aware job as a distillation: the model itself is the student. */
export function asDistillation({ model_id, params, evaluation, acceptance }: QatSpec): OfflineSpec {
  const { teacher, dataset_id, loss, training, seed } = params;
  return {
    type: "distill",
    params: {
      mode: "offline",
      teacher_model_id: teacher === "self" ? model_id : teacher,
      dataset_id,
      student: { model_id, init: "keep" },
      // Parsing has filled them in.
      loss: loss!,
      training: { ...training, learning_rate: training.learning_rate! },
      baseline: false,
      seed,
    },
    evaluation,
    acceptance,
  };
}

/** What labels are to do in a quantization. */
export function labelTaskOf({ params, evaluation, acceptance }: QuantizeSpec): LabelTask {
  const isHeld = params.method === "static" && params.max_metric_drop !== null;
  const needed = evaluation.metric !== null || acceptance.max_metric_drop !== undefined || isHeld;
  return { metric: evaluation.metric, ignoreLabel: evaluation.ignore_label, needed };
}

export const QUANTIZE = {
  type: "quantize",
  request: QuantizeJobRequest,
  plan: QuantizePlanFields,
  step: QuantizeStep,
  methods: QuantizeParams.options.map((params) => ({ method: params.shape.method.value, params })),
  methodOf: ({ params }) => params.method,
  chosenBy: { parameter: "method" },
  makesModel: true,
  made: ({ params }) => params.method,
  title: ({ params }) => titleOf(params),
  sourceModelId: ({ model_id }) => model_id,
  comparedModelId: ({ model_id }) => model_id,
  heldAgainst: () => "original",
  origin: ({ params }) => params.method,
  cacheKeys: (spec, host) => (isStatic(spec) ? calibrationKeys(spec, host) : {}),
  seedOf: ({ params }) => params.seed,
  takesFed: () => true,
  // That there is one is checked when the job is posted.
  asJob: (params, fed, judgement) => ({ type: "quantize", model_id: fed!, params, ...judgement }),
} as const satisfies StepKind<QuantizeSpec>;
