/** Static quantization from the model as it came to the model as it goes: every step, and what each was worth. */
import { POOR_SQNR_DB } from "../../codes.ts";
import { CoreError } from "../../errors.ts";
import type { CorrectionFacts } from "../../facts.ts";
import type { Model } from "../../onnx/ir.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { Note } from "../../passes/pass.ts";
import type { ProfileModel } from "../../runtime/kernel-profile.ts";
import { type CostTable, USUAL_COSTS } from "../../targets/cost-tables.ts";
import type { CalibrateOptions, Feeds, OnOutputs } from "../calibration/calibrate.ts";
import { type CalibrationMethod, DEFAULT_METHOD } from "../calibration/calibration-methods.ts";
import type { QuantizationPlan } from "../plan.ts";
import type { Rounding } from "../rounding/rounding.ts";
import type { ControlResult, LayerSensitivity } from "./accuracy-control.ts";
import { type Calibration, Calibrator } from "./calibration.ts";
import { scaleChannels, type Trial } from "./channel-trials.ts";
import { type FasterKernels, findFasterKernels } from "./faster-kernels.ts";
import type { KernelBook } from "./kernel-book.ts";
import type { LayerPrecision } from "./layer-precisions.ts";
import { layersAsked } from "./layers-asked.ts";
import { type AccuracyTarget, type LayersInFloat, leaveInFloat } from "./layers-in-float.ts";
import { chooseBiases, type MethodTrial, tryMethods } from "./method-trials.ts";
import { OutputReference } from "./output-error.ts";
import { prepareStatic, quantizeStatic, type StaticOptions, stretchedIn } from "./quantize-static.ts";
import { roundWeights } from "./round-weights.ts";
import { brokenLayers, type FloatNode } from "./storage.ts";
import { chooseStretched, type StretchedForms } from "./stretched.ts";

/** Samples for calibration, in feeds that the model takes; the same ones in the same order every time. */
export interface CalibrationData {
  batches(count: number): AsyncIterable<Feeds>;
}

export interface PipelineOptions
  extends Omit<StaticOptions, "biasShifts" | "rounded" | "method" | "stretched" | "floatWhereSlower"> {
  /** What nodes compute in instead of 8 bits, by their labels. */
  readonly layers?: Readonly<Record<string, LayerPrecision>> | undefined;
  /** Leave in float what is slower in 8 bits: as it is measured here, or as a table of costs predicts. */
  readonly floatWhereSlower?: "measured" | { readonly table: CostTable } | undefined;
  /** How ranges follow from what was seen; `auto`: the default, or where that is poor whichever is measured to be best. */
  readonly method: CalibrationMethod | "auto";
  /** Samples to calibrate with. */
  readonly samples: number;
  /** Scale channels between layers: where it is expected to help, by weights alone and everywhere, or not. */
  readonly equalize: "auto" | boolean;
  /** Scale channels between normalizations and layers: where it is expected to help, with this α, or not. */
  readonly smoothQuantAlpha: "auto" | number | null;
  readonly biasCorrection: boolean;
  /** How weights are rounded; to nearest unless given. */
  readonly rounding?: Rounding | undefined;
  /** Leave layers in float until this holds. */
  readonly control?: AccuracyTarget | undefined;
  /**
   * Without `control`: where the outputs are worse than `POOR_SQNR_DB`, leave layers in float until they have this SQNR in dB, on the samples
   * that corrections are judged by.
   */
  readonly rescue?: Omit<AccuracyTarget, "score"> | undefined;
}

export type PipelineStep = "prepare" | "equalize" | "calibrate" | "kernels" | "round" | "correct" | "rank" | "control";

export interface PipelineRuntime extends CalibrateOptions {
  /** What calibration found for the same model, data and options before; it is not observed again. */
  readonly known?: Calibration | undefined;
  /** For kernels that are to be measured: with what, what they usually take, and what was measured before, which is not measured again. */
  readonly profile?: ProfileModel | undefined;
  readonly costTable?: CostTable | undefined;
  readonly kernelBook?: KernelBook | undefined;
  /** Threads that latency counts at; 1 unless given. */
  readonly latencyThreads?: number | undefined;
  readonly threadClock?: (() => number) | undefined;
  readonly onProgress?: (step: PipelineStep, fraction: number, message: string) => void;
}

