/**
 * Where 8 bits are slower than float on the machine at hand. Both models are profiled, the cheapest division is computed from what kernels take, and
 * then timed against the alternatives: what is predicted is not taken on trust.
 */
import { checkCancelled } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import { type KernelTime, type ProfileModel, readKernelProfile } from "../../runtime/kernel-profile.ts";
import { type Contestant, speedupInterval, timeInTurns, timingOf } from "../../runtime/latency.ts";
import type { Session } from "../../runtime/session.ts";
import type { CostTable } from "../../targets/cost-tables.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";
import type { Calibration } from "./calibration.ts";
import {
  costsOfUnits,
  emptyBook,
  type KernelBook,
  type KernelSetting,
  type KernelVerdict,
  type MeasuredKernels,
  modelKey,
} from "./kernel-book.ts";
import { type ElementsOf, type KernelCosts, placementCost, type UnitCost } from "./kernel-cost.ts";
import { type MeasuredCosts, measuredCosts, type ProfiledModel, readProfiles } from "./measured-costs.ts";
import type { Placement } from "./placement.ts";
import {
  elementsIn,
  placeEverywhere,
  quantizeStatic,
  SLOWER,
  type SlowerKernels,
  type StaticOptions,
  slowerNodes,
} from "./quantize-static.ts";
import type { FloatNode } from "./storage.ts";
import type { Unit } from "./units.ts";

export interface KernelRuntime extends CalibrateOptions {
  readonly profile: ProfileModel;
  /** Threads that latency counts at. */
  readonly latencyThreads: number;
  /** What this thread computes, in milliseconds: models of one thread are timed by it where it is given. */
  readonly threadClock?: (() => number) | undefined;
  /** What kernels of this kind of processor usually take. */
  readonly table: CostTable;
  /** What was measured on this kind of machine before. */
  readonly book?: KernelBook | undefined;
  /** Times models: so many milliseconds of each as of every other. In turns, unless given. */
  readonly time?: (contestants: readonly Contestant[]) => Promise<readonly (readonly number[])[]>;
}

export interface FasterKernels {
  /** What static quantization is to keep to. */
  readonly slower: SlowerKernels;
  /** What each layer takes, by the name of its node; empty where profiles do not tell. */
  readonly layers: readonly (UnitCost & { readonly name: string })[];
  readonly facts: MeasuredKernels;
  /** Whether all of it was in the book. */
  readonly known: boolean;
}

/** Rounds in which models are timed against each other, and for how long at most; fewer where they tell. Every so many it is asked whether they do. */
const ROUNDS = 61;
const LEAST_ROUNDS = 5;
/** As many do where every run of one is so much faster than every run of the other. */
const FEW_ROUNDS = 3;
const FAR_APART = 1.3;
const ROUNDS_BETWEEN = 10;
const ROUNDS_MS = 1200;
/** One run of each warms up models that take long: most have been profiled before. */
const WARM_UP_MS = 25;
/** Runs of a profile, one that warms up before them: the least time of a kernel counts, and in more runs it is hardly less. Long ones are steadier. */
const WARM_UP = 1;
const PROFILE_RUNS = 5;
const LEAST_PROFILE_RUNS = 2;
const PROFILE_MS = 60;

/**
 * Measures `float`, all of it in 8 bits, and what lies between, on one input, and answers which nodes should compute in float. Nothing is left in 8
 * bits where that is slower than float by more than chance. What the book has is not measured; what was measured is added to it.
 */
export async function findFasterKernels(
  float: Model,
  calibration: Calibration,
  options: StaticOptions,
  feeds: Feeds,
  runtime: KernelRuntime,
): Promise<FasterKernels> {
  const placement = placeEverywhere(float, calibration, options);
  const units = placement.units.filter(({ quantized }) => quantized);
  if (units.length === 0) return { slower: {}, layers: [], facts: unchanged(), known: false };
  const { book = emptyBook() } = runtime;
  const elementsOf = elementsIn(calibration);
  const key = modelKey(float, placement, elementsOf, settingOf(options, runtime));
  const found = book.models.get(key);
  const known = found && (found.costs?.units.length ?? units.length) === units.length ? found : undefined;
  const verdict = known ?? (await measure({ float, calibration, options, feeds, placement, units }, runtime, book));
  book.models.set(key, verdict);
  const costs = verdict.costs && namedCosts(verdict.costs, units);
  return { ...chosenKernels(placement, verdict, costs, elementsOf), known: known !== undefined };
}

function settingOf(
  { activationDType, perChannel, reduceRange }: StaticOptions,
  { latencyThreads }: KernelRuntime,
): KernelSetting {
  return { activationDType, perChannel, reduceRange, threads: latencyThreads };
}

