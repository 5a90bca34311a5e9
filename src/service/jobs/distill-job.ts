import {
  CoreError,
  checkObjective,
  type Distillation,
  type DistillationLoss,
  type DistillPlan,
  distillOffline,
  type Model,
  OPTIMIZERS,
  type PhaseHooks,
  parameterCount,
  SCHEDULES,
  type TrainingMetrics,
  type TrainingSettings,
} from "../../core/index.ts";
import { pointerOf } from "../errors.ts";
import { type JobInputs, type JobOutcome, type JobRequest, TaskError } from "../tasks.ts";
import { openDistillInputs } from "./distill-inputs.ts";
import { ignoredLabels } from "./distill-labels.ts";
import type { JobEnvironment } from "./job-environment.ts";
import { judgeResult } from "./job-result.ts";
import { createJobSteps, type JobContext, type JobSteps } from "./job-steps.ts";
import type { DistillSpec } from "./spec.ts";

type Params = DistillSpec["params"];

const STEP_STARTS = { load: 0, train: 0.02, write: 0.88, evaluate: 0.89, report: 0.99 } as const;

/** Within a long epoch; there is a checkpoint after each epoch as well. */
const CHECKPOINT_EVERY_MS = 30_000;

/**
 * Trains a student as the spec asks, with a teacher or on labels alone, writes it to the scratch directory, and judges it against the
 * teacher (or against the student as it was). Goes on from the request's checkpoints, to the same bytes.
 * Throws `CoreError`: `invalid_model`, `invalid_dataset`, `invalid_params`, `unsupported` and `non_finite` are the input's fault,
 * `cancelled` is the caller's.
 */
export async function runDistillJob(
  request: JobRequest<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec, scratch, threads } = request;
  const { params } = spec;
  const { files } = environment;
  const { signal } = context;
  const steps = createJobSteps(STEP_STARTS, context);

  const inputs = await steps.run("load", "Reading models and data", () =>
    openDistillInputs(request, threads, environment, context),
  );
  const { teacher, student, reference } = inputs;
  const nameOf = (phase: string) => (teacher ? phase : "train");
  const trained = await steps.run("train", "Training", () =>
    distillOffline(
      {
        teacher: teacher?.model ?? null,
        student,
        reinitialize: "model_id" in params.student && params.student.init === "reinitialize",
        loss: lossOf(spec),
        training: settingsOf(params, threads),
        samples: inputs.samples,
        validationSplit: params.training.validation_split,
        evaluation: inputs.evaluation,
        metric: inputs.metric,
        baseline: params.baseline,
      },
      trainingHooks(request, params, environment, context, steps, nameOf),
    ),
  );
  const written = await steps.run("write", "Writing the student", () =>
    files.writeModel(trained.student, scratch, "model.onnx", { signal }),
  );
  return judgeResult(
    request,
    {
      original: reference,
      model: trained.student,
      written,
      notes: [],
      simplified: [],
      data: inputs.judgedBy,
      ignoreLabel: ignoredLabels(spec).training,
      warnings: inputs.warnings,
      pairs: inputs.pairs.map((pair) => ({ before: pair.teacher, after: pair.student })),
      training: trainingMetrics(trained),
    },
    teacher ? "Comparing with the teacher" : "Comparing with before",
    environment,
    context,
    steps,
  );
}

/** How a run of training tells of itself and keeps its checkpoints; `nameOf` is what users know a phase by. */
export function trainingHooks(
  { checkpoints, scratch }: Pick<JobRequest, "checkpoints" | "scratch">,
  { training }: Pick<Params, "training">,
  { files, openSession }: JobEnvironment,
  { signal, news }: JobContext,
  steps: JobSteps<"train">,
  nameOf: (phase: string) => string,
): PhaseHooks {
  return {
    openSession,
    signal,
    checkpointEveryMs: CHECKPOINT_EVERY_MS,
    resumeFrom: Object.fromEntries(Object.entries(checkpoints).map(([phase, file]) => [phase, files.readBytes(file)])),
    async saveCheckpoint(phase, bytes) {
      const path = await files.writeCheckpoint(scratch, phase, bytes);
      // Undefined: the last one is still being stored. The work would only be done again from there.
      if (path !== undefined) news({ kind: "checkpoint", name: phase, path });
    },
    onProgress: ({ phase, fraction, message }) => steps.progress("train", fraction, `${nameOf(phase)}: ${message}`),
    onEpoch: (phase, record) =>
      news({ kind: "metric", data: { phase: nameOf(phase), epochs: training.epochs, ...record } }),
  };
}

