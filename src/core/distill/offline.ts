import { CoreError, checkCancelled } from "../errors.ts";
import type { Model } from "../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor } from "../onnx/tensor.ts";
import { type TrainingHooks, type TrainingResult, type TrainingSettings, train } from "../train/loop.ts";
import { type Samples, splitSamples } from "../train/samples.ts";
import { buildStepGraph } from "../train/step-graph.ts";
import { createTrainable, exportTrained, type TrainableModel } from "../train/trainable.ts";
import { createValidator, type ValidationMetric } from "../train/validate.ts";
import {
  type DistillationLoss,
  distillationObjective,
  LABELS,
  outputTarget,
  pairOutputs,
  teacherValues,
} from "./objective.ts";
import { openTeacher, type Teacher, teacherOutputs, withTargets } from "./teacher.ts";

type Named = Readonly<Record<string, Tensor>>;

export interface OfflineDistillation {
  /** Null trains the student on labels alone. */
  readonly teacher: Model | null;
  readonly student: Model;
  /** Draw the student's weights anew instead of keeping the ones it came with. */
  readonly reinitialize: boolean;
  readonly loss: DistillationLoss;
  readonly training: TrainingSettings;
  /** What the models' inputs take; labels, if any, are the target `labels`. */
  readonly samples: Samples;
  /** Part of the samples that is held out to judge epochs by. */
  readonly validationSplit: number;
  /** Samples for the final numbers; those held out when there are none. */
  readonly evaluation?: Samples | undefined;
  /** How well outputs (by the student's names) fit the labels; undefined compares them with the teacher's. */
  readonly metric?: ValidationMetric | undefined;
  /** Also train the same student from the same start on the labels alone. */
  readonly baseline: boolean;
  /** Teacher outputs above this are computed anew for each batch instead of being kept. */
  readonly maxCacheBytes?: number;
}

export interface DistillationHooks extends Pick<TrainingHooks, "openSession" | "signal" | "checkpointEveryMs"> {
  /** `phase` is what is being done; `fraction` is the part of it that is done. */
  readonly onProgress?: (progress: {
    readonly phase: Phase;
    readonly fraction: number;
    readonly message: string;
  }) => void;
  readonly onEpoch?: (phase: Phase, record: TrainingResult["history"][number]) => void;
  /** As for `train`; the two runs have a checkpoint each. */
  readonly saveCheckpoint?: (phase: Phase, bytes: Uint8Array) => Promise<void>;
  readonly resumeFrom?: Readonly<Partial<Record<Phase, Uint8Array>>>;
}

export type Phase = "teach" | "distill" | "baseline";

export interface OfflineResult {
  readonly student: Model;
  readonly run: TrainingResult;
  readonly baseline: { readonly model: Model; readonly run: TrainingResult } | null;
  /** On `evaluation`, or on the held-out samples; null where nothing was held out. */
  readonly metrics: {
    readonly name: string;
    readonly samples: number;
    readonly teacher: number | null;
    readonly studentBefore: number;
    readonly studentAfter: number;
    readonly baseline: number | null;
  } | null;
}

const MAX_CACHE_BYTES = 2 ** 30;

/**
 * Trains a student on what a frozen teacher says (and on labels, where there are any). The teacher runs once over all samples and its
 * outputs are kept, unless augmentation changes what it sees or they would not fit.
 *
 * Throws what `train` throws, and `invalid_params` where teacher, student, losses and samples do not fit together.
 */
