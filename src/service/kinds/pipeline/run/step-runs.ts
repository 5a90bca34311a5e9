import { DISTILL_RUN } from "../../distill/run/distill-job.ts";
import { QUANTIZE_RUN } from "../../quantize/run/quantize-job.ts";
import type { StepRun } from "../../run/job-run.ts";
import type { SingleSpec } from "../steps.ts";

export const STEP_RUNS: { readonly [T in SingleSpec["type"]]: StepRun<Extract<SingleSpec, { type: T }>> } = {
  quantize: QUANTIZE_RUN,
  distill: DISTILL_RUN,
};

/** The type of a step settles what else is in it. */
export function stepRunOf({ type }: SingleSpec): StepRun<SingleSpec> {
  return STEP_RUNS[type] as unknown as StepRun<SingleSpec>;
}