export interface PipelineResult {
  readonly model: Model;
  /** What was quantized: the model in form, with its channels scaled. */
  readonly float: Model;
  /** What was decided about `float`. */
  readonly plan: QuantizationPlan;
  /** Why nodes are, or are not, quantized. */
  readonly notes: readonly Note[];
  /** What was said while the float model was brought into form. */
  readonly prepared: readonly Note[];
  /** What each was worth, on a few samples. Biases are not corrected by those, where there are others. */
  readonly corrections: readonly CorrectionFacts[];
  readonly calibration: Calibration;
  readonly method: CalibrationMethod;
  /** Names of the nodes that stay in float for speed. */
  readonly slower: readonly string[];
  /** What was found about the speed of kernels, where it was asked for. */
  readonly kernels: FasterKernels | undefined;
  /** What each method to find ranges reached, where it was left to us: the chosen one first. */
  readonly methodsTried: readonly MethodTrial[];
  /** The most useful layer to leave in float first; empty without accuracy control. */
  readonly sensitivity: readonly LayerSensitivity[];
  readonly control: (ControlResult & Pick<LayersInFloat, "stored">) | undefined;
}

/** Batches that models are calibrated with to try corrections. */
const TRIAL_BATCHES = 16;
/** Of those, batches that biases are corrected by: each has many positions, and with 3 to 8 results differed by chance only. */
const CORRECTING_BATCHES = 4;
/**
 * Batches, other ones where there are enough, that corrections are judged by: with and without one on the same samples, so that few tell. Judged by
 * samples that it was calibrated with, scaling channels looks better than it is: 50 dB became 43 dB for a classifier.
 */
const JUDGED_BATCHES = 8;

/** A float model that is ready to be quantized, and all that was decided about how. */
export interface CorrectedStatic
  extends Pick<PipelineResult, "float" | "prepared" | "calibration" | "kernels" | "method" | "methodsTried"> {
  /** With the corrections that made it better, on samples that they were not made from. */
  readonly options: StaticOptions;
  readonly corrections: readonly CorrectionFacts[];
  /** What the correction of biases was worth, if there was anything to correct. */
  readonly biases: CorrectionFacts | undefined;
  /** What models are judged by. */
  readonly reference: OutputReference;
}

/**
 * Brings `model` into form, scales its channels, calibrates it, and finds what stays in float for speed or range, how ranges follow from what was
 * seen, how weights are rounded and how biases are corrected. Everything but calibration works on few samples; calibration sees `samples` of
 * them. Throws `CoreError`: `invalid_dataset` when there is no sample, what onnxruntime says of the model, and `cancelled`.
 */
export async function correctStatic(
  model: Model,
  data: CalibrationData,
  given: PipelineOptions,
  runtime: PipelineRuntime,
): Promise<CorrectedStatic> {
  const progress = runtime.onProgress ?? (() => {});
  progress("prepare", 0, "Bringing the model into form");
  const few = await take(data, TRIAL_BATCHES + JUDGED_BATCHES);
  if (few.length === 0) throw new CoreError("invalid_dataset", "There are no samples to calibrate with.");
  const { model: prepared, notes: preparedNotes } = await prepareStatic(model, few[0]!, runtime, given.pattern);
  const broken = brokenLayers(prepared);
  const options = { ...given, excludeNodes: new Map([...(given.excludeNodes ?? []), ...broken]) };
  const judged = few.slice(few.length > TRIAL_BATCHES ? TRIAL_BATCHES : -JUDGED_BATCHES);
  await using loaded = new AsyncDisposableStack();
  const original = loaded.use(Calibrator.of(prepared, runtime));
  const outputs = new Map<Feeds, Readonly<Record<string, Tensor>>>();
  const outputsOf = async (feeds: Feeds) => outputs.get(feeds) ?? (await original.run(feeds));
  const onOutputs: OnOutputs = (feeds, made) => {
    if (judged.includes(feeds)) outputs.set(feeds, made);
  };
  const reference = new OutputReference(judged, outputsOf, runtime);
  const trial: Trial = {
    few: few.slice(0, Math.min(TRIAL_BATCHES, options.samples)),
    following: few.slice(TRIAL_BATCHES, options.samples),
    unjudged: few.slice(0, Math.min(CORRECTING_BATCHES, options.samples)),
    onOutputs,
    reference,
    options,
    broken,
    runtime,
    loaded,
  };

  progress("equalize", 0, "Looking at channels");
  const { calibrator, ...scaled } = await scaleChannels(original, trial);
  const float = calibrator.model;
  for (const [name, why] of scaled.inserted) options.excludeNodes.set(name, why);

  // What the trials have seen is not looked at again.
  const seen = calibrator.calibration.batches;
  const report = (done: number) =>
    progress("calibrate", (seen + done) / options.samples, `${seen + done} of ${options.samples} samples`);
  const unseen = counted(following(few.slice(seen, options.samples), few.length, data, options.samples), report);
  // The outputs that corrections are judged by are those of the original.
  const observed = calibrator === original ? { onOutputs } : {};
  const calibration = runtime.known ?? (await calibrator.observe(unseen, observed));
  await reference.load();
  await calibrator.close();
  const { facts, notes, ...decided } = await decide(float, calibration, data, trial);
  return {
    ...decided,
    ...{ float, calibration, reference },
    prepared: [...preparedNotes, ...scaled.notes, ...notes],
    corrections: [...scaled.facts, ...facts],
  };
}

