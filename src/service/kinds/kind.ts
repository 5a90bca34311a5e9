import type { z } from "zod";
import type { ModelRecord } from "../catalog.ts";
import type { FieldError } from "../errors.ts";
import type { Judgement } from "./evaluation.ts";
import type { MeasuredHost } from "./quantize/kernels-file.ts";
import type { StoredResources } from "./stored-resources.ts";

/**
 * A kind of job is a record for each kind of process: what it is (`JobKind`), for all; what facts rule out (`JobChecks`), for the API; how a worker
 * brings it to its result (`Conduct` in `workers/conduct`); and the work itself (`JobRun` in `run/`), which only children load.
 */

interface AnySpec extends Judgement {
  readonly type: string;
  readonly params: unknown;
}

export interface JobKind<S extends AnySpec> {
  readonly type: S["type"];
  /** Schemas of what is sent, and of what a plan tells besides its type. */
  readonly request: z.ZodObject;
  readonly plan: z.ZodObject;
  /** What there is to choose from, each with the schema of its `params`. */
  readonly methods: readonly { readonly method: string; readonly params: z.ZodType }[];
  /** What is done, in a word: one of `methods`. */
  readonly methodOf: (spec: S) => string;
  /** What is put behind the name of a model to name the one that is made of it. */
  readonly made: (spec: S) => string;
  /** What a job does, in words: its method with its bits, or how it trains. What stands before a colon says it in short. */
  readonly title: (spec: S) => string;
  /** What chooses between several methods, and which is taken where nothing is said. */
  readonly chosenBy?: { readonly parameter: string; readonly otherwise?: string };
  /** Whether there is a model in the end, or reports alone. */
  readonly makesModel: boolean;
  /** The model that the result is a form of. */
  readonly sourceModelId: (spec: S) => string;
  /** The model that the result is held against, and what it is to the result. */
  readonly comparedModelId: (spec: S) => string;
  readonly heldAgainst: (spec: S) => HeldAgainst;
  /**
   * The keys under which what a job finds out on such a machine is kept for later jobs, by name: equal for jobs that would find out the same, or parts of
   * the same.
   */
  readonly cacheKeys?: (spec: S, host: MeasuredHost) => Readonly<Record<string, string>>;
  /** The seed of every random choice that is not a step's own. */
  readonly seedOf: (spec: S) => number;
}

/** A result that is compressed should equal its original; one that is trained comes near its teacher, where it has one. */
export type HeldAgainst = "original" | "teacher";

/** A kind whose jobs one child process does from their inputs to a model: they can be steps of a pipeline. */
export interface StepKind<S extends AnySpec> extends JobKind<S> {
  /** The schema of a step. */
  readonly step: z.ZodObject;
  /** What made a model, in the words that are written into it. */
  readonly origin: (spec: S) => string;
  /** What a step with these parameters learns, if it trains. */
  readonly learned?: (params: S["params"]) => Learned;
  /** Whether a step with these parameters works on the model of the step before. */
  readonly takesFed: (params: S["params"]) => boolean;
  /** A step as a job of its own, on the model `fed`. */
  readonly asJob: (params: S["params"], fed: string | null, judgement: Judgement) => S;
}

/** What a training goes by. */
export interface Learned {
  /** The label of what has none. */
  readonly ignoreLabel: number | null;
  /** Which outputs are held against which of the teacher's; null: by their names and order. */
  readonly outputs: readonly { readonly teacher: string; readonly student: string }[] | null;
}

/** What can be known to be wrong with a job from the recorded facts alone, in microseconds. */
export interface JobChecks<S extends AnySpec> {
  readonly check: (spec: S, stored: StoredResources) => readonly FieldError[];
  /** Whether facts do not tell if the job can be: it is planned before it is accepted. */
  readonly needsPlan: (spec: S, stored: StoredResources) => boolean;
  /** The parameters in `sent`, as they came, that would have no effect in a job of this spec. Absent: every parameter is read. */
  readonly unread?: (spec: S, sent: unknown) => readonly FieldError[];
}

export interface StepChecks<S extends AnySpec> extends JobChecks<S> {
  /** The record of the model that a step will make, as far as it is known before. `name` is the step's. */
  readonly made: (spec: S, stored: StoredResources, name: string) => ModelRecord;
}
