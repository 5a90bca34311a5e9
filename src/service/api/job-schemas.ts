import { z } from "zod";
import { type JobMetrics, METRIC_NAMES, WARNING_CODES } from "../../core/index.ts";
import type { JobPlan as Plan } from "../../tasks/protocol.ts";
import { DistillParams } from "../jobs/distill-spec.ts";
import { JOB_STATUSES } from "../jobs/job.ts";
import { Acceptance, Evaluation, PipelineParams, QuantizeParams } from "../jobs/spec.ts";
import { WEBHOOK_EVENTS } from "../jobs/webhooks.ts";
import { EvaluateParams } from "../kinds/evaluate/spec.ts";
import { Problem } from "./problem.ts";
import { Bytes, Count, Metadata, Name, PageQuery, pageOf, Sha256, Timestamp } from "./schemas.ts";

/** The wire forms of jobs, their results, events and plans. */

export const JobParams = z.object({ job_id: z.string() });
export const ArtifactParams = z.object({ job_id: z.string(), name: z.string() });
export const JobStatus = z.enum(JOB_STATUSES).meta({ id: "JobStatus" });
export const JobType = z.enum(["quantize", "distill", "pipeline", "evaluate"]).meta({ id: "JobType" });

const WebhookTarget = z
  .strictObject({
    url: z.string().max(2000).meta({ description: "https, at a public address." }),
    events: z
      .array(z.enum(WEBHOOK_EVENTS))
      .min(1)
      .default([...WEBHOOK_EVENTS])
      .meta({ description: "Which ends to tell of." }),
  })
  .meta({
    id: "WebhookTarget",
    description: "Whom to tell how the job ended, by the Standard Webhooks specification.",
  });

/** What can be said of every job. */
const OFFER = {
  evaluation: Evaluation.prefault({}),
  acceptance: Acceptance.prefault({}),
  name: Name.nullable().default(null),
  metadata: Metadata.default({}),
  priority: z.int().min(1).max(10).default(5).meta({ description: "1 runs first." }),
  webhook: WebhookTarget.nullable().default(null),
};

const CreateQuantizeJobRequest = z
  .strictObject({ type: z.literal("quantize"), model_id: z.string(), params: QuantizeParams, ...OFFER })
  .meta({ id: "CreateQuantizeJobRequest" });

const CreateDistillJobRequest = z
  .strictObject({ type: z.literal("distill"), params: DistillParams, ...OFFER })
  .meta({ id: "CreateDistillJobRequest" });

const CreatePipelineJobRequest = z
  .strictObject({
    type: z.literal("pipeline"),
    model_id: z.string().nullable().default(null).meta({
      description: "What the first step works on. Null when it is a distillation that names its models itself.",
    }),
    params: PipelineParams,
    ...OFFER,
  })
  .meta({ id: "CreatePipelineJobRequest" });

const CreateEvaluateJobRequest = z
  .strictObject({ type: z.literal("evaluate"), params: EvaluateParams, ...OFFER })
  .meta({ id: "CreateEvaluateJobRequest" });

export const CreateJobRequest = z
  .discriminatedUnion("type", [
    CreateQuantizeJobRequest,
    CreateDistillJobRequest,
    CreatePipelineJobRequest,
    CreateEvaluateJobRequest,
  ])
  .meta({ id: "CreateJobRequest" });

export const CreateJobQuery = z.strictObject({
  validate_only: z
    .enum(["true", "false"])
    .default("false")
    .meta({ description: "Answer 200 with what the job would do, and store nothing." }),
});

export const CreateJobHeaders = z.object({
  "idempotency-key": z
    .string()
    .min(1)
    .max(200)
    .optional()
    .meta({ description: "The same key again, for a day, answers with the job that the first request made." }),
});

export const ListJobsQuery = PageQuery.extend({
  status: JobStatus.optional(),
  type: JobType.optional(),
  model_id: z.string().max(100).optional(),
});

export const JobProgress = z
  .object({ step: z.string(), fraction: z.number().min(0).max(1), message: z.string() })
  .meta({ id: "JobProgress", description: "`fraction` is of the whole job." });

const Artifact = z
  .object({ name: z.string(), media_type: z.string(), size_bytes: Bytes, sha256: Sha256, url: z.string() })
  .meta({ id: "Artifact" });

const NodeNote = z
  .object({ name: z.string(), op: z.string(), code: z.string(), message: z.string() })
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
    max_abs_error: z.number(),
    mean_abs_error: z.number(),
    top1_agreement: z
      .number()
      .nullable()
      .meta({
        description:
          "Share of positions with the same argmax over the last axis; of integer outputs, share of equal elements. " +
          "Null for outputs that are not class scores.",
      }),
    sqnr_interval_db: Interval.nullable().meta({ description: "Of `sqnr_db`, over runs; null when identical." }),
    top1_agreement_interval: Interval.nullable(),
    non_finite: Count.meta({ description: "Elements that are NaN or infinite in only one of the two models." }),
    shape_mismatches: Count.meta({ description: "Runs in which the output had another shape and was not compared." }),
  })
  .meta({ id: "OutputFidelity" });

