import { z } from "zod";
import { CALIBRATION_METHODS, METRIC_NAMES, type MetricName, QAT_ALGORITHMS, ROUNDINGS } from "../../core/index.ts";
import { pointerOf } from "../errors.ts";
import type { EvaluateParams } from "../kinds/evaluate/spec.ts";
import {
  DistillLoss,
  DistillParams,
  IgnoreLabel,
  type OfflineParams,
  offlineView,
  QatTraining,
  Seed,
} from "./distill-spec.ts";

/**
 * What a job may be asked to do. Parsing fills in every default, so a parsed spec is complete: it is stored with the job,
 * echoed as `effective_params`, and is all that the work itself sees.
 */

const NodeNames = z.array(z.string().min(1).max(1024)).max(10_000);

const Exclusions = {
  exclude_nodes: NodeNames.default([]).meta({
    description:
      "Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused.",
  }),
  exclude_ops: NodeNames.default([]).meta({
    description: "Operator types to leave alone, as in the uploaded model. One that it does not have is refused.",
  }),
};

/** Fields that every method that changes arithmetic has. */
const Common = {
  ...Exclusions,
  target: z
    .enum(["auto", "x64-vnni", "x64-avx2", "arm64", "portable"])
    .default("auto")
    .meta({ description: "The machine the model will run on; `auto` is the one the worker runs on." }),
  seed: Seed,
};

/** Draws of the rounding `stochastic` when a job does not say how many. */
export const CANDIDATES = 16;

const ROUNDING_WORDS =
  "`nearest` looks at weights alone. The others look at samples, and a layer keeps what they make of it only where its output is nearer to the float " +
  "model's on held-out samples: `adaround` learns for each weight whether up or down is better, given what the layers before it make once they are " +
  "quantized (of at most 32 runs); `gptq` rounds one input after the other and lets the rest make up for it; `stochastic` draws `candidates` times at random.";

const Candidates = z
  .int()
  .min(1)
  .max(1000)
  .optional()
  .meta({
    description: `Draws for \`stochastic\`, of which each layer keeps the best; ${CANDIDATES} when it is not given.`,
  });

interface Rounded {
  readonly rounding?: string | undefined;
  readonly candidates?: number | undefined;
}

/** With the number of draws filled in where there are any. */
function withCandidates<T extends Rounded>(params: T): T {
  return params.rounding === "stochastic" ? { ...params, candidates: params.candidates ?? CANDIDATES } : params;
}

function candidatesAreUsed({ rounding, candidates }: Rounded): boolean {
  return rounding === "stochastic" || candidates === undefined;
}

const CANDIDATES_UNUSED = { path: ["candidates"], error: "is for the rounding stochastic alone" };

export const SimplifyParams = z
  .strictObject({ method: z.literal("simplify"), ...Exclusions, seed: Seed })
  .meta({ id: "SimplifyParams", title: "simplify" });

export const Float16Params = z
  .strictObject({
    method: z.literal("float16"),
    keep_io: z.boolean().default(true).meta({ description: "Keep the model's inputs and outputs in float32." }),
    ...Common,
  })
  .meta({ id: "Float16Params", title: "float16" });

export const DynamicParams = z
  .strictObject({
    method: z.literal("dynamic"),
    weight_dtype: z.enum(["int8"]).default("int8"),
    per_channel: z
      .boolean()
      .default(true)
      .meta({ description: "One scale for each output channel instead of one for each tensor." }),
    ...Common,
  })
  .meta({ id: "DynamicParams", title: "dynamic int8" });

