import { CoreError, checkCancelled } from "../errors.ts";
import { floatsOf, type Tensor } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import { type AugmentationSpec, augmentImages, checkAugmentable } from "./augment.ts";
import { applyUpdate, moveAverage, type OptimizerSpec } from "./optimizer.ts";
import { decays } from "./parameters.ts";
import { type EpochRecord, RunState } from "./run-state.ts";
import type { SampleBatch, Samples } from "./samples.ts";
import { learningRateAt, type ScheduleSpec } from "./schedule.ts";
import { batchFeeds, buildStepGraph, drawMask, type Objective, type StepGraph } from "./step-graph.ts";
import type { TrainableModel, TrainedValues } from "./trainable.ts";
import { createValidator, type ValidationMetric, type Validator } from "./validate.ts";

type Named = Readonly<Record<string, Tensor>>;

export interface TrainingSettings {
  readonly epochs: number;
  readonly batchSize: number;
  readonly optimizer: OptimizerSpec;
  readonly learningRate: number;
  readonly schedule: ScheduleSpec;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  /** Gradients are scaled down to this norm, taken over all parameters; null never. */
  readonly gradientClip: number | null;
  /** Decay of the moving average of the weights, which is then what is validated and exported; null for none. */
  readonly averageDecay: number | null;
  /** Random changes of the images of one input. */
  readonly augmentation: (AugmentationSpec & { readonly input: string }) | null;
  /** Stop after so many epochs without a better metric; null never. */
  readonly patience: number | null;
  readonly seed: number;
  readonly threads: number;
}

export interface TrainingTask {
  readonly trainable: TrainableModel;
  readonly objective: Objective;
  readonly training: Samples;
  /** Samples to judge each epoch by. Without them the last epoch's values are the result. */
  readonly validation?: Samples | undefined;
  readonly metric?: ValidationMetric | undefined;
  /** Targets that are computed from a batch as it is fed, after augmentation: a teacher's outputs. */
  readonly moreTargets?: ((feeds: Named) => Promise<Named>) | undefined;
}

export interface TrainingProgress {
  /** Epochs count from 1, steps from 1 within the epoch. */
  readonly epoch: number;
  readonly epochs: number;
  readonly step: number;
  readonly steps: number;
  /** Of the last step. */
  readonly loss: number;
  readonly learningRate: number;
  readonly samplesPerSecond: number;
  /** Part of the whole run that is done. */
  readonly fraction: number;
  readonly remainingSeconds: number;
}

export interface TrainingHooks {
  readonly openSession: OpenSession;
  readonly signal?: AbortSignal | undefined;
  /** Called several times a second at most. */
  readonly onProgress?: (progress: TrainingProgress) => void;
  readonly onEpoch?: (record: EpochRecord) => void;
  /** Stores the state of the run: after every epoch, and every `checkpointEveryMs` within one. */
  readonly saveCheckpoint?: (bytes: Uint8Array) => Promise<void>;
  readonly checkpointEveryMs?: number;
  /** What `saveCheckpoint` was last given: the run goes on from there, to the same result. */
  readonly resumeFrom?: Uint8Array | undefined;
}

export interface TrainingResult {
  readonly history: readonly EpochRecord[];
  /** The epoch whose values these are, counted from 1. */
  readonly bestEpoch: number;
  readonly bestMetric: number | null;
  readonly values: TrainedValues;
  /** Over all training steps, validation left out. */
  readonly samplesPerSecond: number;
}

const PROGRESS_EVERY_MS = 250;

/**
 * Trains a model: shuffled batches of one size (what is left over at the end of an epoch is left out; every epoch has another order), an
 * optimizer step each, validation after every epoch. The same arguments give the same result, bit for bit, on the same machine and number
 * of threads, whether the run was interrupted or not.
 *
 * Throws `non_finite` with step and tensor when a loss or gradient is not a finite number, `cancelled` between two steps, `unsupported`
 * or `invalid_params` before the first step.
 */
export async function train(
  task: TrainingTask,
  settings: TrainingSettings,
  hooks: TrainingHooks,
): Promise<TrainingResult> {
  const run = await openRun(task, settings, hooks);
  try {
    return await runEpochs(run);
  } finally {
    await run.session.close();
    await run.validator?.close();
  }
}

interface Run {
  readonly task: TrainingTask;
  readonly settings: TrainingSettings;
  readonly hooks: TrainingHooks;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
  readonly graph: StepGraph;
  readonly session: Session;
  readonly validator: Validator | undefined;
  readonly state: RunState;
}

