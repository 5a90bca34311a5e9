import type { JobSpec } from "../../src/service/kinds/kinds.ts";
import type { Conduct } from "./conduct.ts";
import { conductEvaluation } from "./evaluation.ts";
import { conductPipeline } from "./pipeline.ts";
import { conductSearch } from "./search.ts";
import { conductSingle } from "./single.ts";

const CONDUCTS: { readonly [T in JobSpec["type"]]: Conduct<Extract<JobSpec, { type: T }>> } = {
  quantize: conductSingle,
  distill: conductSingle,
  pipeline: conductPipeline,
  evaluate: conductEvaluation,
  auto: conductSearch,
};

/** The type of a spec settles what else is in it. */
export function conductOf({ type }: JobSpec): Conduct<JobSpec> {
  return CONDUCTS[type] as unknown as Conduct<JobSpec>;
}