export const StaticParams = z
  .strictObject({
    method: z.literal("static"),
    dataset_id: z
      .string()
      .meta({ description: "Samples of what the model will see: the ranges of activations are taken from them." }),
    samples: z.int().min(1).max(100_000).default(128).meta({ description: "How many of them, drawn by the seed." }),
    calibration: z
      .enum([...CALIBRATION_METHODS, "auto"])
      .default("mse")
      .meta({
        description:
          "How the range of an activation follows from its values: all of them, a moving average of each sample's range, " +
          "a share of the values, the least loss of information, or the least squared error. `auto` tries all of these and takes " +
          "the one whose outputs are nearest to the float model's on some samples.",
      }),
    percentile: z
      .number()
      .gt(50)
      .max(100)
      .default(99.999)
      .meta({ description: "Share of the values that `percentile` keeps." }),
    activation_dtype: z.enum(["auto", "uint8", "int8"]).default("auto").meta({
      description: "`auto` is what the target computes fastest with: uint8 on x64.",
    }),
    per_channel: z
      .boolean()
      .default(true)
      .meta({ description: "One scale for each output channel of a weight instead of one for each weight." }),
    rounding: z
      .enum(ROUNDINGS)
      .default("nearest")
      .meta({
        description: `How weights of layers without groups become integers. ${ROUNDING_WORDS}`,
      }),
    candidates: Candidates,
    equalize: z
      .union([z.literal("auto"), z.boolean()])
      .default("auto")
      .meta({
        description:
          "Scale channels between layers against each other. `auto`: where it is measured to help; true: everywhere, by the weights alone.",
      }),
    smooth_quant_alpha: z
      .union([z.literal("auto"), z.number().min(0).max(1)])
      .nullable()
      .default("auto")
      .meta({
        description:
          "Move outliers of activations into the weights behind a normalization. `auto`: where and as far as it is measured to help.",
      }),
    bias_correction: z
      .boolean()
      .default(true)
      .meta({ description: "Make up for the mean error of each layer, if it is measured to help." }),
    float_where_slower: z
      .boolean()
      .default(true)
      .meta({
        description:
          "Leave in float what measured costs of kernels predict to be slower in 8 bits (small layers, depthwise convolutions); its weights are still " +
          "stored in 8 bits. Costs are known for `x64-avx2`; elsewhere all that can is computed in 8 bits.",
      }),
    max_metric_drop: z.number().min(0).max(1e6).nullable().default(null).meta({
      description:
        "Keep layers in float until the metric of `evaluation` drops no further, on labelled samples of the dataset that calibration has not seen.",
    }),
    min_sqnr_db: z.number().min(-100).max(200).nullable().default(null).meta({
      description: "The same without labels: until the signal to noise ratio of the outputs is this good.",
    }),
    max_trials: z.int().min(1).max(200).default(24).meta({ description: "Models that may be tried for that." }),
    ...Common,
  })
  .overwrite(withCandidates)
  .refine(candidatesAreUsed, CANDIDATES_UNUSED)
  .refine(({ max_metric_drop, min_sqnr_db }) => max_metric_drop === null || min_sqnr_db === null, {
    path: ["min_sqnr_db"],
    error: "cannot be set together with max_metric_drop",
  })
  .meta({ id: "StaticParams", title: "static int8" });

/** Eight bits are accurate enough to share a scale among more weights, and scales are what makes such a file larger than a quarter. */
export const BLOCK_SIZES = { 2: 32, 4: 32, 8: 128 } as const;

