import { z } from "zod";
import { METRIC_NAMES, type MetricName } from "../../core/contract.ts";

/** What can be said of every job's randomness, and of how its result is judged. */

export const Seed = z
  .int()
  .min(0)
  .max(2 ** 32 - 1)
  .default(0)
  .meta({ description: "Seed of every random choice." });

export const IgnoreLabel = z
  .int()
  .min(-(2 ** 31))
  .max(2 ** 31 - 1)
  .nullable()
  .default(null)
  .meta({
    description:
      "The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the " +
      "one of `evaluation` stand in for each other where only one is given.",
  });

const Latency = z
  .strictObject({
    runs: z.int().min(1).max(10_000).default(50),
    batch_size: z.int().min(1).max(1024).default(1),
    threads: z.int().min(1).max(256).default(1).meta({ description: "Intra-operator threads while measuring." }),
  })
  .meta({ id: "LatencyOptions" });

export const Evaluation = z
  .strictObject({
    dataset_id: z.string().nullable().default(null).meta({
      description: "Held-out data. Without it fidelity is measured on seeded synthetic input, and the report says so.",
    }),
    samples: z.int().min(1).max(1_000_000).nullable().default(null).meta({
      description:
        "Null takes all there are, up to 10,000 and to a minute of the slower model. Fewer than all are drawn at random, the same ones in every job.",
    }),
    metric: z
      .enum([...METRIC_NAMES, "none"])
      .meta({ id: "MetricName" })
      .nullable()
      .default(null)
      .meta({
        description:
          "Needs labels in the dataset. Null: `top1` when they are classes of an output, `binary_accuracy` when they are 0 or 1 for each of its " +
          "shares, `mse` when they are numbers in its shape, else none, with a warning. `none`: labels are not looked at.",
      }),
    ignore_label: IgnoreLabel,
    dims: z.record(z.string(), z.int().min(1).max(1_000_000)).default({}).meta({
      description:
        'Sizes for the model\'s symbolic dimensions, for synthetic input and latency: `{ "w": 320 }`; those without a name are called by input and axis, `{ "x.3": 320 }`.',
    }),
    layer_errors: z.boolean().default(true).meta({
      description:
        "Look for the error of each layer, for no longer than half of the evaluation before it (and 10 s). False leaves them out.",
    }),
    latency: Latency.prefault({}),
  })
  .meta({ id: "EvaluationOptions" });

export const Acceptance = z
  .strictObject({
    max_metric_drop: z.number().min(0).optional(),
    min_sqnr_db: z.number().optional(),
    max_size_ratio: z.number().positive().optional(),
    min_speedup: z.number().positive().optional(),
  })
  .meta({ id: "AcceptanceLimits" });

export type Evaluation = z.output<typeof Evaluation>;

/** How every job's result is judged. */
export interface Judgement {
  readonly evaluation: Evaluation;
  readonly acceptance: z.output<typeof Acceptance>;
}

/** The metric that is asked for, if any; `none` takes the labels away. */
export function metricOf({ metric }: Evaluation): MetricName | null {
  return metric === "none" ? null : metric;
}
