import { z } from "zod";
import { Seed } from "../evaluation.ts";

/** What one job may measure: models, and combinations of batch size and threads. */
const MAX_MODELS = 8;
const MAX_SIZES = 8;

function isUnique(values: readonly unknown[]): boolean {
  return new Set(values).size === values.length;
}

const UNIQUE = { error: "must be different from each other" };

export const EvaluateParams = z
  .strictObject({
    model_ids: z
      .array(z.string())
      .min(1)
      .max(MAX_MODELS)
      .refine(isUnique, UNIQUE)
      .meta({ description: "What is measured. The others are held against the first." }),
    batch_sizes: z
      .array(z.int().min(1).max(1024))
      .max(MAX_SIZES)
      .refine(isUnique, UNIQUE)
      .default([])
      .meta({ description: "Latency is measured at each; empty: at `evaluation.latency.batch_size`." }),
    threads: z
      .array(z.int().min(1).max(256))
      .max(MAX_SIZES)
      .refine(isUnique, UNIQUE)
      .default([])
      .meta({ description: "And with each number of threads; empty: with `evaluation.latency.threads`." }),
    seed: Seed,
  })
  .meta({ id: "EvaluateParams" });

export type EvaluateParams = z.output<typeof EvaluateParams>;