/** Samples of a dataset that a plan reads: enough to derive a student from, and to run every model once. */
const PLANNED_SAMPLES = 64;

/**
 * Says what a job would train on what. Reads the models and some samples and derives the student's structure, but trains nothing.
 * Throws as `runDistillJob` does.
 */
export async function planDistillJob(
  request: JobInputs<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<DistillPlan> {
  const { training } = request.spec.params;
  const inputs = await openDistillInputs(request, 1, environment, context, { samples: PLANNED_SAMPLES });
  const { teacher, student, samples, pairs, counts } = inputs;
  const batchSize = Math.min(training.batch_size, counts.training);
  const learned = { teacher: teacher?.model ?? null, student, loss: lossOf(request.spec), samples, batchSize };
  await checkObjective(learned, { openSession: environment.openSession, threads: 1 }).catch(refuseObjective);
  return {
    teacher_parameters: teacher ? parameterCount(teacher.model) : null,
    student_parameters: parameterCount(student),
    outputs: pairs,
    training_samples: counts.training,
    validation_samples: counts.validation,
    steps: training.epochs * Math.floor(counts.training / Math.min(training.batch_size, counts.training)),
  };
}

/** The student before it is trained: a model of the structure that the job's result will have. */
export async function planStudent(
  request: JobInputs<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<Model> {
  return (await openDistillInputs(request, 1, environment, context, { samples: PLANNED_SAMPLES })).student;
}

/** What is wrong with a field of the loss, by where in it, or with one beside it. */
const REFUSAL_CODES: Readonly<Record<string, string>> = { hints: "invalid_hint", training: "batch_too_small" };

/** Says which field of the job a refusal is about. */
function refuseObjective(error: unknown): never {
  if (!(error instanceof CoreError) || error.path.length === 0) throw error;
  const { code, message, subject, path } = error;
  const pointer = pointerOf(path[0] === "training" ? "/params" : "/params/loss", path);
  const field = { pointer, code: REFUSAL_CODES[path[0]!] ?? "shape_mismatch", message };
  throw new TaskError({ code, message, ...(subject !== undefined && { subject }), fields: [field] }, { cause: error });
}

export function lossOf(spec: DistillSpec): DistillationLoss {
  const { loss } = spec.params;
  return {
    ignoreLabel: ignoredLabels(spec).training,
    temperature: loss.temperature,
    klWeight: loss.kl_weight,
    labelWeight: loss.label_weight,
    outputLoss: loss.output_loss,
    labelSmoothing: loss.label_smoothing,
    alpha: loss.alpha,
    beta: loss.beta,
    hints: loss.hints.map(({ heads, ...hint }) => (heads === undefined ? hint : { ...hint, heads })),
    ...(loss.outputs && { outputs: loss.outputs }),
  };
}

export function settingsOf({ training, seed }: Pick<Params, "training" | "seed">, threads: number): TrainingSettings {
  const { augmentation } = training;
  return {
    epochs: training.epochs,
    batchSize: training.batch_size,
    optimizer: OPTIMIZERS[training.optimizer],
    learningRate: training.learning_rate,
    schedule: SCHEDULES[training.schedule],
    warmupSteps: training.warmup_steps,
    weightDecay: training.weight_decay,
    gradientClip: training.gradient_clip,
    averageDecay: training.average_decay,
    augmentation: augmentation && {
      input: augmentation.input,
      flip: augmentation.flip,
      shiftPixels: augmentation.shift_pixels,
      cutoutPixels: augmentation.cutout_pixels,
      fill: augmentation.fill,
    },
    patience: training.patience,
    seed,
    threads,
  };
}

export function trainingMetrics({ run, baseline, metrics }: Distillation): TrainingMetrics {
  return {
    history: run.history,
    best_epoch: run.bestEpoch,
    metric: metrics?.name ?? null,
    metric_samples: metrics?.samples ?? 0,
    teacher_metric: metrics?.teacher ?? null,
    student_before_metric: metrics?.studentBefore ?? null,
    student_metric: metrics?.studentAfter ?? null,
    baseline_metric: metrics?.baseline ?? null,
    baseline_history: baseline?.run.history ?? null,
    samples_per_second: run.samplesPerSecond,
  };
}