async function openRun(task: TrainingTask, settings: TrainingSettings, hooks: TrainingHooks): Promise<Run> {
  const { trainable, training, metric, validation, moreTargets } = task;
  const { openSession } = hooks;
  const batchSize = Math.min(settings.batchSize, training.count);
  const first = await nextBatch(
    task,
    settings,
    0,
    Uint32Array.from({ length: batchSize }, (_, i) => i),
  );
  const graph = await buildStepGraph(trainable, {
    batch: first,
    objective: task.objective,
    seed: settings.seed,
    openSession,
  });
  const state = new RunState(graph.parameters, trainable.statistics, {
    optimizer: settings.optimizer,
    losses: 1 + graph.terms.length,
    averaged: settings.averageDecay !== null,
  });
  if (hooks.resumeFrom) state.restore(hooks.resumeFrom);
  const { threads } = settings;
  const validator =
    metric && validation
      ? await createValidator(trainable, { metric, batchSize, threads, openSession, moreTargets })
      : undefined;
  return {
    task,
    settings,
    hooks,
    batchSize,
    stepsPerEpoch: Math.floor(training.count / batchSize),
    graph,
    session: await openSession({ bytes: graph.model }, { threads }),
    validator,
    state,
  };
}

async function runEpochs(run: Run): Promise<TrainingResult> {
  const { settings, hooks, state } = run;
  const { position } = state;
  const clock = { progressAt: 0, checkpointAt: performance.now() };
  while (position.epoch < settings.epochs && !isStalled(run)) {
    await runEpoch(run, clock);
    await finishEpoch(run);
    await hooks.saveCheckpoint?.(state.encode());
    clock.checkpointAt = performance.now();
  }
  const { history, best } = position;
  const trainedSeconds = history.map(({ samples_per_second }) => 1 / samples_per_second);
  return {
    history,
    bestEpoch: best?.epoch ?? position.epoch,
    bestMetric: best?.metric ?? null,
    values: state.best,
    samplesPerSecond: history.length / trainedSeconds.reduce((sum, seconds) => sum + seconds, 0),
  };
}

/** Whether `patience` epochs have passed without a better one. */
function isStalled({ settings: { patience }, state: { position } }: Run): boolean {
  return patience !== null && position.best !== null && position.epoch - position.best.epoch >= patience;
}

async function runEpoch(run: Run, clock: { progressAt: number; checkpointAt: number }): Promise<void> {
  const { task, settings, hooks, state, batchSize, stepsPerEpoch } = run;
  const { position } = state;
  const order = new Random(settings.seed, `shuffle ${position.epoch}`).permutation(task.training.count);
  while (position.stepOfEpoch < stepsPerEpoch) {
    checkCancelled(hooks.signal);
    const started = performance.now();
    const from = position.stepOfEpoch * batchSize;
    const loss = await runStep(run, order.subarray(from, from + batchSize));
    const now = performance.now();
    position.seconds += (now - started) / 1000;
    if (now - clock.progressAt >= PROGRESS_EVERY_MS) {
      clock.progressAt = now;
      hooks.onProgress?.(progressOf(run, loss));
    }
    if (hooks.saveCheckpoint && now - clock.checkpointAt >= (hooks.checkpointEveryMs ?? Infinity)) {
      await hooks.saveCheckpoint(state.encode());
      clock.checkpointAt = performance.now();
    }
  }
}

/** One optimizer step; answers its loss. */
async function runStep(run: Run, indices: Uint32Array): Promise<number> {
  const { task, settings, graph, session, state, stepsPerEpoch } = run;
  const { position } = state;
  const batch = await nextBatch(task, settings, position.epoch, indices);
  const feeds: Record<string, Tensor> = { ...graph.feeds, ...batchFeeds(batch) };
  for (const mask of graph.masks) feeds[mask.input] = drawMask(mask, settings.seed, position.step);
  const results = await session.run(feeds);
  const scalar = (name: string) => floatsOf(results[name]!)[0]!;
  const losses = [scalar(graph.loss), ...graph.terms.map(({ output }) => scalar(output))];
  const norm = checkFinite(run, results, losses);

  const update = {
    learningRate: learningRateAt(settings.schedule, {
      learningRate: settings.learningRate,
      step: position.step,
      steps: stepsPerEpoch * settings.epochs,
      warmupSteps: settings.warmupSteps,
    }),
    step: position.step + 1,
    gradientScale: settings.gradientClip === null ? 1 : Math.min(1, settings.gradientClip / norm),
  };
  for (const [i, parameter] of graph.parameters.entries()) {
    const output = graph.gradients[i];
    if (output === undefined) continue;
    const weightDecay = decays(parameter) ? settings.weightDecay : 0;
    applyUpdate(settings.optimizer, parameter.data, floatsOf(results[output]!), state.slots[i]!, {
      ...update,
      weightDecay,
    });
  }
  for (const { running, mean, variance } of graph.batchStatistics) {
    moveAverage(running.mean, floatsOf(results[mean]!), running.momentum);
    moveAverage(running.variance, floatsOf(results[variance]!), running.momentum);
  }
  position.step++;
  position.stepOfEpoch++;
  if (settings.averageDecay !== null) state.average(settings.averageDecay);
  for (const [i, loss] of losses.entries()) position.lossSums[i]! += loss;
  return losses[0]!;
}

