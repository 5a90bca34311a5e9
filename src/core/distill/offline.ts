/**
 * Offline distillation: a student learns from a teacher that does not change, and from labels where there are any; the baseline is the same
 * student from the same start on the labels alone.
 */
import { CoreError } from "../errors.ts";
import { didYouMean, nearestNames } from "../nearest-names.ts";
import type { Model } from "../onnx/ir.ts";
import type { OpenSession } from "../runtime/session.ts";
import { type Phase, type PhaseHooks, runPhases } from "../train/phases.ts";
import { type Samples, splitSamples } from "../train/samples.ts";
import { buildStepGraph, soloNetwork } from "../train/step-graph.ts";
import { createTrainable, exportTrained, type TrainableModel } from "../train/trainable.ts";
import type { TrainingResult, TrainingSettings } from "../train/training-task.ts";
import type { ValidationMetric } from "../train/validate.ts";
import { comparedOutputs } from "./compared-outputs.ts";
import { type Distillation, finalNumbers } from "./distillation.ts";
import { agreementWith, type Judge, judgeNetwork, judgeTeacher } from "./judge.ts";
import { type DistillationLoss, distillationObjective, LABELS, teacherValues } from "./objective.ts";
import { type KeptOutputs, openTeacher, teachSamples } from "./teacher.ts";

export interface OfflineDistillation {
  /** Null trains the student on labels alone. */
  readonly teacher: Model | null;
  readonly student: Model;
  /** How it is taken apart for training, where that is not `createTrainable`'s way; losses read the values `watch`. */
  readonly takeApart?: (watch: readonly string[]) => TrainableModel;
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
  /** What other runs have kept of the same teacher. */
  readonly kept?: KeptOutputs | undefined;
}

/**
 * Trains a student on what a frozen teacher says (and on labels, where there are any). The teacher runs once over all samples and its
 * outputs are kept, unless augmentation changes what it sees or they would not fit.
 *
 * Throws what `trainNetworks` throws, and `invalid_params` where teacher, student, losses and samples do not fit together.
 */
export async function distillOffline(spec: OfflineDistillation, hooks: PhaseHooks): Promise<Distillation> {
  const { loss, training: settings } = spec;
  const { openSession, signal } = hooks;
  const { threads, batchSize, seed } = settings;
  const pairs = comparedOutputs(spec.teacher ?? spec.student, spec.student, loss);
  checkLabels(spec);
  checkTeacher(spec);
  const start = (watch: readonly string[]) =>
    spec.takeApart?.(watch) ??
    createTrainable(spec.student, { watch, ...(spec.reinitialize && { reinitializeSeed: seed }) });
  const student = start([...new Set(loss.hints.map((hint) => hint.student))]);
  const metric = spec.metric ?? agreementWith(pairs[0]!);
  // Without labels to be judged by, the student is judged by the teacher's outputs, even if no loss reads them.
  const read = teacherValues(spec.metric ? loss : { ...loss, klWeight: 1 }, pairs);
  const teacher =
    spec.teacher && read.length > 0 ? await openTeacher(spec.teacher, read, { openSession, threads }) : null;
  try {
    const { maxCacheBytes, kept } = spec;
    const taught = teachSamples(teacher, spec.samples, { settings, maxCacheBytes, kept, signal });
    const held = splitSamples(spec.samples, spec.validationSplit, seed).validation;
    const judge: Judge = {
      ...{ samples: spec.evaluation ?? held, metric, batchSize, threads, openSession, signal, teacher },
    };
    const before = await judgeNetwork(judge, student);
    const phase = (name: string, trainable: TrainableModel, own: DistillationLoss, needsTeacher: boolean): Phase => ({
      name,
      share: 1,
      async prepare(_done, progress) {
        const { samples, moreTargets } = await taught(progress);
        return {
          networks: [{ prefix: "", trainable, metric }],
          updates: [{ trains: [""], objective: distillationObjective(own, pairs) }],
          ...splitSamples(samples, spec.validationSplit, seed),
          moreTargets: needsTeacher ? moreTargets : undefined,
        };
      },
    });
    const onLabels = { ...loss, klWeight: 0, hints: [], labelWeight: 1 };
    const baseline = spec.baseline ? start([]) : undefined;
    const done = await runPhases(
      [
        phase("distill", student, loss, true),
        // On labels alone, and judged by them, a student has no use for the teacher.
        ...(baseline ? [phase("baseline", baseline, onLabels, metric.readsComputedTargets === true)] : []),
      ],
      settings,
      hooks,
    );
    const runOf = (name: string): TrainingResult => {
      const { networks, samplesPerSecond } = done.get(name)!;
      return { ...networks[""]!, samplesPerSecond };
    };
    const run = runOf("distill");
    const after = await judgeNetwork(judge, student, run.values);
    const plain = baseline && { network: baseline, run: runOf("baseline") };
    const model = exportTrained(student, run.values);
    return {
      student: model,
      run,
      networks: [{ name: "student", model, run, before, metric: after }],
      chosen: "student",
      ensemble: null,
      baseline: plain ? { model: exportTrained(plain.network, plain.run.values), run: plain.run } : null,
      metrics: finalNumbers(judge, {
        teacher: spec.teacher && (await judgeTeacher(judge, spec.teacher, pairs)),
        ...{ before, after },
        baseline: plain ? await judgeNetwork(judge, plain.network, plain.run.values) : null,
      }),
    };
  } finally {
    await teacher?.close();
  }
}

/**
 * Throws `invalid_params`, with the name and its path in the loss, where a hint names a value that teacher or student does not have, or
 * where outputs, labels or hinted values have shapes that cannot be compared, or a batch of `batchSize` is too small for its statistics: the step of a small batch is built, and not run. Throws
 * `unsupported` where the student cannot be trained.
 */
export async function checkObjective(
  {
    teacher,
    student,
    takeApart,
    loss,
    samples,
    batchSize,
  }: Pick<OfflineDistillation, "teacher" | "student" | "takeApart" | "loss" | "samples"> & {
    readonly batchSize: number;
  },
  options: { readonly openSession: OpenSession; readonly threads: number },
): Promise<void> {
  const pairs = comparedOutputs(teacher ?? student, student, loss);
  for (const [whose, model] of Object.entries({ ...(teacher && { teacher }), student })) {
    const known = new Set(model.graph.nodes.flatMap(({ outputs }) => outputs.map(({ name }) => name)));
    for (const [i, hint] of loss.hints.entries()) {
      const name = hint[whose as "teacher" | "student"];
      if (known.has(name)) continue;
      const nearest = didYouMean(nearestNames(name, known));
      throw new CoreError("invalid_params", `The ${whose} has no value ${JSON.stringify(name)}.${nearest}`, name, {
        path: ["hints", i, whose],
      });
    }
  }
  const watch = [...new Set(loss.hints.map((hint) => hint.student))];
  const trainable = takeApart?.(watch) ?? createTrainable(student, { watch });
  const read = teacherValues(loss, pairs);
  const opened = teacher && read.length > 0 ? await openTeacher(teacher, read, options) : null;
  try {
    const { feeds, targets } = samples.gather(
      Uint32Array.from({ length: Math.min(2, batchSize, samples.count) }, (_, i) => i),
    );
    await buildStepGraph([soloNetwork(trainable)], {
      batch: { feeds, targets: { ...targets, ...(await opened?.run(feeds)) } },
      objective: distillationObjective(loss, pairs),
      seed: 0,
      openSession: options.openSession,
    });
  } finally {
    await opened?.close();
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