export const WeightOnlyParams = z
  .strictObject({
    method: z.literal("weight_only"),
    bits: z
      .union([z.literal(2), z.literal(4), z.literal(8)])
      .default(4)
      .meta({
        description: "Two bits are for the products and tables of `matmulnbits`; other weights then have four.",
      }),
    block_size: z
      .union([z.literal(16), z.literal(32), z.literal(64), z.literal(128), z.literal(256)])
      .optional()
      .meta({
        description:
          "Weights that share one scale, along the reduction axis. When it is not given: 32 for 2 and 4 bits, 128 for 8.",
      }),
    symmetric: z.boolean().default(false),
    algorithm: z.enum(["rtn", "gptq"]).default("rtn").meta({
      description:
        "How scales are found: `rtn` from the range of each block as it is, `gptq` as it is when GPTQ reaches it. `gptq` implies the rounding of that name, and that rounding implies it.",
    }),
    rounding: z
      .enum(ROUNDINGS)
      .optional()
      .meta({
        description: `How weights become integers; \`nearest\` unless \`algorithm\` says otherwise. ${ROUNDING_WORDS}`,
      }),
    candidates: Candidates,
    dataset_id: z
      .string()
      .nullable()
      .default(null)
      .meta({ description: "Samples of what the model will see, for all roundings but `nearest`." }),
    samples: z.int().min(1).max(100_000).default(128).meta({ description: "How many of them, drawn by the seed." }),
    format: z.enum(["matmulnbits", "qdq"]).default("matmulnbits").meta({
      description:
        "`matmulnbits`: onnxruntime's own operators, fastest on onnxruntime. `qdq`: plain ONNX `DequantizeLinear`, which also covers Conv.",
    }),
    embeddings: z.boolean().default(true).meta({ description: "Also quantize the tables that Gather reads." }),
    accuracy_level: z
      .union([z.literal(0), z.literal(1), z.literal(4)])
      .default(4)
      .meta({ description: "Of MatMulNBits: 4 computes in int8, 1 in float32, 0 leaves it to the runtime." }),
    ...Common,
  })
  .refine(({ algorithm, rounding }) => algorithm !== "gptq" || rounding === undefined || rounding === "gptq", {
    path: ["rounding"],
    error: "cannot be another one with the algorithm gptq, which rounds by itself",
  })
  .overwrite((params) => {
    const rounding = params.rounding ?? (params.algorithm === "gptq" ? "gptq" : "nearest");
    const algorithm = rounding === "gptq" ? "gptq" : params.algorithm;
    return withCandidates({
      ...params,
      block_size: params.block_size ?? BLOCK_SIZES[params.bits],
      rounding,
      algorithm,
    });
  })
  .refine(candidatesAreUsed, CANDIDATES_UNUSED)
  .refine(({ bits, format }) => bits !== 2 || format === "matmulnbits", {
    path: ["bits"],
    error: "of 2 need the format matmulnbits: onnxruntime has no other fast kernel for them",
  })
  .refine(({ rounding, dataset_id }) => rounding === "nearest" || dataset_id !== null, {
    path: ["dataset_id"],
    error: "is needed for every rounding but nearest",
  })
  .refine(({ rounding, dataset_id }) => rounding !== "nearest" || dataset_id === null, {
    path: ["dataset_id"],
    error: "is for roundings that look at samples: nearest looks at weights alone",
  })
  .meta({ id: "WeightOnlyParams", title: "weight-only" });

export const QatParams = z
  .strictObject({
    method: z.literal("qat"),
    dataset_id: z.string().meta({ description: "What is calibrated and trained on." }),
    bits: z
      .strictObject({
        weights: z.union([z.literal(8), z.literal(4), z.literal(2)]).default(8),
        activations: z
          .union([z.literal(8), z.literal(4)])
          .nullable()
          .default(8)
          .meta({ description: "Null leaves activations, and the arithmetic, in float." }),
      })
      .prefault({})
      .meta({
        id: "QatBits",
        description:
          "Weights of 4 and 2 bits are stored in 4 and 2, and turned into 8 when the model is loaded: integer kernels read 8. So do activations of 4.",
      }),
    algorithm: z.enum(QAT_ALGORITHMS).default("lsq").meta({
      description:
        "How the scales of activations are learned. `lsq` (Esser et al. 2020): from what rounding and clipping do to the loss. `pact` (Choi et al. 2018): from what clipping does, with a penalty on wide ranges. Those of weights are learned by `lsq`.",
    }),
    teacher: z.string().nullable().default("self").meta({
      description:
        "Whose outputs are learned: `self` is the float model itself, which needs no labels; or the id of a model; null for none.",
    }),
    loss: DistillLoss.optional().meta({
      description: "When it is not given: the outputs of the teacher by `mse`; without a teacher, the labels.",
    }),
    epochs: z.int().min(1).max(500).nullable().default(null).meta({ description: "Instead of `training.epochs`." }),
    training: QatTraining.prefault({}),
    samples: z
      .int()
      .min(1)
      .max(100_000)
      .default(128)
      .meta({ description: "How many samples are calibrated on first." }),
    calibration: z.enum(["minmax", "moving_average", "percentile", "entropy", "mse"]).default("mse"),
    percentile: z
      .number()
      .gt(50)
      .max(100)
      .default(99.999)
      .meta({ description: "Share of the values that `percentile` keeps." }),
    ...Common,
  })
  .refine(({ algorithm, bits }) => algorithm !== "pact" || bits.activations !== null, {
    path: ["algorithm"],
    error: "of pact learns the ranges of activations, which bits.activations: null leaves in float",
  })
  .overwrite(({ epochs, training, teacher, loss, ...params }) => ({
    ...params,
    epochs: epochs ?? training.epochs,
    training: {
      ...training,
      epochs: epochs ?? training.epochs,
      learning_rate: training.learning_rate ?? (params.bits.weights === 8 ? 0.0001 : 0.001),
    },
    teacher,
    loss:
      loss ??
      DistillLoss.parse(
        teacher === null ? { kl_weight: 0, label_weight: 1 } : { output_loss: "mse", kl_weight: 1, label_weight: 0 },
      ),
  }))
  .meta({ id: "QatParams", title: "quantization-aware training" });

