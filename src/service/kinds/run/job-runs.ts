import { AUTO_RUN } from "../auto/run/auto-job.ts";
import { EVALUATE_RUN } from "../evaluate/run/evaluate-job.ts";
import type { JobSpec } from "../kinds.ts";
import { PIPELINE_RUN } from "../pipeline/run/pipeline-job.ts";
import { STEP_RUNS } from "../pipeline/run/step-runs.ts";
import type { JobRun } from "./job-run.ts";

const RUNS: { readonly [T in JobSpec["type"]]: JobRun<Extract<JobSpec, { type: T }>> } = {
  ...STEP_RUNS,
  pipeline: PIPELINE_RUN,
  evaluate: EVALUATE_RUN,
  auto: AUTO_RUN,
};

/** The type of a spec settles what else is in it. */
export function runOf({ type }: JobSpec): JobRun<JobSpec> {
  return RUNS[type] as unknown as JobRun<JobSpec>;
}
