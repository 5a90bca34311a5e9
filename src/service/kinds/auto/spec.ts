import type { Judgement } from "../evaluation.ts";
import type { JobKind } from "../kind.ts";
import type { LabelTask } from "../label-use.ts";
import { calibrationKeys } from "../quantize/cache-keys.ts";
import type { AnyTarget } from "../quantize/targets.ts";
import { AutoParams } from "./params.ts";
import { plainStatic } from "./plain-static.ts";
import { AutoJobRequest, AutoPlanFields } from "./wire.ts";

export interface AutoSpec extends Judgement {
  readonly type: "auto";
  readonly model_id: string;
  readonly params: AutoParams;
}

/** A search for one of the targets of a job, as a search of its own. */
export interface TargetSearch {
  readonly target: AnyTarget;
  /** With this target alone. */
  readonly spec: AutoSpec;
  /** What a candidate is called in the job: by its target, too, where there are several. */
  readonly named: (candidate: string) => string;
}

/** The searches of a job, in the order of its targets. */
export function searchesOf(spec: AutoSpec): readonly TargetSearch[] {
  const { params } = spec;
  const named = (target: AnyTarget) => (name: string) => (params.targets.length > 1 ? `${target}-${name}` : name);
  return params.targets.map((target) => ({
    ...{ target, named: named(target) },
    spec: { ...spec, params: { ...params, targets: [target] } },
  }));
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
