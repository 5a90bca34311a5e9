/** Quantization-aware training: from a float model to one in few bits that was trained with the rounding in it. */

import { comparedOutputs } from "../distill/compared-outputs.ts";
import type { Distillation } from "../distill/distillation.ts";
import { agreementWith, judgeNetwork } from "../distill/judge.ts";
import { teacherValues } from "../distill/objective.ts";
import { distillOffline, type OfflineDistillation } from "../distill/offline.ts";
import { openTeacher } from "../distill/teacher.ts";
import { CoreError } from "../errors.ts";
import type { CorrectionFacts } from "../facts.ts";
import type { Model } from "../onnx/ir.ts";
import { removeDeadCode } from "../passes/dead-code.ts";
import { EXCLUDED, type Note, noteOn, runPasses } from "../passes/pass.ts";
import type { Feeds } from "../quantize/calibration/calibrate.ts";
import type { Rounding } from "../quantize/rounding/rounding.ts";
import { startOfWeight } from "../quantize/static/channel-weights.ts";
import type { MarkedWeight, ResultNames } from "../quantize/static/emission.ts";
import { ruleFor } from "../quantize/static/operators.ts";
import { type CalibrationData, correctStatic, type PipelineRuntime } from "../quantize/static/pipeline.ts";
import { placeStatic, prepareStatic, quantizeStatic, type StaticOptions } from "../quantize/static/quantize-static.ts";
import type { WeightBits } from "../quantize/static/stored-weights.ts";
import type { PhaseHooks } from "../train/phases.ts";
import { splitSamples } from "../train/samples.ts";
import { type FakeQuantized, type FakeQuantizeOptions, fakeQuantize } from "./fake-quantize.ts";
import type { QatAlgorithm } from "./qat-algorithms.ts";

export interface QatOptions extends Pick<StaticOptions, "method" | "percentile" | "activationDType" | "isExcluded"> {
  readonly bits: { readonly weights: WeightBits; readonly activations: 8 | 4 | null };
  /** For processors that add pairs of 8-bit products in 16 bits. */
  readonly reduceRange: boolean;
  readonly algorithm: QatAlgorithm;
  /** Batches to calibrate with, where activations are rounded. */
  readonly samples: number;
  /** Whether training starts from scaled channels and corrected biases, where those are measured to help. */
  readonly corrections: boolean;
  /** How weights are rounded before they are trained; to nearest unless given. For weights of fewer than 8 bits, on rounded activations. */
  readonly rounding?: Rounding | undefined;
}

/** A model that is ready to be trained with the rounding in it. */
export interface QatModel {
  /** In the form that is quantized, in float. */
  readonly float: Model;
  /** The same with rounded activations; its outputs have the names of `float`'s. */
  readonly graph: Model;
  readonly results: ResultNames;
  fakeQuantize(watch: readonly string[]): FakeQuantized;
  /** A quantized model as it goes out: tables that rows are looked up in are stored in 8 bits. Says what became of every node. */
  finish(model: Model): { readonly model: Model; readonly notes: readonly Note[] };
  /** What was said while the model was brought into form. */
  readonly prepared: readonly Note[];
  /** What each correction was worth that the training starts from. */
  readonly corrections: readonly CorrectionFacts[];
}

export type QatRuntime = Pick<PipelineRuntime, "openModel" | "threads" | "signal" | "onProgress">;

/**
 * Places the rounding in `model`. Where activations are rounded, training starts from what `correctStatic` makes of it, with weights at the codes that
 * `rounding` finds. Throws `invalid_dataset` without a batch,
 * `unsupported` where what would have to be trained cannot be, `invalid_model` and `cancelled` as onnxruntime does.
 */
