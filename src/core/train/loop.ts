import { CoreError, checkCancelled } from "../errors.ts";
import { floatsOf } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { OpenSession } from "../runtime/session.ts";
import { augmentImages, checkAugmentable } from "./augment.ts";
import { decays } from "./parameters.ts";
import { movingAverage, roundedUpdates } from "./rewrites.ts";
import { type EpochRecord, type RunNetwork, RunState } from "./run-state.ts";
import type { SampleBatch } from "./samples.ts";
import { learningRateAt } from "./schedule.ts";
import { batchFeeds, buildStepGraph, STEP_REWRITES, type StepGraph, type StepParameter } from "./step-graph.ts";
import type { StepNetwork } from "./step-networks.ts";
import { openStep, type StepRunner } from "./step-runner.ts";
import { averageOf, type TrainableModel } from "./trainable.ts";
import type {
  Named,
  NetworkResult,
  NetworksResult,
  NetworksTask,
  TrainingHooks,
  TrainingProgress,
  TrainingResult,
  TrainingSettings,
  TrainingTask,
} from "./training-task.ts";
import { UpdateThreads } from "./update-threads.ts";
import { createValidator, type Validator } from "./validate.ts";

const PROGRESS_EVERY_MS = 250;

/** Trains a network alone; see `trainNetworks`. */
export async function train(
  { trainable, objective, metric, ...task }: TrainingTask,
  settings: TrainingSettings,
  hooks: TrainingHooks,
): Promise<TrainingResult> {
  const networks = [{ prefix: "", trainable, metric }];
  const result = await trainNetworks({ ...task, networks, updates: [{ trains: [""], objective }] }, settings, hooks);
  return { ...result.networks[""]!, samplesPerSecond: result.samplesPerSecond };
}

/**
 * Trains networks together: shuffled batches of one size (what is left over at the end of an epoch is left out; every epoch has another
 * order), an optimizer step for each network and batch, validation of all after every epoch. The same arguments give the same result, bit
 * for bit, on the same machine and number of threads, whether the run was interrupted or not.
 *
 * Throws `non_finite` with step and tensor when a loss or gradient is not a finite number, `cancelled` between two steps, `unsupported`
 * or `invalid_params` before the first step.
 */
export async function trainNetworks(
  task: NetworksTask,
  settings: TrainingSettings,
  hooks: TrainingHooks,
): Promise<NetworksResult> {
  const run = await openRun(task, settings, hooks);
  try {
    return await runEpochs(run);
  } finally {
    await run.optimizer.close();
    for (const { runner } of run.updates) await runner.close();
    for (const validator of run.validators.values()) await validator.close();
  }
}

interface Update {
  readonly graph: StepGraph;
  readonly runner: StepRunner;
}

interface Run {
  readonly task: NetworksTask;
  readonly settings: TrainingSettings;
  readonly hooks: TrainingHooks;
  readonly batchSize: number;
  readonly stepsPerEpoch: number;
  readonly networks: readonly RunNetwork[];
  readonly updates: readonly Update[];
  readonly optimizer: UpdateThreads;
  /** By prefix. */
  readonly validators: ReadonlyMap<string, Validator>;
  readonly state: RunState;
}

