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
  const inputs = await steps.run("prepare", "Reading data and calibrating", () =>
    openDistillInputs({ ...request, spec: distillation }, threads, environment, context),
  );
  const qat = await prepared(spec, original, exclude, inputs, spec.params.samples, environment, context);
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
  if (!trained.helped) {
    const message =
      "No epoch was better than the quantized model was before training, on the samples that were held out: that one is the result.";
    context.news({ kind: "log", level: "warn", message });
  }
  const training = trainingMetrics(trained.training);
  return {
    model: trained.model,
    notes: trained.notes,
    simplified: trained.prepared.map(asSimplified),
    reference: trained.float,
    plan: planOf(trained.notes),
    judgement: {
      data: inputs.judgedBy,
      ignoreLabel: ignoredLabels(distillation).evaluation,
      warnings: inputs.warnings,
    },
    training: trained.helped ? training : asItStarted(training),
  };
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
  const qat = await prepared(request.spec, original, exclude, inputs, PLANNED_SAMPLES, environment, context);
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
  const all = Math.min(request.spec.params.samples, inputs.samples.count);
  return { ...qat.finish(qat.fakeQuantize([]).finish()), provisional: rangeProvisions(PLANNED_SAMPLES, all) };
}

/** Samples of one run of calibration. */
const CALIBRATION_BATCH = 16;

/** Calibrates on the first samples of the dataset; those that are held out from training may be among them. */
function prepared(
  { params }: QatSpec,
  original: Model,
  exclude: Exclusions,
  { samples }: DistillInputs,
  most: number,
  { host, openTemporary }: JobEnvironment,
  { signal }: JobContext,
): Promise<QatModel> {
  const target = TARGETS[params.target === "auto" ? host.target : params.target];
  const options: QatOptions = {
    bits: params.bits,
    algorithm: params.algorithm,
    method: params.calibration,
    percentile: params.percentile,
    activationDType: target.activations,
    reduceRange: target.reduceRange,
    isExcluded: exclusionTest(exclude),
  };
  const count = Math.min(most, samples.count);
  async function* batches() {
    for (let start = 0; start < count; start += CALIBRATION_BATCH) {
      const length = Math.min(CALIBRATION_BATCH, count - start);
      yield samples.gather(Uint32Array.from({ length }, (_, i) => start + i)).feeds;
    }
  }
  return prepareQat(original, batches, options, { openModel: openTemporary, signal });
}