function namedCosts(costs: NonNullable<KernelVerdict["costs"]>, units: readonly Unit[]): MeasuredCosts {
  return { ...costs, units: Object.fromEntries(units.map(({ node }, i) => [node.name, costs.units[i]!])) };
}

/** What static quantization is to keep to after a verdict. */
function chosenKernels(
  placement: Placement,
  { facts }: KernelVerdict,
  measured: MeasuredCosts | undefined,
  elementsOf: ElementsOf,
): Omit<FasterKernels, "known"> {
  const units = placement.units.filter(({ quantized }) => quantized);
  const costs = measured && measuredCosts(measured, elementsOf);
  const slower = costs ? slowerNodes(placement, costs) : new Map<string, FloatNode>();
  const layers = costs
    ? units.flatMap((unit) => (unit.rule.kind === "compute" ? [{ name: unit.node.name, ...costs.unit(unit) }] : []))
    : [];
  // Costs that lead to a slower model are wrong somewhere. Where they find nothing slow, they may when more is in float.
  if (facts.chosen !== "float") {
    return { slower: facts.chosen === "mixed" || slower.size === 0 ? { costs: measured } : {}, layers, facts };
  }
  const best = Math.max(facts.int8_speedup ?? 1, facts.mixed_speedup ?? 0);
  const message = `In 8 bits the model was measured to take ${(1 / best).toFixed(2)} times as long as in float.`;
  const why: FloatNode = { code: SLOWER, message, storesWeights: true };
  return {
    slower: { nodes: new Map(units.map(({ node }) => [node.name, slower.get(node.name) ?? why])) },
    layers,
    facts,
  };
}

interface Subject {
  readonly float: Model;
  readonly calibration: Calibration;
  readonly options: StaticOptions;
  readonly feeds: Feeds;
  readonly placement: Placement;
  readonly units: readonly Unit[];
}

/** Times whole models, and kernels where the book does not have all of them. */
async function measure(subject: Subject, runtime: KernelRuntime, book: KernelBook): Promise<KernelVerdict> {
  const { float, calibration, options, feeds, placement, units } = subject;
  const everywhere: StaticOptions = { ...options, floatWhereSlower: undefined };
  const elementsOf = elementsIn(calibration);
  const int8 = quantizeStatic(float, calibration, everywhere).model;
  const costsInBook = costsOfUnits(units, elementsOf, settingOf(options, runtime), runtime.table, book);
  const known = costsInBook.known();
  await using loaded = new AsyncDisposableStack();
  const open = async (model: Model): Promise<Contestant> => {
    const session = await runtime.openModel(model, { threads: runtime.latencyThreads });
    loaded.defer(() => session.close());
    return { session, feeds };
  };
  const profile = async (model: Model): Promise<ProfiledContestant> => {
    const { session, kernels } = await profileOf(model, feeds, runtime);
    loaded.defer(() => session.close());
    return { session, feeds, kernels };
  };
  const load: (model: Model) => Promise<Contestant & Partial<ProfiledContestant>> = known ? open : profile;
  const contestants = { float: await load(float), int8: await load(int8) };
  const [floatMs, int8Ms] = (await timed([contestants.float, contestants.int8], runtime)) as [number[], number[]];
  const profiled = ({ kernels = [] }: Partial<ProfiledContestant>, ms: readonly number[]): ProfiledModel => ({
    kernels,
    wallUs: 1000 * median(ms),
  });
  const times = { float: profiled(contestants.float, floatMs), int8: profiled(contestants.int8, int8Ms) };
  const costs = known ?? costsInBook.with(readProfiles(placement, times, elementsOf, runtime.table));
  const measured = costs && namedCosts(costs, units);
  const kernels = measured && measuredCosts(measured, elementsOf);
  const slower = kernels ? slowerNodes(placement, kernels) : new Map<string, FloatNode>();
  const isMixed = slower.size > 0 && units.some(({ node }) => !slower.has(node.name));
  const mixed = isMixed
    ? await open(quantizeStatic(float, calibration, { ...everywhere, floatWhereSlower: { costs: measured } }).model)
    : undefined;
  const rounds = mixed
    ? ((await timed([contestants.float, contestants.int8, mixed], runtime)) as [number[], number[], number[]])
    : ([floatMs, int8Ms] as const);
  const [ownMs, allMs, mixedMs] = rounds;
  // With fewer roundings, a mixed model is the better one of two that are as fast.
  const takesMixed = mixedMs !== undefined && median(mixedMs) <= NOTICEABLE * median(allMs);
  const chosenMs = takesMixed ? mixedMs : allMs;
  // Where kernels say that nothing gains, a model that is not seen to gain is no gain, however unsteady the machine.
  const nothingGains = slower.size > 0 && !isMixed && median(chosenMs) >= median(ownMs);
  const staysFloat = nothingGains || isSlower(chosenMs, ownMs);
  const ratio = (ms: readonly number[]) => median(ownMs) / median(ms);
  const facts: MeasuredKernels = {
    basis: kernels ? "measured" : "timed",
    ...{ float_ms: median(ownMs), int8_speedup: ratio(allMs), mixed_speedup: mixedMs ? ratio(mixedMs) : null },
    predicted_speedup: kernels && mixedMs ? predictedSpeedup(placement, kernels, slower, median(ownMs)) : null,
    chosen: staysFloat ? "float" : takesMixed ? "mixed" : "int8",
  };
  return { facts, costs };
}