const Timing = z.object({ p50_ms: z.number(), p90_ms: z.number(), mean_ms: z.number() }).meta({ id: "Timing" });

const EpochRecord = z
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

const ResultWarning = z.object({ code: z.enum(WARNING_CODES), message: z.string(), value: z.number() }).meta({
  id: "ResultWarning",
  description:
    "What was not asked about and should be known. The guide to codes says what causes each, and what its `value` is.",
});

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

/** What is measured of a model against another. */
const MEASURED = {
  size: z.object({ before_bytes: Bytes, after_bytes: Bytes, ratio: z.number() }).meta({ id: "SizeMetrics" }),
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
  acceptance: z.array(
    z
      .object({ name: z.string(), limit: z.number(), value: z.number().nullable(), ok: z.boolean() })
      .meta({ id: "AcceptanceCheck" }),
  ),
  warnings: z.array(ResultWarning),
};

const EvaluatedModel = z
  .object({
    model_id: z.string(),
    parameters: Count,
    ...MEASURED,
    latencies: z.array(MEASURED.latency).meta({ description: "At each batch size and number of threads." }),
  })
  .meta({ id: "EvaluatedModel", description: "A model of an evaluation against the first of them." });

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

const StepResult = z
  .object({
    name: z.string(),
    type: z.string(),
    model_id: z.string(),
    parameters: Count.meta({ description: "Of the model that it has made." }),
    metrics: JobMetricsSchema,
  })
  .meta({ id: "StepResult", description: "Of a step: its model against the one that it was fed." });

const JobResult = z
  .object({
    model_id: z.string(),
    accepted: z.boolean().meta({ description: "False when a limit of `acceptance` was missed." }),
    artifacts: z.array(Artifact),
    metrics: JobMetricsSchema,
    steps: z.array(StepResult).nullable().meta({ description: "Of a pipeline, in their order; null for other jobs." }),
  })
  .meta({ id: "JobResult" });

const JobProblem = Problem.omit({ request_id: true, errors: true }).meta({
  id: "JobProblem",
  description: "Why a job failed; the form of every other problem.",
});

const SENT_PARAMS = z.record(z.string(), z.unknown()).meta({ description: "As they were sent." });
const ALL_DEFAULTS = { description: "With every default filled in." };

/** What is told of every job. */
const STATE = {
  id: z.string(),
  object: z.literal("job"),
  status: JobStatus,
  name: z.string().nullable(),
  evaluation: Evaluation,
  acceptance: Acceptance,
  metadata: Metadata,
  priority: z.int(),
  progress: JobProgress.nullable(),
  queue_position: z.int().nullable().meta({ description: "1 is next; null when the job is not waiting." }),
  attempt: Count.meta({ description: "How often a worker has started it." }),
  created_at: Timestamp,
  started_at: Timestamp.nullable(),
  finished_at: Timestamp.nullable(),
  retry_of: z.string().nullable(),
  result: JobResult.nullable(),
  error: JobProblem.nullable(),
};

const QuantizeJob = z
  .object({
    ...STATE,
    type: z.literal("quantize"),
    model_id: z.string(),
    params: SENT_PARAMS,
    effective_params: QuantizeParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "QuantizeJob" });

const DistillJob = z
  .object({
    ...STATE,
    type: z.literal("distill"),
    model_id: z.string().meta({ description: "The uploaded student, or the teacher that the student is made from." }),
    params: SENT_PARAMS,
    effective_params: DistillParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "DistillJob" });

const PipelineJob = z
  .object({
    ...STATE,
    type: z.literal("pipeline"),
    model_id: z.string().meta({ description: "The model that the first step makes another of." }),
    params: SENT_PARAMS,
    effective_params: PipelineParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "PipelineJob" });

const EvaluateJob = z
  .object({
    ...STATE,
    type: z.literal("evaluate"),
    model_id: z
      .string()
      .meta({ description: "The first of the models, which is the reference; so is that of the result." }),
    params: SENT_PARAMS,
    effective_params: EvaluateParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "EvaluateJob" });

export const Job = z
  .discriminatedUnion("type", [QuantizeJob, DistillJob, PipelineJob, EvaluateJob])
  .meta({ id: "Job" });

const JobSummary = z
  .object({
    id: z.string(),
    object: z.literal("job"),
    type: JobType,
    method: z.string().meta({ description: "Of quantization, or the mode of a distillation." }),
    name: STATE.name,
    metadata: STATE.metadata,
    status: STATE.status,
    model_id: z.string(),
    priority: STATE.priority,
    progress: STATE.progress,
    queue_position: STATE.queue_position,
    attempt: STATE.attempt,
    created_at: STATE.created_at,
    started_at: STATE.started_at,
    finished_at: STATE.finished_at,
    retry_of: STATE.retry_of,
    result: z
      .object({ model_id: z.string(), accepted: z.boolean() })
      .meta({ id: "JobResultSummary", description: "The model that was made, and whether it is within `acceptance`." })
      .nullable(),
    error: STATE.error,
  })
  .meta({ id: "JobSummary", description: "What lists tell of a job; ask for the job to know more." });
