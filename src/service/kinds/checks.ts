import { type FieldError, pointerOf } from "../errors.ts";
import { AUTO_CHECKS } from "./auto/checks.ts";
import { EVALUATE_CHECKS } from "./evaluate/checks.ts";
import type { JobChecks } from "./kind.ts";
import type { JobSpec } from "./kinds.ts";
import { problem } from "./model-checks.ts";
import { PIPELINE_CHECKS, STEP_CHECKS } from "./pipeline/checks.ts";
import { referencesIn } from "./resources.ts";
import type { StoredResources } from "./stored-resources.ts";

const CHECKS: { readonly [T in JobSpec["type"]]: JobChecks<Extract<JobSpec, { type: T }>> } = {
  ...STEP_CHECKS,
  pipeline: PIPELINE_CHECKS,
  evaluate: EVALUATE_CHECKS,
  auto: AUTO_CHECKS,
};

/** The type of a spec settles what else is in it. */
function checksOf({ type }: JobSpec): JobChecks<JobSpec> {
  return CHECKS[type] as unknown as JobChecks<JobSpec>;
}

/**
 * What can be known to be wrong with a job from the recorded facts alone, in microseconds: refused now and not an hour
 * later. What needs the files themselves is the plan's to find (`validate_only`).
 */
export function checkJob(spec: JobSpec, stored: StoredResources): readonly FieldError[] {
  const unknown = referencesIn(spec)
    .filter(({ kind, id }) => !(kind === "model" ? stored.models : stored.datasets).has(id))
    .map(({ kind, id, path }) => problem(pointerOf("", path), `unknown_${kind}`, `There is no ${kind} ${id}.`));
  return unknown.length > 0 ? unknown : checksOf(spec).check(spec, stored);
}

/** The parameters in `sent`, as they came, that would have no effect in a job of this spec. */
export function unreadOf(spec: JobSpec, sent: unknown): readonly FieldError[] {
  return checksOf(spec).unread?.(spec, sent) ?? [];
}

/** Whether only a plan tells if the job can be. */
export function needsPlan(spec: JobSpec, stored: StoredResources): boolean {
  return checksOf(spec).needsPlan(spec, stored);
}
