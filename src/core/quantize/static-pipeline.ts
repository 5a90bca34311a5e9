/** Static quantization from the model as it came to the model as it goes: every step, and what each was worth. */
import type { Model } from "../onnx/ir.ts";
import type { Note } from "../passes/pass.ts";
import { type ControlResult, controlAccuracy, type LayerSensitivity, rankLayers } from "./accuracy-control.ts";
import { correctBiases } from "./bias-correction.ts";
import { type CalibrateOptions, type Feeds, observe } from "./calibrate.ts";
import { scalingSites } from "./channel-scaling.ts";
import { balanceChannels, equalizeWeights } from "./equalize.ts";
import { ChannelObserver } from "./observers.ts";
import { OutputReference } from "./output-error.ts";
import { type Calibration, calibrate, prepareStatic, quantizeStatic, type StaticOptions } from "./static.ts";

/** Samples for calibration, in feeds that the model takes; the same ones in the same order every time. */
export interface CalibrationData {
  batches(count: number): AsyncIterable<Feeds>;
}

export interface PipelineOptions extends Omit<StaticOptions, "biasShifts"> {
  /** Samples to calibrate with. */
  readonly samples: number;
  /** Scale channels between layers: where it is expected to help, by weights alone and everywhere, or not. */
  readonly equalize: "auto" | boolean;
  /** Scale channels between normalizations and layers: where it is expected to help, with this α, or not. */
  readonly smoothQuantAlpha: "auto" | number | null;
  readonly biasCorrection: boolean;
  /** Leave layers in float until this holds. */
  readonly control?: AccuracyTarget | undefined;
}

export interface AccuracyTarget {
  /** How good a model is, higher is better. Without it: the signal to noise ratio of its outputs, in dB. */
  readonly score?: (model: Model) => Promise<number>;
  readonly speedup: (model: Model) => Promise<number>;
  readonly target: number;
  readonly maxTrials: number;
}

export type PipelineStep = "prepare" | "equalize" | "calibrate" | "correct" | "rank" | "control";

export interface PipelineRuntime extends CalibrateOptions {
  readonly onProgress?: (step: PipelineStep, fraction: number, message: string) => void;
}

/** What a correction was worth, on samples it has not seen. */
export interface CorrectionFacts {
  readonly name: "bias_correction";
  readonly beforeDb: number;
  readonly afterDb: number;
  /** Whether it was kept. */
  readonly applied: boolean;
}

export interface PipelineResult {
  readonly model: Model;
  /** Why nodes are, or are not, quantized. */
  readonly notes: readonly Note[];
  /** What was said while the float model was brought into form. */
  readonly prepared: readonly Note[];
  readonly corrections: readonly CorrectionFacts[];
  /** The most useful layer to leave in float first; empty without accuracy control. */
  readonly sensitivity: readonly LayerSensitivity[];
  readonly control: ControlResult | undefined;
}

/** Samples that channel statistics are taken from. */
const CHANNEL_SAMPLES = 32;
/** Samples that biases are corrected with, and as many that the result is judged by. */
const CORRECTION_SAMPLES = 16;
/** Layers, or groups of neighbours, that are ranked. */
const MAX_RANKED = 64;