function unchanged(): MeasuredKernels {
  const none = { float_ms: null, int8_speedup: null, mixed_speedup: null, predicted_speedup: null };
  return { basis: "timed", ...none, chosen: "int8" };
}

/** What is measured against float, as a factor: the rest of the graph takes as long either way. */
function predictedSpeedup(
  placement: Placement,
  costs: KernelCosts,
  slower: ReadonlyMap<string, FloatNode>,
  floatMs: number,
): number {
  const units = placement.units.filter(({ quantized }) => quantized);
  const mixed = new Set<Unit>(units.filter(({ node }) => slower.has(node.name)));
  const saved = placementCost(placement, costs, new Set(units)) - placementCost(placement, costs, mixed);
  return floatMs / Math.max(floatMs - saved / 1000, floatMs / 100);
}

function timed(contestants: readonly Contestant[], { latencyThreads, time, threadClock, signal }: KernelRuntime) {
  if (time) return time(contestants);
  const clock = latencyThreads === 1 ? threadClock : undefined;
  return timeInTurns(contestants, {
    runs: ROUNDS,
    maxMs: ROUNDS_MS,
    maxWarmUpMs: WARM_UP_MS,
    signal,
    clock,
    isEnough: (ms) => isDecided(ms) || isTold(ms),
  });
}

/**
 * Whether more rounds would change nothing: of each two that follow each other, either the second one takes no longer than the first, or every run of
 * one was faster than every run of the other, by more than anyone would notice.
 */
function isDecided(samplesMs: readonly (readonly number[])[]): boolean {
  const rounds = samplesMs[0]!.length;
  const isApart = (a: readonly number[], b: readonly number[], by: number) => Math.min(...b) > by * Math.max(...a);
  const areApart = (by: number) => (ms: readonly number[], i: number) =>
    isApart(ms, samplesMs[i]!, by) || isApart(samplesMs[i]!, ms, by);
  const later = samplesMs.slice(1);
  if (rounds >= FEW_ROUNDS && later.every(areApart(FAR_APART))) return true;
  const isApartAtAll = areApart(NOTICEABLE);
  return rounds >= LEAST_ROUNDS && later.every((ms, i) => median(ms) <= median(samplesMs[i]!) || isApartAtAll(ms, i));
}

/** Whether of any two models it is known which is the faster one, or that nobody would notice. */
function isTold(samplesMs: readonly (readonly number[])[]): boolean {
  if (samplesMs[0]!.length % ROUNDS_BETWEEN !== 0) return false;
  return samplesMs.every((ms, i) =>
    samplesMs.slice(i + 1).every((others) => {
      const [low, high] = speedupInterval(ms, others)!;
      return low > 1 || high < 1 || (low > 1 / NOTICEABLE && high < NOTICEABLE);
    }),
  );
}

/** A model that was profiled when it was loaded, and is not any more. */
interface ProfiledContestant extends Contestant {
  readonly kernels: readonly KernelTime[];
}

/** A model and its kernels. The session is the caller's to close. */
export async function profileOf(
  model: Model,
  feeds: Feeds,
  { profile, latencyThreads, signal }: Pick<KernelRuntime, "profile" | "latencyThreads" | "signal">,
): Promise<Omit<ProfiledContestant, "feeds">> {
  const use = async (session: Session) => {
    const start = performance.now();
    const isEnough = (runs: number) => runs >= LEAST_PROFILE_RUNS && performance.now() - start >= PROFILE_MS;
    for (let run = 0; run < WARM_UP + PROFILE_RUNS && !isEnough(run - WARM_UP); run++) {
      checkCancelled(signal);
      await session.run(feeds, undefined, signal);
    }
  };
  const { text, session } = await profile(model, use, { threads: latencyThreads });
  return { session, kernels: readKernelProfile(text, WARM_UP) };
}

function median(ms: readonly number[]): number {
  return timingOf(ms).p50_ms;
}

/** Whether one takes longer than the other by more than chance, and by more than anyone would notice. */
function isSlower(ms: readonly number[], thanMs: readonly number[]): boolean {
  const interval = speedupInterval(thanMs, ms);
  return median(ms) > NOTICEABLE * median(thanMs) && interval !== null && interval[1] < 1;
}

const NOTICEABLE = 1.02;
