import type { JobSpec } from "./spec.ts";

/** The stored things a job reads. */
export interface Resources {
  readonly models: readonly string[];
  readonly datasets: readonly string[];
}

/**
 * Every model and dataset that a spec names, each once: the strings under a key that ends in `model_id` or `dataset_id`, at any
 * depth, so that a new kind of job is covered as soon as its fields are named like all others.
 */
export function resourcesOf(spec: JobSpec): Resources {
  const models = new Set<string>();
  const datasets = new Set<string>();
  const visit = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, child] of Object.entries(value)) {
      if (typeof child !== "string") visit(child);
      else if (/(^|_)model_id$/.test(key)) models.add(child);
      else if (/(^|_)dataset_id$/.test(key)) datasets.add(child);
    }
  };
  visit(spec);
  return { models: [...models], datasets: [...datasets] };
}