export async function compressStatic(
  model: Model,
  data: CalibrationData,
  options: PipelineOptions,
  runtime: PipelineRuntime,
): Promise<PipelineResult> {
  const progress = runtime.onProgress ?? (() => {});
  progress("prepare", 0, "Bringing the model into form");
  const few = await take(data, 2 * CORRECTION_SAMPLES);
  const { model: float, notes: prepared } = await prepareStatic(model, few[0]!, runtime);

  progress("equalize", 0, "Looking at channels");
  const scaled = await scaleChannels(float, data, options, runtime);

  const calibration = await calibrate(float, data.batches(options.samples), {
    ...runtime,
    onBatch: (done) => progress("calibrate", done / options.samples, `${done} of ${options.samples} samples`),
  });

  progress("correct", 0, "Correcting biases");
  const judged = few.length > CORRECTION_SAMPLES ? few.slice(CORRECTION_SAMPLES) : few;
  const reference = await OutputReference.of(float, judged, runtime);
  const { biasShifts, facts } = await chooseBiases(float, calibration, few, reference, options, runtime);
  const corrected: StaticOptions = { ...options, ...(biasShifts && { biasShifts }) };

  const { control } = options;
  const build = (layers: ReadonlySet<string>) => quantizeStatic(float, calibration, withFloatLayers(corrected, layers));
  const sqnrDb = (candidate: Model) => reference.sqnrDb(candidate);
  let sensitivity: LayerSensitivity[] = [];
  const rank = async () => {
    sensitivity = await rankLayers(build(new Set()).computeLayers, (names) => build(names).model, sqnrDb, MAX_RANKED, {
      signal: runtime.signal,
      onTrial: (done, of) => progress("rank", done / of, `${done} of ${of} layers`),
    });
    return sensitivity.map(({ names }) => names);
  };
  const controlled =
    control &&
    (await controlAccuracy(rank, (names) => build(names).model, {
      score: sqnrDb,
      ...control,
      signal: runtime.signal,
      onTrial: (_, count) => progress("control", count / control.maxTrials, `${count} models tried`),
    }));
  const result = build(new Set(controlled?.floatLayers));
  return {
    model: result.model,
    notes: result.notes,
    prepared: [...prepared, ...scaled],
    corrections: facts ? [facts] : [],
    sensitivity,
    control: controlled,
  };
}

async function take(data: CalibrationData, count: number): Promise<Feeds[]> {
  const feeds: Feeds[] = [];
  for await (const batch of data.batches(count)) feeds.push(batch);
  return feeds;
}

/** Scales channels of `float` in place. */
async function scaleChannels(
  float: Model,
  data: CalibrationData,
  { equalize, smoothQuantAlpha, perChannel, samples }: PipelineOptions,
  runtime: PipelineRuntime,
): Promise<Note[]> {
  const notes: Note[] = [];
  if (equalize === true) equalizeWeights(float);
  if (equalize !== "auto" && smoothQuantAlpha === null) return notes;
  const observers = new Map<string, ChannelObserver>();
  for (const { producer, producerOperand, consumers } of scalingSites(float)) {
    for (const { input, operand } of consumers) observers.set(input.name, new ChannelObserver(operand.activationAxis));
    if (!producerOperand) continue;
    const input = producer.inputs[0]!;
    observers.set(input.name, new ChannelObserver(producerOperand.activationAxis));
  }
  if (observers.size === 0) return notes;
  await observe(float, observers, data.batches(Math.min(samples, CHANNEL_SAMPLES)), runtime);
  const options = {
    perChannel,
    layers: equalize === "auto",
    normalizations: smoothQuantAlpha ?? undefined,
  };
  balanceChannels(
    float,
    (name) => observers.get(name),
    options,
    (note) => notes.push(note),
  );
  return notes;
}

/** Corrects biases, and keeps the corrections if outputs for other samples become better by them. */
async function chooseBiases(
  float: Model,
  calibration: Calibration,
  samples: readonly Feeds[],
  reference: OutputReference,
  options: PipelineOptions,
  runtime: PipelineRuntime,
) {
  if (!options.biasCorrection) return { biasShifts: undefined, facts: undefined };
  const plain = quantizeStatic(float, calibration, options);
  const biasShifts = await correctBiases(
    float,
    plain.model,
    plain.layers,
    samples.slice(0, CORRECTION_SAMPLES),
    runtime,
  );
  const corrected = quantizeStatic(float, calibration, { ...options, biasShifts });
  const beforeDb = await reference.sqnrDb(plain.model);
  const afterDb = await reference.sqnrDb(corrected.model);
  const applied = afterDb > beforeDb;
  const facts: CorrectionFacts = { name: "bias_correction", beforeDb, afterDb, applied };
  return { biasShifts: applied ? biasShifts : undefined, facts };
}

function withFloatLayers(options: StaticOptions, layers: ReadonlySet<string>): StaticOptions {
  const kept = [...layers].map((name) => [name, KEPT] as const);
  return { ...options, excludeNodes: new Map([...(options.excludeNodes ?? []), ...kept]) };
}

const KEPT = {
  code: "kept_for_accuracy",
  message: "It stays in float so that the model is as accurate as it has to be.",
};
