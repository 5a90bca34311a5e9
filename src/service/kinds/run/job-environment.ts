import type {
  Dataset,
  ElsewhereAnswer,
  Feeds,
  JobMetrics,
  MeasurePeak,
  Model,
  Note,
  OpenModel,
  OpenSession,
  ProfileModel,
  QuantizationPlan,
  StaticEvidence,
  TrainingMetrics,
} from "../../../core/index.ts";
import type { LocalFile, ProducedFile } from "../../../tasks/protocol.ts";
import type { TargetName } from "../quantize/targets.ts";

/** Runs two models in turns in another runtime. */
export interface ElsewhereRequest {
  readonly before: readonly LocalFile[];
  readonly after: readonly LocalFile[];
  readonly feeds: { readonly before: Feeds; readonly after: Feeds };
  readonly runs: number;
  /** No round begins after this many milliseconds. */
  readonly maxMs?: number | undefined;
}

/** Throws `cancelled`; everything else that goes wrong is an answer. */
export type MeasureElsewhere = (request: ElsewhereRequest, signal: AbortSignal) => Promise<ElsewhereAnswer>;

/** What a job needs of the machine it runs on. */
export interface JobEnvironment {
  readonly openSession: OpenSession;
  /** Loads a model that has no file, by way of one that is gone afterwards. */
  readonly openTemporary: OpenModel;
  /** The same with the runtime's profiler on; answers what that has written. */
  readonly profile: ProfileModel;
  /** Starts threads for sessions that are soon opened on threads of their own, beside what the caller does meanwhile. */
  readonly startThreads: (count: number) => void;
  readonly measurePeak: MeasurePeak;
  /** What this thread computes, in milliseconds; undefined where the system does not tell. */
  readonly threadClock: (() => number) | undefined;
  /** Runtimes that models can be made for, and that can be run here, by name. */
  readonly elsewhere: { readonly "onnxruntime-web": MeasureElsewhere };
  readonly files: {
    openModel(files: readonly LocalFile[]): Model;
    /** The model at `path`, with its weights in `<path>.data` where there is such a file. */
    openWrittenModel(path: string): Model;
    /** Writes a model as `name`, with its weights in `<name>.data` when they do not fit in one file. */
    writeModel(
      model: Model,
      directory: string,
      name: string,
      options: { readonly signal: AbortSignal },
    ): Promise<readonly ProducedFile[]>;
    /** Writes the first file of a model that has data beside it once more: as `name`, with `<name>.data` for what its data are called. */
    writeRenamed(files: readonly LocalFile[], directory: string, name: string): Promise<ProducedFile>;
    /** Makes a directory, and those above it, and answers its path. */
    makeDirectory(path: string): Promise<string>;
    /** Writes a model to files that are gone when `use` has ended. */
    withTemporaryFiles<T>(model: Model, use: (files: readonly LocalFile[]) => Promise<T>): Promise<T>;
    /** Answers where they are. */
    writeBytes(directory: string, name: string, bytes: Uint8Array): Promise<string>;
    writeText(directory: string, name: string, mediaType: string, text: string): Promise<ProducedFile>;
    /** Undefined when the last one of that name is still there, waiting to be stored. */
    writeCheckpoint(directory: string, name: string, bytes: Uint8Array): Promise<string | undefined>;
    readBytes(file: LocalFile): Uint8Array;
    openDataset(file: LocalFile, spec: unknown): Promise<Dataset>;
    sizeOf(files: readonly LocalFile[]): number;
    /** Their bytes in gzip at its strongest level. */
    gzipSizeOf(files: readonly LocalFile[]): Promise<number>;
    /** As the catalog computes it (`bundleSha256`). */
    sha256Of(files: readonly LocalFile[]): Promise<string>;
    /** The same for equal models, whatever their files say of where they come from. */
    contentSha256Of(files: readonly LocalFile[]): string;
  };
  readonly host: {
    readonly cpu: string;
    readonly isa: readonly string[];
    readonly target: TargetName;
    readonly onnxruntime: string;
    readonly versions: Readonly<Record<string, string>>;
  };
}

/** A compressed model, and what was found out on the way to it. */
export interface Compressed {
  /** Its weights are computed when they are written. */
  readonly model: Model;
  /** What the method said about nodes: this is the coverage. */
  readonly notes: readonly Note[];
  /** What was said while the model was made simpler, before. */
  readonly simplified: readonly Note[];
  /** The model just before, which the plan is about. */
  readonly reference: Model;
  readonly plan: QuantizationPlan;
  readonly evidence?: StaticEvidence;
  /** How many samples were looked at to make it; undefined for methods that look at none. */
  readonly calibrated?: number;
  /** Samples that may judge the result because nothing was chosen by them. */
  readonly unseen?: Dataset | undefined;
  readonly warnings?: JobMetrics["warnings"];
  /** How its training went; its weights are then other weights than the original's. */
  readonly training?: TrainingMetrics;
  /** What it is judged by, where that is not the job's own data or what calibration has left. */
  readonly judgement?: {
    readonly data: { readonly dataset: Dataset; readonly kind: "evaluation" | "validation" } | undefined;
    readonly ignoreLabel: number | null;
    readonly warnings?: JobMetrics["warnings"];
  };
  /** The same with more nodes left alone, by their labels. */
  readonly leaving?: (nodes: ReadonlySet<string>) => Compressed;
  /** The same, made by more samples: for a result that gives infinity where the original does not. */
  readonly reconsidered?: (() => Promise<Compressed>) | undefined;
}