async function openRun(task: NetworksTask, settings: TrainingSettings, hooks: TrainingHooks): Promise<Run> {
  const { training } = task;
  const { openSession } = hooks;
  const { averageDecay, updateRounding, threads, seed } = settings;
  const batchSize = Math.min(settings.batchSize, training.count);
  const networks = task.networks.map(({ prefix, trainable }) => ({
    prefix,
    trainable,
    averages: averageDecay === null ? undefined : averageOf(trainable),
  }));
  const stepNetworks = networksOfStep(task, networks);
  const batch = await nextBatch(
    task,
    settings,
    0,
    Uint32Array.from({ length: batchSize }, (_, i) => i),
  );
  const averages = new Map(networks.map((network) => [network.trainable, network.averages?.parameters]));
  const rewrites = [
    ...(task.rewrites ?? STEP_REWRITES),
    ...(updateRounding ? [roundedUpdates(updateRounding)] : []),
    ...(averageDecay === null ? [] : [movingAverage(averageDecay, ({ trainable }) => averages.get(trainable))]),
  ];
  const updates: Update[] = [];
  for (const { trains, objective } of task.updates) {
    const own = stepNetworks.map((network) => ({ ...network, trained: trains.includes(network.prefix) }));
    const rebuild = (part: SampleBatch, of: number) =>
      buildStepGraph(own, { batch: part, objective, rewrites, seed, threads: of, openSession });
    const graph = await rebuild(batch, threads);
    updates.push({ graph, runner: await openStep(graph, { threads, openSession, batch, rebuild }) });
  }
  const state = new RunState(
    networks,
    updates.flatMap(({ graph }) => graph.lossParameters),
    { optimizer: settings.optimizer, terms: updates.map(({ graph }) => graph.terms.length) },
  );
  if (hooks.resumeFrom) state.restore(hooks.resumeFrom);
  return {
    task,
    settings,
    hooks,
    batchSize,
    stepsPerEpoch: Math.floor(training.count / batchSize),
    networks: state.networks,
    updates,
    optimizer: new UpdateThreads(settings.optimizer, threads, [
      ...new Set(updates.flatMap(({ graph }) => graph.parameters.map(({ parameter }) => parameter))),
    ]),
    validators: await openValidators(task, { batchSize, threads, openSession }),
    state,
  };
}

/** All networks that a step computes. */
function networksOfStep(
  { networks, follower }: NetworksTask,
  averaged: readonly { readonly prefix: string; readonly averages: TrainableModel | undefined }[],
): readonly Omit<StepNetwork, "trained">[] {
  if (!follower) return networks;
  const followed = averaged.find(({ prefix }) => prefix === follower.of)?.averages;
  if (!followed) throw new CoreError("invalid_params", "Without `average_decay` there is no average that could teach.");
  return [...networks, { prefix: follower.prefix, trainable: followed, ownInputs: true }];
}

async function openValidators(
  { networks, validation, moreTargets }: NetworksTask,
  options: { readonly batchSize: number; readonly threads: number; readonly openSession: OpenSession },
): Promise<ReadonlyMap<string, Validator>> {
  const opened = new Map<string, Validator>();
  for (const { prefix, trainable, metric } of validation ? networks : []) {
    if (metric) opened.set(prefix, await createValidator(trainable, { metric, moreTargets, ...options }));
  }
  return opened;
}

async function runEpochs(run: Run): Promise<NetworksResult> {
  const { settings, hooks, state, networks } = run;
  const { position } = state;
  const clock = { progressAt: 0, checkpointAt: performance.now() };
  while (position.epoch < settings.epochs && !isStalled(run)) {
    await runEpoch(run, clock);
    await finishEpoch(run);
    await hooks.saveCheckpoint?.(state.encode());
    clock.checkpointAt = performance.now();
  }
  const results = networks.map((network): [string, NetworkResult] => {
    const { history, best } = position.networks[network.prefix]!;
    const bestEpoch = best?.epoch ?? position.epoch;
    return [network.prefix, { history, bestEpoch, bestMetric: best?.metric ?? null, values: state.best(network) }];
  });
  const { history } = position.networks[networks[0]!.prefix]!;
  const seconds = history.reduce((sum, { samples_per_second }) => sum + 1 / samples_per_second, 0);
  return { networks: Object.fromEntries(results), samplesPerSecond: history.length / seconds };
}