/** What is decided about a model once its ranges are known. */
async function decide(
  float: Model,
  calibration: Calibration,
  data: CalibrationData,
  trial: Trial,
): Promise<
  Pick<CorrectedStatic, "options" | "kernels" | "method" | "methodsTried" | "biases"> & {
    readonly facts: readonly CorrectionFacts[];
    readonly notes: readonly Note[];
  }
> {
  const { options, runtime } = trial;
  const progress = runtime.onProgress ?? (() => {});
  const stretched = await formsOfStretched(float, calibration, trial);
  const { layers = {} } = options;
  const excludeNodes = new Map([...layersAsked(float, layers), ...(options.excludeNodes ?? [])]);
  const still = { ...options, excludeNodes, stretched: stretched?.forms, floatWhereSlower: undefined };
  const kernels = await kernelsOf(float, calibration, still, trial);
  const placed = {
    ...still,
    floatWhereSlower: options.floatWhereSlower === "measured" ? kernels?.slower : options.floatWhereSlower,
  };
  const methodsTried = options.method === "auto" ? await tryMethods(float, calibration, placed, trial) : [];
  const method = options.method === "auto" ? methodsTried[0]!.method : options.method;
  const ranged: StaticOptions = { ...placed, method };

  const batches = () => data.batches(options.samples);
  const rounding = await roundWeights(float, calibration, ranged, options.rounding, batches, {
    ...runtime,
    onProgress: (fraction, message) => progress("round", fraction, message),
  });
  const chosen: StaticOptions = { ...ranged, rounded: rounding?.rounded };

  progress("correct", 0, "Correcting biases");
  const [best] = methodsTried;
  const biases = best && !rounding ? best.biases : await chooseBiases(float, calibration, chosen, trial);
  return {
    options: { ...chosen, ...(biases?.shifts && { biasShifts: biases.shifts }) },
    ...{ kernels, method, biases: biases?.facts },
    methodsTried: methodsTried.map(({ method, sqnrDb }) => ({ method, sqnrDb })),
    facts: [...(stretched ? [stretched.facts] : []), ...(biases ? [biases.facts] : [])],
    notes: rounding?.notes ?? [],
  };
}

/**
 * Quantizes `model` to static int8, and leaves layers in float where `control` or `rescue` asks for it. Throws as `correctStatic` does.
 */
export async function compressStatic(
  model: Model,
  data: CalibrationData,
  given: PipelineOptions,
  runtime: PipelineRuntime,
): Promise<PipelineResult> {
  const { options, biases, reference, ...found } = await correctStatic(model, data, given, runtime);
  const build = (layers: ReadonlySet<string>, stored: ReadonlySet<string> | "nothing") =>
    quantizeStatic(found.float, found.calibration, withFloatLayers(options, layers, stored));
  const target = await targetOf(() => build(new Set(), new Set()).model, biases, given, reference);
  const controlled =
    target &&
    (await leaveInFloat(build, (candidate) => reference.sqnrDb(candidate), target, {
      signal: runtime.signal,
      onProgress: runtime.onProgress,
    }));
  const { model: quantized, plan, notes, slower } = controlled?.result ?? build(new Set(), new Set());
  return {
    ...found,
    ...{ model: quantized, plan, notes, slower },
    sensitivity: controlled?.sensitivity ?? [],
    control: controlled && { ...controlled.control, stored: controlled.stored },
  };
}