export const QuantizeParams = z
  .discriminatedUnion("method", [
    SimplifyParams,
    Float16Params,
    DynamicParams,
    StaticParams,
    WeightOnlyParams,
    QatParams,
  ])
  .meta({ id: "QuantizeParams" });

export const Latency = z
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
      description: "Null takes all there are, up to 10,000 and to a minute of the slower model.",
    }),
    metric: z
      .enum([...METRIC_NAMES, "none"])
      .nullable()
      .default(null)
      .meta({
        description:
          "Needs labels in the dataset. Null: `top1` when they are classes of an output, `mse` when they are numbers in its shape, else none, " +
          "with a warning. `none`: labels are not looked at.",
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

/** In a step of a pipeline the id of the model that the step before has made; in the first step the pipeline's own `model_id`. */
export const PREVIOUS = "previous";

const StepName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9_-]{0,39}$/i, "must be letters, digits, - and _, at most 40")
  .optional()
  .meta({
    description: "What reports and artifacts of the step are called. When it is not given: `step-1`, `step-2`, …",
  });

const PipelineStep = z
  .discriminatedUnion("type", [
    z
      .strictObject({ type: z.literal("quantize"), name: StepName, params: QuantizeParams })
      .meta({ id: "QuantizeStep", description: "Compresses the model of the step before." }),
    z.strictObject({ type: z.literal("distill"), name: StepName, params: DistillParams }).meta({
      id: "DistillStep",
      description:
        "Trains. A `model_id` of `previous` is the model of the step before: as the student, or as the teacher.",
    }),
  ])
  .meta({ id: "PipelineStep" });

export const PipelineParams = z
  .strictObject({
    steps: z
      .array(PipelineStep)
      .min(2)
      .max(10)
      .overwrite((steps) => steps.map((step, i) => ({ ...step, name: step.name ?? `step-${i + 1}` })))
      .refine((steps) => new Set(steps.map(({ name }) => name)).size === steps.length, {
        error: "must have names of their own",
      })
      .meta({ description: "In this order; each works on the model that the one before has made." }),
  })
  .meta({ id: "PipelineParams", title: "pipeline" });

export type Evaluation = z.output<typeof Evaluation>;

/** How every job's result is judged. */
interface Judgement {
  readonly evaluation: Evaluation;
  readonly acceptance: z.output<typeof Acceptance>;
}

export interface QuantizeSpec extends Judgement {
  readonly type: "quantize";
  readonly model_id: string;
  readonly params: z.output<typeof QuantizeParams>;
}

export type QatSpec = QuantizeSpec & { readonly params: z.output<typeof QatParams> };

export function isQat(spec: JobSpec): spec is QatSpec {
  return spec.type === "quantize" && spec.params.method === "qat";
}