/** Whether `patience` epochs have passed without a better one of any network. */
function isStalled({ settings: { patience }, state: { position } }: Run): boolean {
  if (patience === null) return false;
  const known = Object.values(position.networks);
  return known.every(({ best }) => best !== null && position.epoch - best.epoch >= patience);
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

/** One step of every update; answers the sum of their losses. */
async function runStep(run: Run, indices: Uint32Array): Promise<number> {
  const { task, settings, updates, state } = run;
  const { position } = state;
  const feeds = batchFeeds(await nextBatch(task, settings, position.epoch, indices));
  const learningRate = learningRateOf(run, position.step);
  let total = 0;
  for (const [u, update] of updates.entries()) {
    const { graph } = update;
    const results = await update.runner.run(
      Object.assign({ ...graph.feeds, ...feeds }, ...graph.parts.map((part) => part.feeds?.(position.step))),
    );
    const scalar = (name: string) => floatsOf(results[name]!)[0]!;
    const losses = graph.terms.map(({ output }) => scalar(output));
    const loss = scalar(graph.loss);
    applyGradients(run, update, results, { losses: [loss, ...losses], learningRate });
    for (const { after, outputs } of graph.parts) {
      after?.(
        outputs.map((name) => results[name]!),
        position.step + 1,
      );
    }
    for (const [i, value] of losses.entries()) position.termSums[u]![i]! += value;
    total += loss;
  }
  position.step++;
  position.stepOfEpoch++;
  return total;
}

function applyGradients(
  { settings, state, optimizer }: Run,
  { graph }: Update,
  results: Named,
  { losses, learningRate }: { readonly losses: readonly number[]; readonly learningRate: number },
): void {
  const squares = squaresOf(graph, results, losses, state.position.step);
  const norms = new Map<StepNetwork, number>();
  for (const [{ network }, square] of squares) norms.set(network, (norms.get(network) ?? 0) + square);
  const scaleOf = (network: StepNetwork) =>
    settings.gradientClip === null ? 1 : Math.min(1, settings.gradientClip / Math.sqrt(norms.get(network)!));
  const moves = squares.map(([{ parameter, network, gradient }]) => ({
    parameter,
    gradient: floatsOf(results[gradient!]!),
    update: {
      learningRate,
      step: state.position.step + 1,
      gradientScale: scaleOf(network),
      weightDecay: decays(parameter) ? settings.weightDecay : 0,
    },
  }));
  optimizer.apply(moves);
}

/** Σ g² of each parameter that has a gradient. Throws `non_finite` with the step and the first tensor that is to blame. */
function squaresOf(
  graph: StepGraph,
  results: Named,
  losses: readonly number[],
  step: number,
): readonly (readonly [StepParameter, number])[] {
  const squares = floatsOf(results[graph.squares]!);
  const learned = graph.parameters.filter(({ gradient }) => gradient !== undefined);
  const total = squares.reduce((sum, square) => sum + square, 0);
  if (losses.every(Number.isFinite) && Number.isFinite(total)) return learned.map((it, i) => [it, squares[i]!]);
  const bad = learned.find((_, i) => !Number.isFinite(squares[i]!));
  const term = graph.terms.find((_, i) => !Number.isFinite(losses[i + 1]!));
  const what = term ? `The loss "${term.name}"` : `The gradient of "${bad?.name}"`;
  throw new CoreError(
    "non_finite",
    `${what} is not a finite number at step ${step + 1}. A smaller learning rate or gradient clipping may help.`,
    term?.name ?? bad?.name,
  );
}

/** The samples at `indices`, augmented, with the targets that are computed from them. */
async function nextBatch(
  task: NetworksTask,
  settings: TrainingSettings,
  epoch: number,
  indices: Uint32Array,
): Promise<SampleBatch> {
  const { feeds: plain, targets } = task.training.gather(indices);
  const feeds = augmented(plain, settings, epoch, indices, "");
  const more = task.moreTargets ? await task.moreTargets(feeds) : {};
  const { follower } = task;
  const own = follower
    ? Object.entries(augmented(plain, settings, epoch, indices, follower.prefix)).map(([name, value]) => [
        follower.prefix + name,
        value,
      ])
    : [];
  return { feeds: { ...feeds, ...Object.fromEntries(own) }, targets: { ...targets, ...more } };
}

/** `stream` tells draws apart that are made for the same samples. */
function augmented(
  feeds: Named,
  { augmentation, seed }: TrainingSettings,
  epoch: number,
  samples: Uint32Array,
  stream: string,
): Named {
  if (!augmentation) return feeds;
  const { input } = augmentation;
  const images = feeds[input];
  if (!images) throw new CoreError("invalid_params", `There is no input "${input}" to augment.`, input);
  checkAugmentable(input, images);
  return { ...feeds, [input]: augmentImages(images, augmentation, { seed, epoch, samples, stream }) };
}

/** Validates each network, keeps the values of its best epoch, and writes the epoch into its history. */
async function finishEpoch(run: Run): Promise<void> {
  const { task, hooks, networks, validators, state, stepsPerEpoch, batchSize } = run;
  const { position } = state;
  const learningRate = learningRateOf(run, position.step - 1);
  for (const network of networks) {
    const { prefix } = network;
    const metric =
      (await validators.get(prefix)?.evaluate(state.current(network), task.validation!, hooks.signal)) ?? null;
    const record: EpochRecord = {
      epoch: position.epoch + 1,
      ...lossesOf(run, prefix),
      validation_metric: metric,
      learning_rate: learningRate,
      samples_per_second: (stepsPerEpoch * batchSize) / position.seconds,
    };
    const known = position.networks[prefix]!;
    known.history.push(record);
    const { better } = task.networks.find((it) => it.prefix === prefix)?.metric ?? {};
    if (metric !== null && better && isBetter(metric, known.best?.metric, better)) {
      known.best = { epoch: record.epoch, metric };
      state.keepBest(network);
    }
    hooks.onEpoch?.(record, prefix);
  }
  position.epoch++;
  position.stepOfEpoch = 0;
  position.seconds = 0;
  for (const sums of position.termSums) sums.fill(0);
}

/** The mean losses of the epoch's steps, as far as they are a network's. */
function lossesOf(
  { updates, state: { position }, stepsPerEpoch }: Run,
  prefix: string,
): Pick<EpochRecord, "loss" | "losses"> {
  const losses: Record<string, number> = {};
  let loss = 0;
  for (const [u, { graph }] of updates.entries()) {
    if (!graph.parameters.some(({ network }) => network.prefix === prefix)) continue;
    for (const [i, { name, weight, network = prefix }] of graph.terms.entries()) {
      if (network !== prefix) continue;
      const mean = position.termSums[u]![i]! / stepsPerEpoch;
      losses[name] = mean;
      loss += weight * mean;
    }
  }
  return { loss, losses };
}

function isBetter(metric: number, best: number | undefined, better: "higher" | "lower"): boolean {
  if (best === undefined) return true;
  return better === "higher" ? metric > best : metric < best;
}

function learningRateOf({ settings, stepsPerEpoch }: Run, step: number): number {
  const { schedule, learningRate, epochs, warmupSteps } = settings;
  return learningRateAt(schedule, { learningRate, step, steps: stepsPerEpoch * epochs, warmupSteps });
}

function progressOf(run: Run, loss: number): TrainingProgress {
  const { settings, stepsPerEpoch, batchSize } = run;
  const { position } = run.state;
  const total = stepsPerEpoch * settings.epochs;
  const secondsPerStep = position.seconds / position.stepOfEpoch;
  return {
    epoch: position.epoch + 1,
    epochs: settings.epochs,
    step: position.stepOfEpoch,
    steps: stepsPerEpoch,
    loss,
    learningRate: learningRateOf(run, position.step - 1),
    samplesPerSecond: batchSize / secondsPerStep,
    fraction: position.step / total,
    remainingSeconds: secondsPerStep * (total - position.step),
  };
}
