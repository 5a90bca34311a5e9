import { DISTILL } from "../distill/spec.ts";
import type { StepKind } from "../kind.ts";
import { QUANTIZE } from "../quantize/spec.ts";

/** The kinds of jobs that a pipeline can have as steps. */
export const STEP_KINDS = [QUANTIZE, DISTILL] as const;

/** What one child process can do from its inputs to a model. */
export type SingleSpec = Parameters<(typeof STEP_KINDS)[number]["sourceModelId"]>[0];

/** The type of a step settles what else is in it. */
export function stepKindOf({ type }: Pick<SingleSpec, "type">): StepKind<SingleSpec> {
  return STEP_KINDS.find((kind) => kind.type === type) as unknown as StepKind<SingleSpec>;
}