/** The training of a quantization-aware job as a distillation: the model itself is the student. */
export function asDistillation({ model_id, params, evaluation, acceptance }: QatSpec): OfflineSpec {
  const { teacher, dataset_id, loss, training, seed } = params;
  return {
    type: "distill",
    params: {
      mode: "offline",
      teacher_model_id: teacher === "self" ? model_id : teacher,
      dataset_id,
      student: { model_id, init: "keep" },
      // Parsing has filled them in.
      loss: loss!,
      training: { ...training, learning_rate: training.learning_rate! },
      baseline: false,
      seed,
    },
    evaluation,
    acceptance,
  };
}

export interface DistillSpec extends Judgement {
  readonly type: "distill";
  readonly params: DistillParams;
}

/** Of one mode: the view that the others share, too. */
export interface OfflineSpec extends DistillSpec {
  readonly params: OfflineParams;
}

export interface PipelineSpec extends Judgement {
  readonly type: "pipeline";
  /** What the first step is fed; null when that step names its models itself. */
  readonly model_id: string | null;
  readonly params: z.output<typeof PipelineParams>;
}

export interface EvaluateSpec extends Judgement {
  readonly type: "evaluate";
  readonly params: z.output<typeof EvaluateParams>;
}

/** What one child process can do from its inputs to a model. */
export type SingleSpec = QuantizeSpec | DistillSpec;

/** The work itself, with every default in place. */
export type JobSpec = SingleSpec | PipelineSpec | EvaluateSpec;

/**
 * Step `index` of a pipeline as a job of its own, on the model `fed`: the one that the step before has made, for the first step the
 * pipeline's `model_id`. It has no limits: those are for the pipeline as a whole.
 */
export function stepSpec(spec: PipelineSpec, index: number, fed: string | null): SingleSpec {
  const { type, params } = spec.params.steps[index]!;
  const common = { evaluation: spec.evaluation, acceptance: {} };
  // That a step which needs a model is fed one is checked when the job is posted.
  if (type === "quantize") return { type, model_id: fed!, params, ...common };
  return { type, params: withFed(params, fed), ...common };
}

/** Where a field of a step's own spec is in its pipeline. */
export function stepPointer(index: number, pointer: string): string {
  return pointer.startsWith("/params") ? pointerOf("/params/steps", [index]) + pointer : pointer;
}

/** What is done one after the other to make a model: the steps of a pipeline; any other job is one step, or none. */
export function stepsOf(
  spec: JobSpec,
): readonly (Pick<QuantizeSpec, "type" | "params"> | Pick<DistillSpec, "type" | "params">)[] {
  if (spec.type === "evaluate") return [];
  return spec.type === "pipeline" ? spec.params.steps : [spec];
}

/** `value` with `fed` for every field ending in `model_id` that says `previous`. */
function withFed<T>(value: T, fed: string | null): T {
  if (Array.isArray(value)) return value.map((item) => withFed(item, fed)) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => [
      key,
      key.endsWith("model_id") && child === PREVIOUS ? fed : withFed(child, fed),
    ]),
  ) as T;
}

/** The model that the result is a form of: the one that is quantized, the uploaded student, or the teacher a student is made from. */
export function sourceModelId(spec: JobSpec): string {
  if (spec.type === "pipeline") return sourceModelId(stepSpec(spec, 0, spec.model_id));
  if (spec.type === "quantize") return spec.model_id;
  if (spec.type === "evaluate") return spec.params.model_ids[0]!;
  const { student, teacher_model_id } = offlineView(spec.params);
  // That there is a teacher to derive from is checked when the job is posted.
  return "model_id" in student ? student.model_id : teacher_model_id!;
}

/** The metric that is asked for, if any; `none` takes the labels away. */
export function metricOf({ metric }: Evaluation): MetricName | null {
  return metric === "none" ? null : metric;
}

/** What is done, in a word: the method of a quantization, the mode of a distillation. */
export function methodOf(spec: JobSpec): string {
  if (spec.type === "pipeline" || spec.type === "evaluate") return spec.type;
  return spec.type === "quantize" ? spec.params.method : spec.params.mode;
}

/** The seed of every random choice that is not a step's own. */
export function seedOf(spec: JobSpec): number {
  return spec.type === "pipeline" ? spec.params.steps[0]!.params.seed : spec.params.seed;
}