export async function distillOffline(spec: OfflineDistillation, hooks: DistillationHooks): Promise<OfflineResult> {
  const { loss, training: settings } = spec;
  const pairs = pairOutputs((spec.teacher ?? spec.student).graph.outputs, spec.student.graph.outputs, loss.outputs);
  checkLabels(spec);
  checkTeacher(spec);
  const trainable = createTrainable(spec.student, {
    watch: [...new Set(loss.hints.map(({ student }) => student))],
    ...(spec.reinitialize && { reinitializeSeed: settings.seed }),
  });
  const metric = spec.metric ?? agreementWith(loss, pairs[0]!);
  // Without labels to be judged by, the student is judged by the teacher's outputs, even if no loss reads them.
  const read = teacherValues(spec.metric ? loss : { ...loss, klWeight: 1 }, pairs);
  const { openSession } = hooks;
  const teacher =
    spec.teacher && read.length > 0
      ? await openTeacher(spec.teacher, read, { openSession, threads: settings.threads })
      : null;
  try {
    const { samples, moreTargets } = teacher ? await teach(spec, teacher, hooks) : { samples: spec.samples };
    const { training, validation } = splitSamples(samples, spec.validationSplit, settings.seed);
    const judged = spec.evaluation ?? validation;
    const judge: Judge = { samples: judged, metric, settings, teacher, hooks };
    const before = await judgeStudent(judge, trainable);
    const run = async (phase: Phase, own: TrainableModel, ownLoss: DistillationLoss): Promise<TrainingResult> =>
      train(
        {
          trainable: own,
          objective: distillationObjective(ownLoss, pairs),
          training,
          validation,
          metric,
          // On labels alone, and judged by them, a student has no use for the teacher.
          moreTargets: phase === "baseline" && !metric.readsComputedTargets ? undefined : moreTargets,
        },
        settings,
        {
          openSession,
          signal: hooks.signal,
          resumeFrom: hooks.resumeFrom?.[phase],
          ...(hooks.checkpointEveryMs !== undefined && { checkpointEveryMs: hooks.checkpointEveryMs }),
          ...(hooks.saveCheckpoint && { saveCheckpoint: (bytes) => hooks.saveCheckpoint!(phase, bytes) }),
          onProgress: (p) =>
            hooks.onProgress?.({
              phase,
              fraction: p.fraction,
              message: `epoch ${p.epoch} of ${p.epochs}, loss ${p.loss.toPrecision(4)}, ${Math.round(p.samplesPerSecond)} samples/s, ${Math.ceil(p.remainingSeconds)} s left`,
            }),
          onEpoch: (record) => hooks.onEpoch?.(phase, record),
        },
      );
    const result = await run("distill", trainable, loss);
    const after = await judgeStudent(judge, trainable, result);

    const plain = spec.baseline
      ? createTrainable(spec.student, spec.reinitialize ? { reinitializeSeed: settings.seed } : {})
      : undefined;
    const plainRun = plain && (await run("baseline", plain, { ...loss, klWeight: 0, hints: [], labelWeight: 1 }));
    const metrics =
      judged && before !== null && after !== null
        ? {
            name: metric.name,
            samples: judged.count,
            teacher: spec.teacher && (await judgeTeacher(judge, spec.teacher, pairs)),
            studentBefore: before,
            studentAfter: after,
            baseline: plain && plainRun ? await judgeStudent(judge, plain, plainRun) : null,
          }
        : null;
    return {
      student: exportTrained(trainable, result.values),
      run: result,
      baseline: plain && plainRun ? { model: exportTrained(plain, plainRun.values), run: plainRun } : null,
      metrics,
    };
  } finally {
    await teacher?.close();
  }
}

/**
 * Throws `invalid_params`, with the name and its path in the loss, where a hint names a value that teacher or student does not have, or
 * pairs values whose shapes cannot be compared: the step of a small batch is built, and not run.
 */
export async function checkHints(
  { teacher, student, loss, samples }: Pick<OfflineDistillation, "student" | "loss" | "samples"> & { teacher: Model },
  options: { readonly openSession: DistillationHooks["openSession"]; readonly threads: number },
): Promise<void> {
  const pairs = pairOutputs(teacher.graph.outputs, student.graph.outputs, loss.outputs);
  for (const [whose, model] of Object.entries({ teacher, student })) {
    const known = new Set(model.graph.nodes.flatMap(({ outputs }) => outputs.map(({ name }) => name)));
    for (const [i, hint] of loss.hints.entries()) {
      const name = hint[whose as "teacher" | "student"];
      if (known.has(name)) continue;
      throw new CoreError("invalid_params", `The ${whose} has no value "${name}".`, name, {
        path: ["hints", i, whose],
      });
    }
  }
  const trainable = createTrainable(student, { watch: loss.hints.map((hint) => hint.student) });
  const opened = await openTeacher(teacher, teacherValues(loss, pairs), options);
  try {
    const { feeds, targets } = samples.gather(Uint32Array.from({ length: Math.min(2, samples.count) }, (_, i) => i));
    await buildStepGraph(trainable, {
      batch: { feeds, targets: { ...targets, ...(await opened.run(feeds)) } },
      objective: distillationObjective(loss, pairs),
      seed: 0,
      openSession: options.openSession,
    });
  } finally {
    await opened.close();
  }
}

function checkTeacher({ teacher, loss, metric, baseline }: OfflineDistillation): void {
  if (teacher) return;
  const need =
    (loss.klWeight > 0 && "`kl_weight` must be 0") ||
    (loss.hints.length > 0 && "there can be no `hints`") ||
    (baseline && "there can be no `baseline`") ||
    (!metric && "there must be a metric of the labels");
  if (need) throw new CoreError("invalid_params", `There is no teacher: ${need}.`);
}

function checkLabels({ samples, loss, baseline }: OfflineDistillation): void {
  if (samples.gather([0]).targets[LABELS]) return;
  const need =
    (loss.labelWeight > 0 && "`label_weight` must be 0") ||
    (loss.outputLoss === "dkd" && loss.klWeight > 0 && "decoupled distillation is not possible") ||
    (baseline && "there can be no `baseline`");
  if (need) throw new CoreError("invalid_params", `The dataset has no labels: ${need}.`);
}

