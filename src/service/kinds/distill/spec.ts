import type { Judgement } from "../evaluation.ts";
import type { StepKind } from "../kind.ts";
import { isPrevious, withFed } from "../previous.ts";
import { teacherKeys } from "./cache-keys.ts";
import {
  type DistillParams,
  OfflineDistillParams,
  type OfflineParams,
  OnlineDistillParams,
  offlineView,
  SelfDistillParams,
} from "./params.ts";
import { titleOf } from "./titles.ts";
import { DistillJobRequest, DistillPlanFields, DistillStep } from "./wire.ts";

export interface DistillSpec extends Judgement {
  readonly type: "distill";
  readonly params: DistillParams;
}

/** Of one mode: the view that the others share, too. */
export interface OfflineSpec extends DistillSpec {
  readonly params: OfflineParams;
}

/** The uploaded student, or the teacher that a student is made from. */
function sourceOf(params: DistillParams): string {
  const { student, teacher_model_id } = offlineView(params);
  // That there is a teacher to derive from is checked when the job is posted.
  return "model_id" in student ? student.model_id : teacher_model_id!;
}

export const DISTILL = {
  type: "distill",
  request: DistillJobRequest,
  plan: DistillPlanFields,
  step: DistillStep,
  methods: [
    { method: "offline", params: OfflineDistillParams },
    { method: "online", params: OnlineDistillParams },
    { method: "self", params: SelfDistillParams },
  ] satisfies readonly { readonly method: DistillParams["mode"]; readonly params: unknown }[],
  methodOf: ({ params }) => params.mode,
  chosenBy: { parameter: "mode", otherwise: "offline" },
  makesModel: true,
  made: () => "distilled",
  title: ({ params }) => titleOf(params),
  sourceModelId: ({ params }) => sourceOf(params),
  /** The teacher, of those that have one. */
  comparedModelId: ({ params }) => ("teacher_model_id" in params ? params.teacher_model_id : null) ?? sourceOf(params),
  heldAgainst: () => "teacher",
  origin: ({ params }) => `distill ${params.mode}`,
  learned(params) {
    const { outputs, ignore_label } = offlineView(params).loss;
    return { outputs, ignoreLabel: ignore_label };
  },
  seedOf: ({ params }) => params.seed,
  cacheKeys: ({ params }, host) => teacherKeys(params, host),
  takesFed: isPrevious,
  asJob: (params, fed, judgement) => ({ type: "distill", params: withFed(params, fed), ...judgement }),
} as const satisfies StepKind<DistillSpec>;
