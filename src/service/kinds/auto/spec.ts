import type { Judgement } from "../evaluation.ts";
import type { JobKind } from "../kind.ts";
import type { LabelTask } from "../label-use.ts";
import { calibrationKeys } from "../quantize/cache-keys.ts";
import { AutoParams } from "./params.ts";
import { plainStatic } from "./plain-static.ts";
import { AutoJobRequest, AutoPlanFields } from "./wire.ts";

export interface AutoSpec extends Judgement {
  readonly type: "auto";
  readonly model_id: string;
  readonly params: AutoParams;
}

/** What labels are to do in a search. */
export function labelTaskOf({ params, evaluation, acceptance }: AutoSpec): LabelTask {
  const { metric, ignore_label } = evaluation;
  const isLimited = acceptance.max_metric_drop !== undefined || params.constraints.max_metric_drop !== null;
  return { metric, ignoreLabel: ignore_label, needed: metric !== null || isLimited };
}

const AIMS = { latency: "fastest", size: "smallest", memory: "least memory", metric: "most accurate" } as const;

export const AUTO = {
  type: "auto",
  request: AutoJobRequest,
  plan: AutoPlanFields,
  methods: [{ method: "auto", params: AutoParams }],
  methodOf: () => "auto",
  makesModel: true,
  made: () => "auto",
  title: ({ params }) => `search: ${AIMS[params.objective]} model within the constraints`,
  sourceModelId: ({ model_id }) => model_id,
  comparedModelId: ({ model_id }) => model_id,
  heldAgainst: () => "original",
  cacheKeys: (spec, host) => calibrationKeys(plainStatic(spec), host),
  seedOf: ({ params }) => params.seed,
} as const satisfies JobKind<AutoSpec>;
