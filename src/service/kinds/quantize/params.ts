import { z } from "zod";
import {
  CALIBRATION_METHODS,
  LAYER_PRECISIONS,
  LOW_SQNR_DB,
  POOR_SQNR_DB,
  QAT_ALGORITHMS,
  ROUNDINGS,
} from "../../../core/contract.ts";
import { DistillLoss, QatTraining } from "../distill/params.ts";
import { Seed } from "../evaluation.ts";

/**
 * What a job may be asked to do. Parsing fills in every default, so a parsed spec is complete: it is stored with the job,
 * echoed as `effective_params`, and is all that the work itself sees.
 */

/** Of nodes that a job can name. */
const MAX_NAMES = 10_000;

const NodeNames = z.array(z.string().min(1).max(1024)).max(MAX_NAMES);

const Exclusions = {
  exclude_nodes: NodeNames.default([]).meta({
    description:
      "Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused.",
  }),
  exclude_ops: NodeNames.default([]).meta({
    description: "Operator types to leave alone, as in the uploaded model. One that it does not have is refused.",
  }),
};

/** Runtimes other than onnxruntime on a CPU. */
const RUNTIMES = ["web", "openvino", "tensorrt", "qnn"] as const;

export const TargetName = z
  .enum(["auto", "x64-vnni", "x64-avx2", "arm64", "portable", ...RUNTIMES])
  .meta({ id: "TargetName" });

/** Fields that every method that changes arithmetic has. */
const Common = {
  ...Exclusions,
  target: TargetName.default("auto").meta({
    description:
      "What the model will run on: a kind of processor with onnxruntime, where `auto` is the one the worker runs on; or another runtime, whose rules the " +
      "result is made by and checked against (`metrics.deployment`).",
  }),
  seed: Seed,
};

const RoundingName = z.enum(ROUNDINGS).meta({ id: "RoundingName" });

/** Of methods that do the same for every machine. */
const AnyTarget = z
  .enum(["auto", ...RUNTIMES], {
    error: `must be auto or a runtime (${RUNTIMES.join(", ")}): this method does the same for every machine`,
  })
  .meta({ id: "AnyTargetName" })
  .default("auto")
  .meta({
    description: "The method does the same for every machine. For a runtime the result is checked against its rules.",
  });

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

const SimplifyParams = z
  .strictObject({ method: z.literal("simplify"), ...Exclusions, seed: Seed })
  .meta({ id: "SimplifyParams" });

const Float16Params = z
  .strictObject({
    method: z.literal("float16"),
    keep_io: z.boolean().default(true).meta({ description: "Keep the model's inputs and outputs in float32." }),
    ...Common,
    target: AnyTarget,
  })
  .meta({ id: "Float16Params" });

const DynamicParams = z
  .strictObject({
    method: z.literal("dynamic"),
    weight_dtype: z.enum(["int8"]).meta({ id: "WeightDtype" }).default("int8"),
    per_channel: z
      .boolean()
      .default(true)
      .meta({ description: "One scale for each output channel instead of one for each tensor." }),
    ...Common,
  })
  .meta({ id: "DynamicParams" });

