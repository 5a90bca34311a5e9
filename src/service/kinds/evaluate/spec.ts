import type { Judgement } from "../evaluation.ts";
import type { JobKind } from "../kind.ts";
import type { LabelTask } from "../label-use.ts";
import { EvaluateParams } from "./params.ts";
import { EvaluateJobRequest, EvaluatePlanFields } from "./wire.ts";

export interface EvaluateSpec extends Judgement {
  readonly type: "evaluate";
  readonly params: EvaluateParams;
}

/** What labels are to do in an evaluation. */
export function labelTaskOf({ evaluation, acceptance }: EvaluateSpec): LabelTask {
  const { metric, ignore_label } = evaluation;
  return {
    metric,
    ignoreLabel: ignore_label,
    needed: metric !== null || acceptance.max_metric_drop !== undefined,
  };
}

export const EVALUATE = {
  type: "evaluate",
  request: EvaluateJobRequest,
  plan: EvaluatePlanFields,
  methods: [{ method: "evaluate", params: EvaluateParams }],
  methodOf: () => "evaluate",
  makesModel: false,
  made: () => "evaluated",
  title({ params: { model_ids } }) {
    const others = model_ids.length - 1;
    return others === 0 ? "measured by itself" : `held against ${others} other model${others === 1 ? "" : "s"}`;
  },
  sourceModelId: ({ params }) => params.model_ids[0]!,
  comparedModelId: ({ params }) => params.model_ids[0]!,
  heldAgainst: () => "original",
  seedOf: ({ params }) => params.seed,
} as const satisfies JobKind<EvaluateSpec>;