/** The norm of all gradients together. Throws `non_finite` with the step and the first tensor that is to blame. */
function checkFinite({ graph, state }: Run, results: Named, losses: readonly number[]): number {
  const squares = floatsOf(results[graph.squares]!);
  const total = squares.reduce((sum, square) => sum + square, 0);
  if (losses.every(Number.isFinite) && Number.isFinite(total)) return Math.sqrt(total);
  const trained = graph.parameters.filter((_, i) => graph.gradients[i] !== undefined);
  const bad = trained.find((_, i) => !Number.isFinite(squares[i]!));
  const term = graph.terms.find((_, i) => !Number.isFinite(losses[i + 1]!));
  const what = term ? `The loss "${term.name}"` : `The gradient of "${bad?.name}"`;
  throw new CoreError(
    "non_finite",
    `${what} is not a finite number at step ${state.position.step + 1}. A smaller learning rate or gradient clipping may help.`,
    term?.name ?? bad?.name,
  );
}

/** The samples at `indices`, augmented, with the targets that are computed from them. */
async function nextBatch(
  task: TrainingTask,
  settings: TrainingSettings,
  epoch: number,
  indices: Uint32Array,
): Promise<SampleBatch> {
  let { feeds, targets } = task.training.gather(indices);
  const { augmentation, seed } = settings;
  if (augmentation) {
    const images = feeds[augmentation.input];
    if (!images) {
      throw new CoreError(
        "invalid_params",
        `There is no input "${augmentation.input}" to augment.`,
        augmentation.input,
      );
    }
    checkAugmentable(augmentation.input, images);
    feeds = { ...feeds, [augmentation.input]: augmentImages(images, augmentation, { seed, epoch, samples: indices }) };
  }
  if (task.moreTargets) targets = { ...targets, ...(await task.moreTargets(feeds)) };
  return { feeds, targets };
}

/** Validates, keeps the values of the best epoch, and writes the epoch into the history. */
async function finishEpoch({
  task,
  settings,
  hooks,
  graph,
  validator,
  state,
  stepsPerEpoch,
  batchSize,
}: Run): Promise<void> {
  const { position } = state;
  const metric = validator ? await validator.evaluate(state.current, task.validation!, hooks.signal) : null;
  const [loss, ...terms] = position.lossSums.map((sum) => sum / stepsPerEpoch);
  const record: EpochRecord = {
    epoch: position.epoch + 1,
    loss: loss!,
    losses: Object.fromEntries(graph.terms.map(({ name }, i) => [name, terms[i]!])),
    validation_metric: metric,
    learning_rate: learningRateAt(settings.schedule, {
      learningRate: settings.learningRate,
      step: position.step - 1,
      steps: stepsPerEpoch * settings.epochs,
      warmupSteps: settings.warmupSteps,
    }),
    samples_per_second: (stepsPerEpoch * batchSize) / position.seconds,
  };
  position.history.push(record);
  position.epoch++;
  position.stepOfEpoch = 0;
  position.seconds = 0;
  position.lossSums.fill(0);
  if (metric !== null && isBetter(metric, position.best?.metric, task.metric!.better)) {
    position.best = { epoch: position.epoch, metric };
    state.keepBest();
  }
  hooks.onEpoch?.(record);
}

function isBetter(metric: number, best: number | undefined, better: "higher" | "lower"): boolean {
  if (best === undefined) return true;
  return better === "higher" ? metric > best : metric < best;
}

function progressOf({ settings, state: { position }, stepsPerEpoch, batchSize }: Run, loss: number): TrainingProgress {
  const total = stepsPerEpoch * settings.epochs;
  const secondsPerStep = position.seconds / position.stepOfEpoch;
  return {
    epoch: position.epoch + 1,
    epochs: settings.epochs,
    step: position.stepOfEpoch,
    steps: stepsPerEpoch,
    loss,
    learningRate: learningRateAt(settings.schedule, {
      learningRate: settings.learningRate,
      step: position.step - 1,
      steps: total,
      warmupSteps: settings.warmupSteps,
    }),
    samplesPerSecond: batchSize / secondsPerStep,
    fraction: position.step / total,
    remainingSeconds: secondsPerStep * (total - position.step),
  };
}
