import type { DatasetFacts, DistillPlan, JobMetrics, LayerFacts, ModelFacts, QuantizePlan } from "../core/contract.ts";
import type { FieldError, ProblemCode } from "../service/errors.ts";
import type { FinishedStep, Progress } from "../service/jobs/job.ts";
import type { NamedExclusions } from "../service/kinds/exclusions.ts";
import type { JobSpec } from "../service/kinds/kinds.ts";

/**
 * The work that runs in a child process because it loads the native runtime, or parses hostile files, or blocks.
 * A child runs one task and exits. It sees local files only: no Redis, no blob store, no secrets.
 */

/** A file on the local disk. */
export interface LocalFile {
  readonly name: string;
  readonly path: string;
}

export interface JobInputs<S extends JobSpec = JobSpec> {
  readonly spec: S;
  /**
   * Models by id, for the ids that the spec names. Of the files the first is the `.onnx` and the rest its external data, named by `location`; the
   * facts are those found when the model was stored; name and sha256 are for people, and missing where there is no record.
   */
  readonly models: Readonly<
    Record<
      string,
      {
        readonly files: readonly LocalFile[];
        readonly facts: ModelFacts;
        readonly name?: string;
        readonly sha256?: string;
      }
    >
  >;
  /** Datasets by id, for the ids that the spec names; the facts are those found when the dataset was stored. */
  readonly datasets: Readonly<
    Record<string, { readonly file: LocalFile; readonly spec: unknown; readonly facts: DatasetFacts }>
  >;
}

export interface JobRequest<S extends JobSpec = JobSpec> extends JobInputs<S> {
  readonly job_id: string;
  /** A directory for whatever the job makes. */
  readonly scratch: string;
  readonly threads: number;
  /** The newest checkpoint of each name that earlier attempts have told of. */
  readonly checkpoints: Readonly<Record<string, LocalFile>>;
  /** What earlier jobs have found out that this one needs as well, by name (`cacheKeys`). */
  readonly cached: Readonly<Record<string, LocalFile>>;
  /** Of a pipeline: its steps, all of them finished. The models of the request are then the first and the last there was. */
  readonly steps: readonly FinishedStep[];
}

/** A file the job made, in its scratch directory. */
export interface ProducedFile extends LocalFile {
  readonly media_type: string;
}

export interface JobOutcome {
  /**
   * The compressed model's files (artifacts too), first the `.onnx`. None of a pipeline as a whole, whose steps have made its models, and of an
   * evaluation, which makes none.
   */
  readonly model: readonly ProducedFile[];
  /** Of a search: the models of the front. */
  readonly front?: readonly {
    readonly name: string;
    readonly files: readonly ProducedFile[];
    readonly facts: ModelFacts;
    /** Of a model with external data: its first file under the name of its artifact, which calls the data by that of theirs. */
    readonly renamed: ProducedFile | null;
  }[];
  /** Further artifacts: other networks that were trained, `report.json`, `report.html`. */
  readonly reports: readonly ProducedFile[];
  readonly facts: ModelFacts;
  readonly metrics: JobMetrics;
  readonly accepted: boolean;
}

export type SinglePlan = ({ readonly type: "quantize" } & QuantizePlan) | ({ readonly type: "distill" } & DistillPlan);

export interface PipelinePlan {
  readonly type: "pipeline";
  readonly steps: readonly { readonly name: string; readonly plan: SinglePlan }[];
}

/** What would be measured, and at which batch sizes and numbers of threads. */
export interface EvaluatePlan {
  readonly type: "evaluate";
  readonly models: readonly { readonly model_id: string; readonly size_bytes: number; readonly parameters: number }[];
  readonly loads: readonly { readonly batch_size: number; readonly threads: number }[];
}

/** What would be tried, in this order, as far as the budget goes. */
export interface AutoPlan {
  readonly type: "auto";
  readonly candidates: readonly { readonly name: string; readonly spec: Readonly<Record<string, unknown>> }[];
}

export type JobPlan = SinglePlan | PipelinePlan | EvaluatePlan | AutoPlan;

export interface Tasks {
  inspect_model: {
    /** `dims` gives sizes to symbolic dimensions for MACs and activation bytes. */
    request: { readonly files: readonly LocalFile[]; readonly dims: Readonly<Record<string, number>> };
    result: ModelFacts;
  };
  list_layers: { request: { readonly files: readonly LocalFile[] }; result: readonly LayerFacts[] };
  inspect_dataset: { request: { readonly file: LocalFile; readonly spec: unknown }; result: DatasetFacts };
  /** The names among them that nothing in the model has, as wrong fields of a job's parameters. */
  check_exclusions: {
    request: { readonly files: readonly LocalFile[]; readonly exclude: NamedExclusions };
    result: readonly FieldError[];
  };
  /** What the job would do, without doing it; throws when it could not run. */
  plan_job: { request: JobInputs; result: JobPlan };
  run_job: { request: JobRequest; result: JobOutcome };
}

export type TaskKind = keyof Tasks;

/** What a child says while it works. */
export type TaskNews =
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "log"; readonly level: "info" | "warn"; readonly message: string }
  | { readonly kind: "metric"; readonly data: Readonly<Record<string, unknown>> }
  /** A file in the scratch directory from which the work can go on. It is removed when it is stored. */
  | { readonly kind: "checkpoint"; readonly name: string; readonly path: string }
  /** A file in the scratch directory that later jobs may have as `cached`. */
  | { readonly kind: "cache"; readonly name: string; readonly path: string };

export interface TaskFailure {
  readonly code: ProblemCode;
  readonly message: string;
  readonly subject?: string;
  /** The fields of the request that are at fault, where that is known. */
  readonly fields?: readonly FieldError[];
}

export interface TaskLimits {
  readonly timeoutMs: number;
  /** Resident set of the child; it is killed past that. */
  readonly memoryBytes: number;
}

/** Runs tasks in child processes. Rejects with a `TaskError`. */
export interface TaskRunner {
  /**
   * Gives `use` a room: a child that is ready for one task, and the only directory that it sees. The inputs of the task are put there before,
   * and what it has made is taken out after it; then the room goes. Rejects as `use` does, or when no child can be had.
   */
  withRoom<T>(use: (room: Room) => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** Starts children that wait for the first tasks. It may be called late or never: the first task starts its own then. */
  prepare(): void;
  /** Resolves when a child process is ready for a task; rejects with `unavailable` when none can be started. */
  check(): Promise<void>;
  close(): Promise<void>;
}

export interface Room {
  /** Empty at first. */
  readonly directory: string;
  /** Runs the one task. */
  run<K extends TaskKind>(
    kind: K,
    request: Tasks[K]["request"],
    options: { limits: TaskLimits; signal?: AbortSignal; onNews?: (news: TaskNews) => void },
  ): Promise<Tasks[K]["result"]>;
}

/** A task's failure, whatever its cause: refused input, crash, limit or cancellation. */
export class TaskError extends Error implements TaskFailure {
  override readonly name = "TaskError";
  readonly code: ProblemCode;
  readonly subject?: string;
  readonly fields?: readonly FieldError[];

  constructor(failure: TaskFailure, options?: ErrorOptions) {
    super(failure.message, options);
    this.code = failure.code;
    if (failure.subject !== undefined) this.subject = failure.subject;
    if (failure.fields !== undefined) this.fields = failure.fields;
  }
}
