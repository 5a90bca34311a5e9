import type { Model } from "../../../core/index.ts";
import type { JobInputs, JobOutcome, JobPlan, JobRequest, LocalFile } from "../../../tasks/protocol.ts";
import type { JobSpec } from "../kinds.ts";
import type { SingleSpec } from "../pipeline/steps.ts";
import type { JobEnvironment } from "./job-environment.ts";
import type { MadeModel } from "./job-result.ts";
import type { JobContext } from "./job-steps.ts";

/** The work of a kind of job. Only children load it. */
export interface JobRun<S extends JobSpec> {
  /** Says what a job would do. Throws when it could not run. */
  plan(
    request: JobInputs<S>,
    environment: JobEnvironment,
    context: JobContext,
  ): Promise<Extract<JobPlan, { type: S["type"] }>>;
  run(request: JobRequest<S>, environment: JobEnvironment, context: JobContext): Promise<JobOutcome>;
}

/** ... that can be a step of a pipeline. */
export interface StepRun<S extends SingleSpec> extends JobRun<S> {
  /** A model of the structure that the job's result will have. */
  planModel(request: JobInputs<S>, environment: JobEnvironment, context: JobContext): Promise<Model>;
  /** What is said of a model that such a job has made, where it can be made for another runtime than this one. */
  inTarget?(made: InTarget<S>, environment: JobEnvironment, signal: AbortSignal): NonNullable<MadeModel["deployed"]>;
}

/** A model that a job has made, and the one that it is held against. */
export interface InTarget<S extends SingleSpec> {
  readonly spec: S;
  readonly before: readonly LocalFile[];
  readonly after: readonly LocalFile[];
}
