import { z } from "zod";
import { type JobMetrics, METRIC_NAMES, NOTE_CODES } from "../../core/contract.ts";
import { Bytes, Count, ResultWarning } from "../schemas.ts";

/** The wire form of what is measured of a result. */

const NoteCode = z
  .enum(NOTE_CODES)
  .meta({ id: "NoteCode", description: "Stable; the guide to codes says what causes each." });

export const NodeNote = z
  .object({ name: z.string(), op: z.string(), code: NoteCode, message: z.string() })
  .meta({ id: "NodeNote", description: "Why a node was, or was not, touched." });

/** Ends of an interval. */
const Interval = z
  .tuple([z.number(), z.number()])
  .meta({ id: "Interval", description: "Lower and upper end of a confidence interval at 95 %." });

const OutputFidelity = z
  .object({
    name: z.string(),
    sqnr_db: z.number().nullable().meta({ description: "10·log10(Σx² / Σ(x−y)²); null when identical." }),
    cosine: z.number(),
    min_value: z.number().nullable().meta({ description: "Of the original; null where it gives no finite number." }),
    max_value: z.number().nullable().meta({ description: "Of the original; null where it gives no finite number." }),
    max_abs_error: z.number(),
    mean_abs_error: z.number(),
    top1_agreement: z
      .number()
      .nullable()
      .meta({
        description:
          "Share of positions with the same class, the largest of its scores; of integer outputs, share of equal elements; " +
          "of labels that are told one by one (shares of a Sigmoid), of those that either model says yes to (above a half), the share that both do. " +
          "Null for other outputs, and where there is no yes.",
      }),
    sqnr_interval_db: Interval.nullable().meta({ description: "Of `sqnr_db`, over runs; null when identical." }),
    top1_agreement_interval: Interval.nullable(),
    non_finite: Count.meta({ description: "Elements that are NaN or infinite in only one of the two models." }),
    shape_mismatches: Count.meta({ description: "Runs in which the output had another shape and was not compared." }),
  })
  .meta({ id: "OutputFidelity" });

const Timing = z.object({ p50_ms: z.number(), p90_ms: z.number(), mean_ms: z.number() }).meta({ id: "Timing" });

export const EpochRecord = z
  .object({
    epoch: Count.meta({ description: "Counts from 1." }),
    loss: z.number().meta({ description: "Mean over the steps." }),
    losses: z.record(z.string(), z.number()).meta({ description: "Each term of the loss, before its weight." }),
    validation_metric: z.number().nullable(),
    learning_rate: z.number(),
    samples_per_second: z.number(),
  })
  .meta({ id: "EpochRecord" });

const TrainedNetwork = z
  .object({
    name: z.string().meta({ description: "`student`, `teacher`, `peer_1`, `generation_1`, …" }),
    parameters: Count,
    history: z.array(EpochRecord),
    best_epoch: Count,
    validation_metric: z.number().nullable().meta({ description: "Of the best epoch, on the samples held out." }),
    before_metric: z.number().nullable(),
    metric: z.number().nullable(),
    artifact: z.string(),
  })
  .meta({ id: "TrainedNetwork" });

const TrainingMetrics = z
  .object({
    history: z.array(EpochRecord),
    best_epoch: Count.meta({
      description: "The epoch that the student's weights are from; 0: none was better than the start (`qat`).",
    }),
    metric: z.string().nullable().meta({
      description:
        "A metric of `evaluation.metric` against labels; without labels `teacher_agreement` or `teacher_mse`.",
    }),
    metric_samples: Count,
    teacher_metric: z.number().nullable(),
    student_before_metric: z.number().nullable(),
    student_metric: z.number().nullable(),
    baseline_metric: z.number().nullable().meta({ description: "Of the same student, trained without the teacher." }),
    baseline_history: z.array(EpochRecord).nullable(),
    samples_per_second: z.number(),
    networks: z.array(TrainedNetwork).meta({ description: "All that were trained, baselines left out." }),
    chosen: z.string().meta({ description: "The network that is the result; `average` is all of them together." }),
    ensemble_metric: z.number().nullable().meta({
      description: "Of the mean of all networks' (or exits') answers; null where there is only one.",
    }),
  })
  .meta({ id: "TrainingMetrics" });

const ExitMetrics = z
  .object({
    name: z.string(),
    value: z.string().meta({ description: "What the exit reads." }),
    metric: z.number().nullable(),
    macs_share: z.number().meta({ description: "Multiply-accumulates up to this answer, of those of the network." }),
    latency_share: z.number().meta({ description: "Median latency up to this answer, of the network's." }),
    artifact: z.string().nullable().meta({ description: "A model that stops here; null where exits are not kept." }),
  })
  .meta({ id: "ExitMetrics", description: "An answer before the last layer; the last one is the network's own." });