export async function prepareQat(
  model: Model,
  data: CalibrationData,
  options: QatOptions,
  runtime: QatRuntime,
): Promise<QatModel> {
  const { bits } = options;
  const fake = {
    weightBits: bits.weights,
    activationBits: bits.activations ?? 8,
    algorithm: options.algorithm,
  } as const;
  if (bits.activations === null) {
    const { model: float, notes: prepared } = await prepareStatic(model, await firstOf(data), runtime);
    const graph = float.clone();
    const { marked, notes } = markWeights(graph, options);
    return {
      ...{ float, graph, prepared, corrections: [], results: new Map() },
      fakeQuantize: (watch) => checked(graph, marked, { ...fake, watch }),
      finish: (quantized) => ({ model: runPasses(quantized, [removeDeadCode]).model, notes }),
    };
  }
  const { samples, method, percentile, activationDType, reduceRange, rounding, isExcluded } = options;
  const corrected = await correctStatic(
    model,
    data,
    {
      ...{ samples, method, percentile, activationDType, reduceRange, rounding, weightBits: bits.weights },
      perChannel: true,
      equalize: options.corrections && "auto",
      smoothQuantAlpha: options.corrections ? "auto" : null,
      biasCorrection: options.corrections,
      ...(isExcluded && { isExcluded }),
    },
    runtime,
  );
  const { float, calibration, prepared, corrections } = corrected;
  // What is left in float is not rounded while it is trained, tables aside, which have 8 bits.
  const placement: StaticOptions = { ...corrected.options, weightBits: 8, onlyTables: true };
  const placed = placeStatic(float, calibration, placement, "marked");
  const graph = placed.model;
  const { marked } = placed;
  const tables = tablesIn(graph, placed.finish(graph.clone()).notes);
  const kernels = { perChannel: true, reduceRange, weightBits: bits.weights };
  const { weights } = quantizeStatic(float, calibration, corrected.options);
  const starts = new Map(
    weights.map(({ name, weight, context }) => [name, startOfWeight(weight, context, kernels)] as const),
  );
  return {
    ...{ float, graph, prepared, corrections, results: placed.results },
    fakeQuantize: (watch) => checked(graph, marked, { ...fake, starts, watch, tables }),
    finish(quantized) {
      const notes = placed.finish(quantized).notes.map((note) => describeBits(note, bits));
      return { model: runPasses(quantized, [removeDeadCode]).model, notes };
    },
  };
}

async function firstOf(data: CalibrationData): Promise<Feeds> {
  for await (const feeds of data.batches(1)) return feeds;
  throw new CoreError("invalid_dataset", "There are no samples to calibrate with.");
}

/** The rows that are looked up in tables which are stored in 8 bits, by name. */
function tablesIn({ graph }: Model, notes: readonly Note[]): readonly string[] {
  const stored = new Set(notes.flatMap(({ code, name }) => (code === "gather_codes" ? [name] : [])));
  return graph.nodes
    .filter(({ opType, label }) => opType === "Gather" && stored.has(label))
    .map(({ outputs }) => outputs[0]!.name);
}

function checked(graph: Model, marked: readonly MarkedWeight[], options: FakeQuantizeOptions): FakeQuantized {
  if (marked.length > 0) return fakeQuantize(graph, marked, options);
  throw new CoreError("unsupported", "The model has no layer that could compute with weights in few bits.");
}

function describeBits(note: Note, { weights, activations }: QatOptions["bits"]): Note {
  if (note.code !== "quantized" || (weights === 8 && activations === 8)) return note;
  const message = `It computes in 8 bits, on activations of ${activations} bits with weights of ${weights}.`;
  return { ...note, message };
}

