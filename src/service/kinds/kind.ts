import type { z } from "zod";
import type { FieldError } from "../errors.ts";
import type { Judgement } from "./evaluation.ts";
import type { StoredResources } from "./stored-resources.ts";

/**
 * A kind of job is three records, for the three kinds of process: what it is (`JobKind`) and what facts rule out (`JobChecks`), which the API
 * has, and the work itself (`JobRun` in `run/`), which only children load.
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
  /** The model that the result is a form of. */
  readonly sourceModelId: (spec: S) => string;
  /** The seed of every random choice that is not a step's own. */
  readonly seedOf: (spec: S) => number;
}

/** A kind whose jobs one child process does from their inputs to a model: they can be steps of a pipeline. */
export interface StepKind<S extends AnySpec> extends JobKind<S> {
  /** The schema of a step. */
  readonly step: z.ZodObject;
  /** Whether a step with these parameters works on the model of the step before. */
  readonly takesFed: (params: S["params"]) => boolean;
  /** A step as a job of its own, on the model `fed`. */
  readonly asJob: (params: S["params"], fed: string | null, judgement: Judgement) => S;
}

/** What can be known to be wrong with a job from the recorded facts alone, in microseconds. */
export interface JobChecks<S extends AnySpec> {
  readonly check: (spec: S, stored: StoredResources) => readonly FieldError[];
  /** Whether facts do not tell if the job can be: it is planned before it is accepted. */
  readonly needsPlan: (spec: S, stored: StoredResources) => boolean;
}