/** The samples with the teacher's values, or a way to compute these for each batch. */
async function teach(
  { samples, training, maxCacheBytes = MAX_CACHE_BYTES }: OfflineDistillation,
  teacher: Teacher,
  hooks: DistillationHooks,
): Promise<{ samples: Samples; moreTargets?: (feeds: Named) => Promise<Named> }> {
  const { batchSize, augmentation } = training;
  const one = await teacher.run(samples.gather([0]).feeds);
  const bytes = samples.count * Object.values(one).reduce((sum, { dims }) => sum + 4 * elementCount(dims), 0);
  if (bytes === 0) return { samples };
  if (augmentation || bytes > maxCacheBytes) return { samples, moreTargets: (feeds) => teacher.run(feeds) };
  const targets = await teacherOutputs(teacher, samples, {
    batchSize,
    signal: hooks.signal,
    onProgress: (fraction) =>
      hooks.onProgress?.({
        phase: "teach",
        fraction,
        message: `${Math.round(fraction * samples.count)} of ${samples.count} samples`,
      }),
  });
  return { samples: withTargets(samples, targets) };
}

/** What the final numbers are made of. */
interface Judge {
  readonly samples: Samples | undefined;
  readonly metric: ValidationMetric;
  readonly settings: TrainingSettings;
  readonly teacher: Teacher | null;
  readonly hooks: DistillationHooks;
}

/** The metric of the student as it is, or with the values of a run; null without samples. */
async function judgeStudent(
  { samples, metric, settings, teacher, hooks }: Judge,
  student: TrainableModel,
  run?: TrainingResult,
): Promise<number | null> {
  if (!samples) return null;
  const { batchSize, threads } = settings;
  const { openSession, signal } = hooks;
  const moreTargets = teacher ? (feeds: Named) => teacher.run(feeds) : undefined;
  const validator = await createValidator(student, { metric, batchSize, threads, openSession, moreTargets });
  try {
    return await validator.evaluate(run?.values ?? student, samples, signal);
  } finally {
    await validator.close();
  }
}

/** The same metric of the teacher, whose outputs stand in for the student's. */
async function judgeTeacher(
  { samples, metric, settings, teacher, hooks }: Judge,
  model: Model,
  pairs: ReturnType<typeof pairOutputs>,
): Promise<number> {
  const plain = pairs.map((pair) => ({ value: pair.teacher, target: pair.student, scores: false }));
  const { openSession, signal } = hooks;
  const session = await openTeacher(model, plain, { openSession, threads: settings.threads });
  try {
    let [sum, positions] = [0, 0];
    for (let start = 0; start < samples!.count; start += settings.batchSize) {
      checkCancelled(signal);
      const rows = Math.min(settings.batchSize, samples!.count - start);
      const { feeds, targets } = samples!.gather(Uint32Array.from({ length: rows }, (_, i) => start + i));
      const more = metric.readsComputedTargets && teacher ? await teacher.run(feeds) : {};
      const score = metric.score(await session.run(feeds), { ...targets, ...more });
      sum += score.sum;
      positions += score.positions;
    }
    return sum / positions;
  } finally {
    await session.close();
  }
}

/**
 * How well a student follows its teacher where nothing else is known: the share of rows with the same largest score, or the mean squared
 * error for outputs that are not scores.
 */
function agreementWith(
  { outputLoss }: DistillationLoss,
  pair: { readonly teacher: string; readonly student: string },
): ValidationMetric {
  const values = (outputs: Named, targets: Named) => {
    const student = outputs[pair.student]!;
    return { s: floatsOf(student), t: floatsOf(targets[outputTarget(pair.teacher)]!), width: student.dims.at(-1)! };
  };
  if (outputLoss === "kl" || outputLoss === "dkd") {
    return {
      name: "teacher_agreement",
      better: "higher",
      readsComputedTargets: true,
      score: (outputs, targets) => {
        const { s, t, width } = values(outputs, targets);
        let sum = 0;
        for (let start = 0; start < s.length; start += width)
          if (largest(s, start, width) === largest(t, start, width)) sum++;
        return { sum, positions: s.length / width };
      },
    };
  }
  return {
    name: "teacher_mse",
    better: "lower",
    readsComputedTargets: true,
    score: (outputs, targets) => {
      const { s, t } = values(outputs, targets);
      return { sum: s.reduce((sum, x, i) => sum + (x - t[i]!) ** 2, 0), positions: s.length };
    },
  };
}

function largest(values: Float32Array, start: number, width: number): number {
  let best = 0;
  for (let i = 1; i < width; i++) if (values[start + i]! > values[start + best]!) best = i;
  return best;
}