/** Marks the weights of all layers, whose activations stay as they are. */
function markWeights(
  model: Model,
  { isExcluded, bits }: QatOptions,
): { readonly marked: readonly MarkedWeight[]; readonly notes: readonly Note[] } {
  const found = new Map<string, { readonly axis: number; readonly markers: string[] }>();
  const notes: Note[] = [];
  for (const node of [...model.graph.nodes]) {
    const rule = ruleFor(node);
    const operand = rule?.kind === "compute" ? rule.weight?.(node) : undefined;
    if (!rule || !operand) continue;
    const refusal = isExcluded?.(node) ? EXCLUDED : rule.refuse?.(node);
    if (refusal) {
      notes.push(noteOn(node, "skipped", refusal.code, refusal.message));
      continue;
    }
    const weight = node.inputs[operand.input]!;
    const key = `${operand.axis} ${weight.name}`;
    const entry = found.get(key) ?? { axis: operand.axis, markers: [] };
    found.set(key, entry);
    const name = model.freshName(`${weight.name}_marked`);
    const marker = model.graph.insertBefore(node, { opType: "Identity", inputs: [weight], outputs: [name] });
    marker.outputs[0]!.retype("float32", weight.constant!.dims);
    node.setInput(operand.input, marker.outputs[0]!);
    entry.markers.push(name);
    notes.push(noteOn(node, "changed", "quantized", `Its weights have ${bits.weights} bits; it computes in float.`));
  }
  const marked = [...found].map(([key, entry]) => ({ weight: key.slice(key.indexOf(" ") + 1), ...entry, biases: [] }));
  return { marked, notes };
}

export interface QatResult extends Pick<QatModel, "float" | "results" | "prepared" | "corrections"> {
  readonly model: Model;
  readonly notes: readonly Note[];
  /** Its metrics are those of the simulation: the student before is quantized and not trained. */
  readonly training: Distillation;
  /** False when no epoch was better than the start on the samples that were held out: then `model` is quantized and not trained. True where none were. */
  readonly helped: boolean;
}

/**
 * Trains `qat` on a teacher's outputs, on labels, or both, as an offline distillation does, and quantizes what comes of it. Throws as
 * `distillOffline` does.
 */
export async function trainQat(
  qat: QatModel,
  spec: Omit<OfflineDistillation, "student" | "takeApart" | "reinitialize" | "baseline">,
  hooks: PhaseHooks,
): Promise<QatResult> {
  let student: FakeQuantized | undefined;
  const takeApart = (watch: readonly string[]) => {
    student = qat.fakeQuantize(watch);
    return student.trainable;
  };
  const start = qat.fakeQuantize([]);
  const training = await distillOffline(
    { ...spec, student: qat.graph, takeApart, reinitialize: false, baseline: false },
    hooks,
  );
  const helped = await isBetter(training, start, spec, hooks, qat.graph);
  const { model, notes } = qat.finish(helped ? student!.finish(training.run.values) : start.finish());
  const { float, results, prepared, corrections } = qat;
  return { model, notes, training, helped, float, results, prepared, corrections };
}

/** Whether the best epoch was better than the start, on the samples that were held out; true where none were. */
async function isBetter(
  { run }: Distillation,
  start: FakeQuantized,
  spec: Omit<OfflineDistillation, "student" | "takeApart" | "reinitialize" | "baseline">,
  { openSession, signal }: PhaseHooks,
  graph: Model,
): Promise<boolean> {
  const { loss, teacher: model } = spec;
  const { seed, threads, batchSize } = spec.training;
  const { validation } = splitSamples(spec.samples, spec.validationSplit, seed);
  if (run.bestMetric === null || !validation) return true;
  const pairs = comparedOutputs(model ?? graph, graph, loss);
  const metric = spec.metric ?? agreementWith(pairs[0]!);
  const read = teacherValues({ ...loss, klWeight: 1 }, pairs);
  const teacher =
    metric.readsComputedTargets && model ? await openTeacher(model, read, { openSession, threads }) : null;
  try {
    const judge = { samples: validation, metric, batchSize, threads, openSession, signal, teacher };
    const before = (await judgeNetwork(judge, start.trainable))!;
    return metric.better === "higher" ? run.bestMetric > before : run.bestMetric < before;
  } finally {
    await teacher?.close();
  }
}