export const SizeMetrics = z
  .object({ before_bytes: Bytes, after_bytes: Bytes, ratio: z.number() })
  .meta({ id: "SizeMetrics" });

const AcceptanceCheck = z
  .object({ name: z.string(), limit: z.number(), value: z.number().nullable(), ok: z.boolean() })
  .meta({ id: "AcceptanceCheck" });

/** What is measured of a model against another. */
const MEASURED = {
  size: SizeMetrics,
  fidelity: z
    .object({
      samples: Count,
      data: z.enum(["evaluation", "validation", "calibration", "synthetic"]).meta({
        description: "`validation`: samples of the training data that were held out of the training.",
      }),
      outputs: z.array(OutputFidelity),
    })
    .meta({ id: "FidelityMetrics", description: "Against the original model, on the same inputs." }),
  accuracy: z
    .object({
      metric: z.enum(METRIC_NAMES),
      before: z.number(),
      after: z.number(),
      drop: z.number(),
      samples: Count,
      interval: Interval.nullable().meta({
        description:
          "Of `drop`, on the same samples in both models: Agresti and Min's for shares of samples, else by bootstrap. A smaller drop may be chance.",
      }),
      before_interval: Interval.nullable().meta({
        description: "Wilson's for shares of samples, else by bootstrap.",
      }),
      after_interval: Interval.nullable(),
    })
    .meta({ id: "AccuracyMetrics" })
    .nullable(),
  latency: z
    .object({
      before: Timing,
      after: Timing,
      speedup: z.number().meta({ description: "Ratio of medians." }),
      speedup_interval: Interval.nullable().meta({ description: "By bootstrap over rounds; null for a single one." }),
      batch_size: Count,
      threads: Count,
      runs: Count,
      cpu: z.string(),
    })
    .meta({ id: "LatencyMetrics", description: "Measured in one run, interleaved A B A B, after warm-up." }),
  memory: z.object({ before_peak_bytes: Bytes, after_peak_bytes: Bytes, baseline_bytes: Bytes }).meta({
    id: "MemoryMetrics",
    description:
      "Peak resident memory of a process that loads and runs one model; `baseline_bytes` is what it takes before " +
      "it loads one.",
  }),
  acceptance: z.array(AcceptanceCheck),
  warnings: z.array(ResultWarning),
};

const EvaluatedModel = z
  .object({
    model_id: z.string(),
    name: z.string().nullable().meta({ description: "What the model was called when it was measured." }),
    parameters: Count,
    ...MEASURED,
    latencies: z.array(MEASURED.latency).meta({ description: "At each batch size and number of threads." }),
  })
  .meta({ id: "EvaluatedModel", description: "A model of an evaluation against the first of them." });

export const CandidateSpec = z
  .record(z.string(), z.unknown())
  .meta({ description: "Posted as a job, it makes the same bytes." });

const { size, fidelity, accuracy, latency, memory } = MEASURED;
const STAGE = z.enum(["planned", "made", "tried", "measured"]).meta({ id: "CandidateStage" });

const DeploymentMetrics = z
  .object({
    target: z.string(),
    rules: z
      .array(
        z
          .object({
            rule: z.string(),
            says: z.string(),
            source: z.string().meta({ description: "The public page that says so." }),
            holds: z.boolean(),
            broken: z.array(z.object({ name: z.string(), message: z.string() }).meta({ id: "RuleBreak" })),
          })
          .meta({ id: "TargetRule" }),
      )
      .meta({
        description: "What the runtime wants of a model, checked on the file that was written; nothing was run for it.",
      }),
    measured: z
      .object({
        runtime: z.string(),
        before: Timing,
        after: Timing,
        speedup: z.number(),
        speedup_interval: Interval.nullable().meta({ description: "By bootstrap over rounds; null for a single one." }),
        runs: Count,
        threads: Count,
        load_ms: z.number(),
        sqnr_db: z.number().nullable().meta({
          description:
            "Of the result there against the result in onnxruntime on this machine, over float32 outputs; null when identical, and where there are none.",
        }),
      })
      .meta({ id: "ElsewhereMetrics" })
      .nullable()
      .meta({
        description:
          "Runs in the runtime itself. Null where it is not on this machine: then rules were checked, and no more.",
      }),
    failure: z.string().nullable().meta({ description: "Why the runtime did not run the result." }),
    download: z
      .object({ encoding: z.enum(["gzip"]), before_bytes: Bytes, after_bytes: Bytes })
      .meta({ id: "DownloadMetrics" })
      .nullable()
      .meta({ description: "Files as they travel, where models are loaded over a network." }),
  })
  .meta({ id: "DeploymentMetrics", description: "A result beside what the runtime wants that it was made for." });