export const JobPage = pageOf("JobPage", JobSummary);

export const JobEnded = z
  .object({
    type: z.enum(WEBHOOK_EVENTS),
    timestamp: Timestamp,
    data: z
      .object({
        id: z.string(),
        object: z.literal("job"),
        type: z.string(),
        status: JobStatus,
        name: z.string().nullable(),
        model_id: z.string(),
        result: z.object({ model_id: z.string(), accepted: z.boolean() }).meta({ id: "JobEndedResult" }).nullable(),
        error: JobProblem.nullable(),
      })
      .meta({ id: "JobEndedData" }),
  })
  .meta({ id: "JobEnded", description: "What a webhook says; ask for the job to know more." });

const WeightPlanSchema = z
  .object({
    name: z.string(),
    nodes: z.array(z.string()),
    bits: Count,
    signed: z.boolean(),
    symmetric: z.boolean(),
    granularity: z.enum(["tensor", "channel", "block"]),
    block_size: Count.nullable(),
    storage: z.string(),
  })
  .meta({ id: "WeightPlan", description: "How a weight is quantized, and the form that it has in the file." });

const ValuePlanSchema = z
  .object({ name: z.string(), dtype: z.enum(["uint8", "int8"]) })
  .meta({ id: "ValuePlan", description: "A value that is rounded while the model runs." });

const QuantizePlanSchema = z
  .object({
    type: z.literal("quantize"),
    method: z.string(),
    weights: z.array(WeightPlanSchema),
    values: z.array(ValuePlanSchema),
    quantized_nodes: z.array(NodeNote),
    skipped_nodes: z.array(NodeNote),
    size: z.object({ before_bytes: Bytes, predicted_bytes: Bytes, ratio: z.number() }).meta({ id: "PredictedSize" }),
    warnings: z.array(ResultWarning).meta({ description: "Those that are known before anything is computed." }),
  })
  .meta({ id: "QuantizePlan" });

const DistillPlanSchema = z
  .object({
    type: z.literal("distill"),
    teacher_parameters: Count.nullable(),
    student_parameters: Count,
    outputs: z.array(z.object({ teacher: z.string(), student: z.string() }).meta({ id: "PairedOutputs" })),
    training_samples: Count,
    validation_samples: Count,
    steps: Count.meta({ description: "Optimizer steps of one run; a baseline is a second run." }),
    networks: z
      .array(z.object({ name: z.string(), parameters: Count }).meta({ id: "PlannedNetwork" }))
      .meta({ description: "Those that are trained; of generations the first." }),
    exits: z.array(
      z.object({ name: z.string(), value: z.string(), macs_share: z.number() }).meta({ id: "PlannedExit" }),
    ),
  })
  .meta({ id: "DistillPlan" });

const PipelinePlanSchema = z
  .object({
    type: z.literal("pipeline"),
    steps: z.array(
      z
        .object({ name: z.string(), plan: z.discriminatedUnion("type", [QuantizePlanSchema, DistillPlanSchema]) })
        .meta({ id: "PlannedStep" }),
    ),
  })
  .meta({ id: "PipelinePlan" });

const EvaluatePlanSchema = z
  .object({
    type: z.literal("evaluate"),
    models: z.array(
      z.object({ model_id: z.string(), size_bytes: Bytes, parameters: Count }).meta({ id: "PlannedModel" }),
    ),
    loads: z
      .array(z.object({ batch_size: Count, threads: Count }).meta({ id: "PlannedLoad" }))
      .meta({ description: "What latency will be measured at." }),
  })
  .meta({ id: "EvaluatePlan" });

export const JobPlan = z
  .discriminatedUnion("type", [QuantizePlanSchema, DistillPlanSchema, PipelinePlanSchema, EvaluatePlanSchema])
  .meta({ id: "JobPlan", description: "What the job would do." });

export const JobEvent = z
  .object({
    id: z.int().meta({ description: "Counts from 1 within the job; there may be gaps." }),
    at: Timestamp,
    type: z.enum(["status", "progress", "log", "metric"]),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: "JobEvent" });
export const JobEventPage = pageOf("JobEventPage", JobEvent);

export const ListJobEventsQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100).meta({ description: "Of the JSON list." }),
  cursor: z
    .string()
    .regex(/^\d{1,15}$/, "must be a next_cursor, or the id of an event")
    .optional()
    .meta({ description: "Events after this id." }),
});

export const ListJobEventsHeaders = z.object({
  accept: z.string().optional(),
  "last-event-id": z
    .string()
    .regex(/^\d{0,15}$/, "must be the id of an event")
    .optional()
    .meta({ description: "Of the stream: events after this id." }),
});

/** Compiles only while the wire form has every field of what the library reports. */
type Covers<Wire extends Reported, Reported> = Wire;
export type WireMetrics = Covers<z.output<typeof JobMetricsSchema>, JobMetrics>;
export type WirePlan = Covers<z.output<typeof JobPlan>, Plan>;
