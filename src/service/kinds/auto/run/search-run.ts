import type { Dataset, Deployed, JobMetrics, Standing } from "../../../../core/index.ts";
import type { JobRequest } from "../../../../tasks/protocol.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import type { AutoSpec, TargetSearch } from "../spec.ts";
import type { Search, Tried } from "./search.ts";

/** What the steps of a search for one target share. */
export interface SearchRun {
  readonly target: TargetSearch;
  /** For this target alone. */
  readonly request: JobRequest<AutoSpec>;
  readonly environment: JobEnvironment;
  readonly context: JobContext;
  readonly steps: JobSteps<Step>;
  readonly clock: Clock;
  readonly data: SearchData;
  readonly search: Search;
}

/** The uploaded model among the candidates. */
export const ORIGINAL = "original";

export const STARTS = { load: 0, try: 0.02, measure: 0.6, report: 0.96 } as const;
export type Step = keyof typeof STARTS;

/** What later attempts begin with. */
export interface State {
  /** How long earlier attempts have worked. */
  readonly seconds: number;
  readonly tried: readonly Tried[];
  /** The original, then each finalist by name, when they are measured. */
  readonly measured: {
    readonly original: Standing;
    readonly finalists: readonly (readonly [string, Standing | null])[];
    /** What the runtime of the target makes of them, by name; nothing for onnxruntime on a CPU. */
    readonly deployed: readonly (readonly [string, Deployed])[];
  } | null;
}

export type MeasuredModels = NonNullable<State["measured"]>;

export interface Clock {
  readonly state: State;
  /** Since the first attempt began to work. */
  seconds(): number;
  /** Until the budget is used up, in ms; never negative. */
  left(share?: number): number;
}

export interface SearchData {
  readonly trial: { readonly dataset: Dataset; readonly kind: "calibration" } | undefined;
  readonly final: { readonly dataset: Dataset; readonly kind: "evaluation" | "calibration" } | undefined;
  readonly warnings: JobMetrics["warnings"];
}
