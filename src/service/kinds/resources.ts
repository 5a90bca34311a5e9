import type { JobSpec } from "./kinds.ts";
import { PREVIOUS } from "./previous.ts";

/** A stored thing that a job reads, and where the spec names it: the keys down to it. */
export interface Reference {
  readonly kind: "model" | "dataset";
  readonly id: string;
  readonly path: readonly string[];
}

/** The stored things a job reads. */
export interface Resources {
  readonly models: readonly string[];
  readonly datasets: readonly string[];
}

/**
 * Every model and dataset that a spec names: the strings under a key that ends in `model_id` or `dataset_id`, or in a list under `model_ids`, at any depth, so that a new
 * kind of job is covered as soon as its fields are named like all others. What the steps of a pipeline make is not stored yet.
 */
export function referencesIn(spec: JobSpec): readonly Reference[] {
  const found: Reference[] = [];
  const visit = (value: unknown, path: readonly string[]): void => {
    if (typeof value !== "object" || value === null) return;
    // Of a quantization-aware training: a field that has other values, too.
    if ("method" in value && value.method === "qat" && "teacher" in value && typeof value.teacher === "string") {
      if (value.teacher !== "self") found.push({ kind: "model", id: value.teacher, path: [...path, "teacher"] });
    }
    for (const [key, child] of Object.entries(value)) {
      const kind = /(?:^|_)(model|dataset)_ids?$/.exec(key)?.[1] as Reference["kind"] | undefined;
      if (kind && Array.isArray(child)) {
        for (const [i, id] of child.entries()) found.push({ kind, id: String(id), path: [...path, key, String(i)] });
        continue;
      }
      if (typeof child !== "string") visit(child, [...path, key]);
      else if (kind && !(spec.type === "pipeline" && child === PREVIOUS))
        found.push({ kind, id: child, path: [...path, key] });
    }
  };
  visit(spec, []);
  return found;
}

/** The same, each once. */
export function resourcesOf(spec: JobSpec): Resources {
  const references = referencesIn(spec);
  const ids = (wanted: Reference["kind"]) => [
    ...new Set(references.filter(({ kind }) => kind === wanted).map(({ id }) => id)),
  ];
  return { models: ids("model"), datasets: ids("dataset") };
}
