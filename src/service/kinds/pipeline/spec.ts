import { pointerOf } from "../../errors.ts";
import type { Judgement } from "../evaluation.ts";
import type { JobKind } from "../kind.ts";
import { PipelineParams } from "./params.ts";
import { type SingleSpec, stepKindOf } from "./steps.ts";
import { PipelineJobRequest, PipelinePlanFields } from "./wire.ts";

export interface PipelineSpec extends Judgement {
  readonly type: "pipeline";
  /** What the first step is fed; null when that step names its models itself. */
  readonly model_id: string | null;
  readonly params: PipelineParams;
}

/**
 * Step `index` of a pipeline as a job of its own, on the model `fed`: the one that the step before has made, for the first step the
 * pipeline's `model_id`. It has no limits: those are for the pipeline as a whole.
 */
export function stepSpec({ params, evaluation }: PipelineSpec, index: number, fed: string | null): SingleSpec {
  const step = params.steps[index]!;
  return stepKindOf(step).asJob(step.params, fed, { evaluation, acceptance: {} });
}

/** Whether a step of a pipeline trains. */
export function trains({ params }: PipelineSpec): boolean {
  return params.steps.some((step) => stepKindOf(step).learned !== undefined);
}

const firstOf = (spec: PipelineSpec): SingleSpec => stepSpec(spec, 0, spec.model_id);

/** Where a field of a step's own spec is in its pipeline. The model of a later step is that of the step before it, and has no field. */
export function stepPointer(index: number, pointer: string): string {
  if (pointer === "/model_id" && index > 0) return pointerOf("/params/steps", [index]);
  return pointer.startsWith("/params") ? pointerOf("/params/steps", [index]) + pointer : pointer;
}

export const PIPELINE = {
  type: "pipeline",
  request: PipelineJobRequest,
  plan: PipelinePlanFields,
  methods: [{ method: "pipeline", params: PipelineParams }],
  methodOf: () => "pipeline",
  makesModel: true,
  made: () => "pipeline",
  title: (spec) =>
    spec.params.steps
      .map((_, i) => stepSpec(spec, i, null))
      .map((step) => stepKindOf(step).title(step).split(":")[0])
      .join(", then "),
  sourceModelId: (spec) => stepKindOf(firstOf(spec)).sourceModelId(firstOf(spec)),
  comparedModelId: (spec) => stepKindOf(firstOf(spec)).comparedModelId(firstOf(spec)),
  /** One step that trains is enough: the last model comes near the first, and cannot equal it. */
  heldAgainst: (spec) => (trains(spec) ? "teacher" : "original"),
  seedOf: ({ params }) => params.steps[0]!.params.seed,
} as const satisfies JobKind<PipelineSpec>;