const AutoCandidateSchema = z
  .object({
    name: z.string(),
    target: z.string().meta({ description: "What it was made and judged for." }),
    spec: CandidateSpec.nullable().meta({
      description: "Null for the original. Posted as a job, it makes the same bytes.",
    }),
    model_id: z.string().nullable().meta({ description: "Of those on the front." }),
    sha256: z.string().nullable(),
    stage: STAGE.meta({ description: "How far it came." }),
    predicted: z
      .object({
        size_bytes: Bytes,
        size_ratio: z.number(),
        samples: Count,
        sqnr_db: z.number().nullable(),
        metric_drop: z.number().nullable(),
        speedup: z.number(),
      })
      .meta({
        id: "CandidatePrediction",
        description: "What a few samples and a few timed runs have shown; sizes are exact.",
      })
      .nullable(),
    measured: z
      .object({ size, fidelity, accuracy, latency, memory })
      .meta({
        id: "CandidateMeasurement",
        description:
          "On all samples, and timed with all finalists in turns; for `web` `latency` is that of onnxruntime-web, beside the original.",
      })
      .nullable(),
    deployment: DeploymentMetrics.nullable().meta({
      description:
        "Of those that were measured: what the runtime of its target makes of it. Null for onnxruntime on a CPU.",
    }),
    on_front: z.boolean().meta({ description: "Nothing else beats it in size, latency and quality." }),
    recommended: z.boolean(),
    dropped: z
      .object({ stage: STAGE, code: z.string(), message: z.string() })
      .meta({ id: "DroppedCandidate", description: "When, and why." })
      .nullable(),
  })
  .meta({ id: "AutoCandidate" });

const AutoRecommendationSchema = z
  .object({
    candidate: z.string(),
    model_id: z.string().meta({ description: "The original's id when nothing is better." }),
    why: z.string(),
    next_better: z
      .object({ candidate: z.string(), model_id: z.string().nullable(), message: z.string() })
      .meta({
        id: "NextBetter",
        description: "The nearest model that is better in the objective, or else in quality.",
      })
      .nullable(),
  })
  .meta({ id: "AutoRecommendation" });

const RECOMMENDED = {
  recommendation: AutoRecommendationSchema,
  constraints: z.array(AcceptanceCheck).meta({ description: "Those that were set, for the recommended model." }),
};

const AutoMetricsSchema = z
  .object({
    candidates: z.array(AutoCandidateSchema),
    ...RECOMMENDED,
    targets: z
      .array(
        z
          .object({
            target: z.string(),
            accepted: z.boolean().meta({ description: "Whether what is recommended for it holds all limits." }),
            ...RECOMMENDED,
          })
          .meta({ id: "AutoTarget", description: "What was found for one target." }),
      )
      .meta({
        description:
          "In the order of the job. `recommendation` and `constraints` beside it are those of the first; with several targets, candidates are called by theirs, too.",
      }),
    seconds: z.number(),
  })
  .meta({ id: "AutoMetrics", description: "What a search has found." });

export const JobMetricsSchema = z
  .object({
    ...MEASURED,
    coverage: z
      .object({
        quantized_nodes: Count,
        skipped_nodes: z.array(NodeNote),
        fused_nodes: Count.meta({ description: "Nodes of the graph onnxruntime runs that compute on quantized data." }),
        float_islands: z.array(NodeNote),
      })
      .meta({ id: "CoverageMetrics" }),
    training: TrainingMetrics.nullable(),
    exits: z.array(ExitMetrics).nullable().meta({ description: "Of a network that is its own teacher." }),
    auto: AutoMetricsSchema.nullable().meta({
      description: "Of a search; what is said beside it is of the recommended model. Null for other jobs.",
    }),
    deployment: DeploymentMetrics.nullable().meta({
      description:
        "Of a quantization whose `target` is another runtime than onnxruntime on a CPU, of a pipeline that ends with one, and of a search whose first target is one. Null for other jobs.",
    }),
    models: z.array(EvaluatedModel).nullable().meta({
      description:
        "Of an evaluation: every model, the first one by itself; what is said beside it is of the second one. Null for other jobs.",
    }),
    environment: z
      .object({
        onnxruntime: z.string(),
        cpu: z.string(),
        isa: z.array(z.string()),
        threads: Count,
        seed: Count,
        versions: z.record(z.string(), z.string()),
      })
      .meta({ id: "MeasurementEnvironment" }),
  })
  .meta({ id: "JobMetrics" });

/** Compiles only while the wire form has every field of what the library reports. */
type Covers<Wire extends Reported, Reported> = Wire;
/** @lintignore It is read by the compiler alone. */
export type WireMetrics = Covers<z.output<typeof JobMetricsSchema>, JobMetrics>;
