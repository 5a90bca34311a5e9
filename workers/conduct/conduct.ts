import type { FinishedStep } from "../../src/service/jobs/job.ts";
import type { JobRecord, JobStore } from "../../src/service/jobs/job-store.ts";
import type { JobSpec } from "../../src/service/kinds/kinds.ts";
import type { JobFiles, Published } from "../job-files.ts";
import type { Performer } from "../job-part.ts";
import type { NewsRecorder } from "../news-recorder.ts";

/** What a job has come to, and the models that it has made for that. */
export interface Done {
  readonly result: NonNullable<JobRecord["result"]>;
  readonly models: readonly Pick<Published, "modelId" | "created">[];
}

/** What the worker gives to an attempt at a job. */
export interface Attempt {
  readonly job: JobRecord;
  /** Has children do the parts of the job. */
  readonly perform: Performer;
  readonly files: JobFiles;
  readonly jobs: Pick<JobStore, "setSteps">;
  readonly news: NewsRecorder;
  readonly signal: AbortSignal;
}

/** How a worker brings a job of a kind to its result: which parts children do, and what is stored of what they make. */
export type Conduct<S extends JobSpec> = (spec: S, attempt: Attempt) => Promise<Done>;

/** All of a job as one part. */
export const WHOLE = { prefix: "", span: [0, 1] } as const;

export function modelsOf(steps: readonly FinishedStep[]): Done["models"] {
  return steps.map(({ model_id, created }) => ({ modelId: model_id, created }));
}
