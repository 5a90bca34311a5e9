import { z } from "zod";
import { Seed } from "../evaluation.ts";
import { TargetName } from "../quantize/params.ts";

/** The methods of compression that a search chooses among. */
const SEARCHED_METHODS = ["simplify", "float16", "dynamic", "static", "weight_only", "qat", "distill"] as const;

/** Searches in one job. */
const MAX_TARGETS = 4;

/** Of them, those that train. */
const TRAINED: readonly string[] = ["qat", "distill"];

const limit = (description: string) => z.number().positive().nullable().default(null).meta({ description });

const AutoConstraints = z
  .strictObject({
    max_metric_drop: z
      .number()
      .min(0)
      .nullable()
      .default(null)
      .meta({ description: "Needs labels in the data that results are judged on." }),
    min_sqnr_db: z.number().nullable().default(null).meta({ description: "Of the worst output." }),
    max_size_bytes: z.int().positive().nullable().default(null),
    max_size_ratio: limit("Of the size of the original."),
    min_speedup: limit("Against the original."),
    max_latency_ms: limit("Median of a run at `evaluation.latency`, on the machine that runs the job."),
    max_memory_bytes: z
      .int()
      .positive()
      .nullable()
      .default(null)
      .meta({ description: "Peak of a process that loads and runs the model, runtime and all." }),
  })
  .meta({ id: "AutoConstraints", description: "What the recommended model must hold; null: no matter." });

export const AutoParams = z
  .strictObject({
    dataset_id: z.string().meta({
      description:
        "Samples of what the model will see: for calibration, for quick trials and, without `evaluation.dataset_id`, for the judgement on samples that no trial has seen.",
    }),
    objective: z.enum(["latency", "size", "memory", "metric"]).meta({ id: "AutoObjective" }).default("latency").meta({
      description:
        "What the recommended model is best in among those that hold the constraints. `metric` is the SQNR of the worst output where there are no labels.",
    }),
    constraints: AutoConstraints.prefault({}),
    methods: z
      .array(z.enum(SEARCHED_METHODS).meta({ id: "SearchedMethod" }))
      .min(1)
      .nullable()
      .default(null)
      .meta({ description: "Only these; null: all." }),
    training: z
      .boolean()
      .default(false)
      .meta({
        description:
          "Also trains: the model with its rounding in it (`qat`), taught by itself, to weights of 8, 4 and 2 bits; and students of half and a quarter of its " +
          "width that it teaches (`distill`), as they are and in static int8. It takes minutes, and needs a model that can be trained and " +
          "`evaluation.dataset_id`, because what was trained on cannot judge.",
      }),
    targets: z
      .array(TargetName)
      .min(1)
      .max(MAX_TARGETS)
      .refine((targets) => new Set(targets).size === targets.length, { error: "names a target twice" })
      .default(["auto"])
      .meta({
        description:
          "What candidates are made for. For each there is a search, a front and a recommendation (`metrics.auto.targets`), and the budget is divided among them; the " +
          "model of the job is the one recommended for the first. Speeds are those of the machine that runs the job, for `web` those of onnxruntime-web there; " +
          "what other runtimes want is checked.",
      }),
    budget: z
      .strictObject({
        seconds: z.int().min(10).max(86_400).default(600).meta({ description: "Of the whole job once it runs." }),
        candidates: z.int().min(1).max(100).default(40).meta({ description: "That are tried for a target, at most." }),
      })
      .prefault({})
      .meta({ id: "AutoBudget" }),
    seed: Seed,
  })
  .refine(({ methods, training }) => training || !methods?.some((method) => TRAINED.includes(method)), {
    path: ["methods"],
    error: "names qat or distill, which need training: true",
  })
  .refine(({ methods, training }) => !training || !methods || methods.some((method) => TRAINED.includes(method)), {
    path: ["training"],
    error: "has no effect where methods leave out qat and distill",
  })
  .meta({ id: "AutoParams" });

export type AutoParams = z.output<typeof AutoParams>;