/** What the model has to reach by leaving layers in float, if anything: what was asked for, or what no result should be below. */
async function targetOf(
  plain: () => Model,
  biases: CorrectionFacts | undefined,
  { control, rescue }: PipelineOptions,
  reference: OutputReference,
): Promise<AccuracyTarget | undefined> {
  if (control || !rescue) return control;
  const reached = biases ? Math.max(biases.sqnr_before_db, biases.sqnr_after_db) : await reference.sqnrDb(plain());
  return reached < POOR_SQNR_DB ? { ...rescue, score: (model) => reference.sqnrDb(model) } : undefined;
}

async function take(data: CalibrationData, count: number): Promise<Feeds[]> {
  const feeds: Feeds[] = [];
  for await (const batch of data.batches(count)) feeds.push(batch);
  return feeds;
}

/** `first`, and then what follows those of `few` in the data, up to `count` in all. */
async function* following(
  first: readonly Feeds[],
  few: number,
  data: CalibrationData,
  count: number,
): AsyncGenerator<Feeds> {
  yield* first;
  let index = 0;
  for await (const batch of data.batches(count)) if (index++ >= few) yield batch;
}

/** Calls `report` with the number of batches that have been used. */
async function* counted(batches: AsyncIterable<Feeds>, report: (count: number) => void): AsyncGenerator<Feeds> {
  let count = 0;
  for await (const batch of batches) {
    yield batch;
    report(++count);
  }
}

/** Which nodes stay in float for speed, where that is to be measured. */
async function kernelsOf(
  float: Model,
  calibration: Calibration,
  options: Omit<StaticOptions, "method">,
  { few, options: { floatWhereSlower }, runtime }: Trial,
): Promise<FasterKernels | undefined> {
  const { profile, kernelBook: book, costTable: table = USUAL_COSTS, latencyThreads = 1 } = runtime;
  if (floatWhereSlower !== "measured") return undefined;
  if (!profile) throw new CoreError("internal", "Kernels cannot be measured without a profiler.");
  runtime.onProgress?.("kernels", 0, "Measuring kernels");
  // What ranges are makes no difference to the speed of kernels.
  const ranged: StaticOptions = { ...options, method: DEFAULT_METHOD };
  const call = { ...runtime, profile, latencyThreads, table, book };
  return findFasterKernels(float, calibration, ranged, few[0]!, call);
}

/** Which nodes in front of operators that stretch small values stay in float, and what that is worth; undefined where there are none. */
async function formsOfStretched(
  float: Model,
  calibration: Calibration,
  { reference, options }: Trial,
): Promise<{ readonly forms: StretchedForms; readonly facts: CorrectionFacts } | undefined> {
  const groups = stretchedIn(float, calibration);
  if (groups.length === 0) return undefined;
  const method = options.method === "auto" ? DEFAULT_METHOD : options.method;
  const ranged: StaticOptions = { ...options, method, floatWhereSlower: undefined };
  const { forms, quantizedDb, chosenDb } = await chooseStretched(groups, (stretched) =>
    reference.sqnrDb(quantizeStatic(float, calibration, { ...ranged, stretched }).model),
  );
  const applied = [...forms.values()].some((form) => form !== "quantized");
  return {
    forms,
    facts: { name: "float_where_stretched", sqnr_before_db: quantizedDb, sqnr_after_db: chosenDb, applied },
  };
}

function withFloatLayers(
  options: StaticOptions,
  layers: ReadonlySet<string>,
  stored: ReadonlySet<string> | "nothing",
): StaticOptions {
  const isStored = (name: string) => stored !== "nothing" && stored.has(name);
  const kept = [...layers].map((name): [string, FloatNode] => [name, { ...KEPT, storesWeights: isStored(name) }]);
  const excludeNodes = new Map([...(options.excludeNodes ?? []), ...kept]);
  return { ...options, excludeNodes, onlyAsked: stored === "nothing" };
}

const KEPT: FloatNode = {
  code: "kept_for_accuracy",
  message: "It stays in float so that the model is as accurate as it has to be.",
  // Fewer would cost what it is kept for.
  weightBits: 8,
};
