import { AUTO } from "./auto/spec.ts";
import { EVALUATE } from "./evaluate/spec.ts";
import type { JobKind } from "./kind.ts";
import { PIPELINE } from "./pipeline/spec.ts";
import { STEP_KINDS } from "./pipeline/steps.ts";
import type { MeasuredHost } from "./quantize/kernels-file.ts";

/** The kinds of jobs. The API's schemas, its capabilities and what is asked of a spec all follow from this list. */
export const KINDS = [...STEP_KINDS, PIPELINE, EVALUATE, AUTO] as const;

/** The work itself, with every default in place. Parsing fills them in: a spec is stored with the job, and is all that the work sees. */
export type JobSpec = Parameters<(typeof KINDS)[number]["sourceModelId"]>[0];

/** The type of a spec settles what else is in it. */
export function kindOf({ type }: Pick<JobSpec, "type">): JobKind<JobSpec> {
  return KINDS.find((kind) => kind.type === type) as unknown as JobKind<JobSpec>;
}

/** The model that the result is a form of: the one that is quantized, the uploaded student, or the teacher a student is made from. */
export function sourceModelId(spec: JobSpec): string {
  return kindOf(spec).sourceModelId(spec);
}

/** What is done, in a word: the method of a quantization, the mode of a distillation. */
export function methodOf(spec: JobSpec): string {
  return kindOf(spec).methodOf(spec);
}

/** The keys under which what a job finds out is kept for later jobs, by name. */
export function cacheKeysOf(spec: JobSpec, host: MeasuredHost): Readonly<Record<string, string>> {
  return kindOf(spec).cacheKeys?.(spec, host) ?? {};
}