const StaticParams = z
  .strictObject({
    method: z.literal("static"),
    dataset_id: z
      .string()
      .meta({ description: "Samples of what the model will see: the ranges of activations are taken from them." }),
    samples: z.int().min(1).max(100_000).default(128).meta({ description: "How many of them, drawn by the seed." }),
    calibration: z
      .enum([...CALIBRATION_METHODS, "auto"])
      .meta({ id: "CalibrationMethod" })
      .default("auto")
      .meta({
        description:
          "How the range of an activation follows from its values: all of them, a moving average of each sample's range, " +
          "a share of the values, the least loss of information, or the least squared error. `auto` is the last, unless its outputs have an SQNR " +
          `below ${POOR_SQNR_DB} dB on some samples: then all are tried, and the one whose outputs are nearest to the float model's is taken.`,
      }),
    percentile: z
      .number()
      .gt(50)
      .max(100)
      .default(99.999)
      .meta({ description: "Share of the values that `percentile` keeps." }),
    activation_dtype: z.enum(["auto", "uint8", "int8"]).meta({ id: "ActivationDtype" }).default("auto").meta({
      description: "`auto` is what the target computes fastest with: uint8 on x64.",
    }),
    per_channel: z
      .boolean()
      .default(true)
      .meta({ description: "One scale for each output channel of a weight instead of one for each weight." }),
    weight_bits: z
      .union([z.literal(8), z.literal(4), z.literal(2)])
      .default(8)
      .meta({
        description:
          "Of the weights that are quantized. Those of 4 and 2 are stored in 4 and 2, and turned into 8, or into floats where a layer computes in float, when " +
          "the model is loaded: the file is smaller, the speed is the same. `more_bits_stored` warns of what has no such form.",
      }),
    rounding: RoundingName.default("nearest").meta({
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
          "Leave in float what is slower in 8 bits (small layers, depthwise convolutions); its weights are still stored in `weight_bits`. Where `target` is " +
          "the machine that runs the job, kernels are measured there; for `x64-avx2` on another machine a table of costs predicts; for `openvino` depthwise " +
          "convolutions stay in float, weights and all; for other targets all that can is computed in 8 bits. What was measured is kept for a day, so that " +
          "the same job makes the same bytes.",
      }),
    layers: z
      .record(z.string().min(1).max(1024), z.enum(LAYER_PRECISIONS).meta({ id: "LayerPrecision" }))
      .refine((layers) => Object.keys(layers).length <= MAX_NAMES, { error: `must have at most ${MAX_NAMES} names` })
      .default({})
      .meta({
        description:
          "What single nodes compute in instead of 8 bits, by their names in the uploaded model: float, with weights as they are (`float32`) or stored in " +
          "8 or 4 bits (`int8_weights`, `int4_weights`). A name that no node has is refused. With `float_where_slower: false` this says all that a report " +
          "says about which nodes are in float, and makes the same bytes on every machine.",
      }),
    max_metric_drop: z.number().min(0).max(1e6).nullable().default(null).meta({
      description:
        "Keep layers in float until the metric of `evaluation` drops no further, on labelled samples of the dataset that calibration has not seen.",
    }),
    min_sqnr_db: z
      .union([z.literal("auto"), z.number().min(-100).max(200)])
      .nullable()
      .default("auto")
      .meta({
        description:
          `The same without labels: until the signal to noise ratio of the outputs is this good. \`auto\`: layers are left in float only for a result ` +
          `below ${POOR_SQNR_DB} dB, measured on a few samples, until it is above ${LOW_SQNR_DB} dB; null: none are.`,
      }),
    max_trials: z.int().min(1).max(200).default(24).meta({ description: "Models that may be tried for that." }),
    ...Common,
  })
  .overwrite(withCandidates)
  .refine(candidatesAreUsed, CANDIDATES_UNUSED)
  .refine(({ max_metric_drop, min_sqnr_db }) => max_metric_drop === null || typeof min_sqnr_db !== "number", {
    path: ["min_sqnr_db"],
    error: "cannot be set together with max_metric_drop",
  })
  .meta({ id: "StaticParams" });

/** Eight bits are accurate enough to share a scale among more weights, and scales are what makes such a file larger than a quarter. */
export const BLOCK_SIZES = { 2: 32, 4: 32, 8: 128 } as const;

const WeightOnlyParams = z
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
    algorithm: z.enum(["rtn", "gptq"]).meta({ id: "WeightOnlyAlgorithm" }).default("rtn").meta({
      description:
        "How scales are found: `rtn` from the range of each block as it is, `gptq` as it is when GPTQ reaches it. `gptq` implies the rounding of that name, and that rounding implies it.",
    }),
    rounding: RoundingName.optional().meta({
      description: `How weights become integers; \`nearest\` unless \`algorithm\` says otherwise. ${ROUNDING_WORDS}`,
    }),
    candidates: Candidates,
    dataset_id: z
      .string()
      .nullable()
      .default(null)
      .meta({ description: "Samples of what the model will see, for all roundings but `nearest`." }),
    samples: z.int().min(1).max(100_000).default(128).meta({ description: "How many of them, drawn by the seed." }),
    format: z.enum(["matmulnbits", "qdq"]).meta({ id: "WeightOnlyFormat" }).default("matmulnbits").meta({
      description:
        "`matmulnbits`: onnxruntime's own operators, fastest on onnxruntime. `qdq`: plain ONNX `DequantizeLinear`, which also covers Conv.",
    }),
    embeddings: z.boolean().default(true).meta({ description: "Also quantize the tables that Gather reads." }),
    accuracy_level: z
      .union([z.literal(0), z.literal(1), z.literal(4)])
      .default(4)
      .meta({ description: "Of MatMulNBits: 4 computes in int8, 1 in float32, 0 leaves it to the runtime." }),
    ...Common,
    target: AnyTarget,
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
  .meta({ id: "WeightOnlyParams" });

const QatParams = z
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
    algorithm: z.enum(QAT_ALGORITHMS).meta({ id: "QatAlgorithm" }).default("lsq").meta({
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
    rounding: RoundingName.default("nearest").meta({
      description: `How weights of 4 and 2 bits become integers before they are trained. ${ROUNDING_WORDS}`,
    }),
    candidates: Candidates,
    calibration: z
      .enum(["minmax", "moving_average", "percentile", "entropy", "mse"])
      .meta({ id: "QatCalibration" })
      .default("mse"),
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
  .refine(({ rounding, bits }) => rounding === "nearest" || (bits.weights !== 8 && bits.activations !== null), {
    path: ["rounding"],
    error: "other than nearest is for weights of 4 and 2 bits on activations of 8 or 4",
  })
  .refine(candidatesAreUsed, CANDIDATES_UNUSED)
  .overwrite(({ epochs, training, teacher, loss, ...params }) => ({
    ...withCandidates(params),
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
  .meta({ id: "QatParams" });

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

export type QuantizeParams = z.output<typeof QuantizeParams>;
