import {
  asSimplified,
  checkObjective,
  type Exclusions,
  exclusionTest,
  type Model,
  type Note,
  type Provision,
  planOf,
  prepareQat,
  type QatModel,
  type QatOptions,
  type QatRuntime,
  Random,
  type TrainingMetrics,
  trainQat,
} from "../../../../core/index.ts";
import type { JobInputs, JobRequest } from "../../../../tasks/protocol.ts";
import { ignoredLabels } from "../../distill/labels.ts";
import { type DistillInputs, openDistillInputs } from "../../distill/run/distill-inputs.ts";
import { refuse, trainingHooks, trainingMetrics } from "../../distill/run/distill-job.ts";
import { lossOf, settingsOf } from "../../distill/run/distill-modes.ts";
import type { Compressed, JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext, JobSteps } from "../../run/job-steps.ts";
import { asDistillation, type QatSpec } from "../spec.ts";
import { TARGETS } from "../targets.ts";
import { rangeProvisions } from "./provisions.ts";
import { roundingOf } from "./rounded-job.ts";

/**
 * Quantizes a model and trains it with the rounding in it. Goes on from the request's checkpoints, to the same bytes. Throws `CoreError` as
 * distillation and static quantization do.
 */
export async function trainQatJob(
  request: JobRequest<QatSpec>,
  original: Model,
  exclude: Exclusions,
  environment: JobEnvironment,
  context: JobContext,
  steps: JobSteps<string>,
): Promise<Compressed> {
  const { spec, threads } = request;
  const distillation = asDistillation(spec);
  const { params } = distillation;
  const inputs = await steps.run("read", "Reading data", () =>
    openDistillInputs({ ...request, spec: distillation }, threads, environment, context),
  );
  const use = { most: spec.params.samples, threads, isPlan: false };
  const qat = await prepared(spec, original, exclude, inputs, environment, context, use, (step, fraction, message) =>
    steps.progress(step, fraction, message),
  );
  const trained = await steps.run("train", "Training with rounding", () =>
    trainQat(
      qat,
      {
        teacher: inputs.teacher?.model ?? null,
        loss: lossOf(distillation),
        training: settingsOf(params, threads),
        samples: inputs.samples,
        validationSplit: params.training.validation_split,
        evaluation: inputs.evaluation,
        metric: inputs.metric,
      },
      trainingHooks(request, params, environment, context, steps, () => "train"),
    ),
  );
  const training = trainingMetrics(trained.training);
  return {
    model: trained.model,
    notes: trained.notes,
    simplified: trained.prepared.map(asSimplified),
    reference: trained.float,
    plan: planOf(trained.notes),
    warnings: trained.helped ? [] : [startWarning(training)],
    judgement: {
      data: inputs.judgedBy,
      ignoreLabel: ignoredLabels(distillation).evaluation,
      warnings: inputs.warnings,
    },
    training: trained.helped ? training : asItStarted(training),
  };
}

/** That training gained nothing. */
function startWarning({ history }: TrainingMetrics): NonNullable<Compressed["warnings"]>[number] {
  const message = `None of ${history.length} epochs was better on the held-out samples than the model was before it was trained: that one, quantized and corrected, is the result.`;
  return { code: "training_gained_nothing", message, value: history.length };
}

/** What is told of a training whose start is the result. */
function asItStarted(training: TrainingMetrics): TrainingMetrics {
  const { student_before_metric, networks } = training;
  return {
    ...training,
    best_epoch: 0,
    student_metric: student_before_metric,
    networks: networks.map((network) => ({
      ...network,
      best_epoch: 0,
      validation_metric: null,
      metric: network.before_metric,
    })),
  };
}

/** Samples of the dataset that a plan reads. */
const PLANNED_SAMPLES = 8;

/**
 * The model that a job would make, quantized and not trained: of the same nodes and size. Throws `validation_failed` with the field at fault where
 * what is to be learned does not fit it.
 */
export async function planQatJob(
  request: JobInputs<QatSpec>,
  original: Model,
  exclude: Exclusions,
  environment: JobEnvironment,
  context: JobContext,
): Promise<{ readonly model: Model; readonly notes: readonly Note[]; readonly provisional: readonly Provision[] }> {
  const spec = asDistillation(request.spec);
  const inputs = await openDistillInputs({ ...request, spec }, 1, environment, context, {
    plan: { samples: PLANNED_SAMPLES },
  });
  const use = { most: PLANNED_SAMPLES, threads: 1, isPlan: true };
  const qat = await prepared(request.spec, original, exclude, inputs, environment, context, use);
  await checkObjective(
    {
      teacher: inputs.teacher?.model ?? null,
      student: qat.graph,
      takeApart: (watch) => qat.fakeQuantize(watch).trainable,
      loss: lossOf(spec),
      samples: inputs.samples,
      batchSize: spec.params.training.batch_size,
    },
    { openSession: environment.openSession, threads: 1 },
  ).catch((error) => refuse(error, spec.params));
  const { training, validation } = inputs.counts;
  const all = Math.min(request.spec.params.samples, training + validation);
  return {
    ...qat.finish(qat.fakeQuantize([]).finish()),
    provisional: rangeProvisions(PLANNED_SAMPLES, all, "samples"),
  };
}

/** Samples of one run of calibration at the most, and runs of which it is made where there are enough: corrections are judged by some, and made from others. */
const CALIBRATION_BATCH = 16;
const CALIBRATION_RUNS = 32;

/**
 * Calibrates on samples of the dataset in the order of the seed; those that are held out from training may be among them. A plan looks at few samples,
 * and makes no corrections.
 */
function prepared(
  { params }: QatSpec,
  original: Model,
  exclude: Exclusions,
  { samples }: DistillInputs,
  { host, openTemporary }: JobEnvironment,
  { signal }: JobContext,
  use: { readonly most: number; readonly threads: number; readonly isPlan: boolean },
  onProgress?: QatRuntime["onProgress"],
): Promise<QatModel> {
  const openModel = openTemporary;
  const { threads } = use;
  const count = Math.min(use.most, samples.count);
  const batch = Math.min(Math.max(Math.floor(count / CALIBRATION_RUNS), 1), CALIBRATION_BATCH);
  const target = TARGETS[params.target === "auto" ? host.target : params.target];
  const options: QatOptions = {
    bits: params.bits,
    algorithm: params.algorithm,
    method: params.calibration,
    percentile: params.percentile,
    activationDType: target.activations,
    reduceRange: target.reduceRange,
    isExcluded: exclusionTest(exclude),
    samples: Math.ceil(count / batch),
    corrections: !use.isPlan,
    rounding: use.isPlan ? undefined : roundingOf(params, { openModel, threads, signal }),
  };
  const order = new Random(params.seed, "calibration").permutation(samples.count).subarray(0, count);
  async function* batches(runs: number) {
    for (let start = 0; start < Math.min(runs * batch, count); start += batch) {
      yield samples.gather(order.subarray(start, start + batch)).feeds;
    }
  }
  return prepareQat(original, { batches }, options, { openModel, threads, signal, ...(onProgress && { onProgress }) });
}
