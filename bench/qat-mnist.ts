/**
 * Quantization-aware training on MNIST: a small CNN in float, quantized after training (the calibrated start of the training), and trained
 * with the rounding in it, on labels and on the float model's own outputs. Accuracies are of the 10,000 test images, simulated and of the
 * model that comes out, run by onnxruntime.
 *
 *   node bench/qat-mnist.ts FLOAT.onnx [epochs] [samples] [threads] [seed,seed,...] [8-8,4-8,2-8,4-4-pact,...]
 *
 * Each of the last: bits of weights, of activations (f for float), and the algorithm, `lsq` unless said otherwise.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { DISTILLATION_LOSS, type DistillationLoss } from "../src/core/distill/objective.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { prepareQat, type QatOptions, trainQat } from "../src/core/qat/qat.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { train } from "../src/core/train/loop.ts";
import { crossEntropy } from "../src/core/train/losses.ts";
import type { Samples } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import { createTrainable, exportTrained } from "../src/core/train/trainable.ts";
import { NetworkBuilder } from "../test/support/networks.ts";
import { mnist, mnistSettings, TOP1 } from "./mnist.ts";

const [path, epochs = "4", count = "60000", threads = "2", seeds = "1,2,3", widths = "8-8,4-8,2-8"] =
  process.argv.slice(2);
if (!path) throw new Error("Where is the float model kept? node bench/qat-mnist.ts FLOAT.onnx");

const settings = mnistSettings({ epochs: Number(epochs), threads: Number(threads) });
const samples = mnist("training", Number(count));
const test = mnist("test");
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;

function network(): Model {
  const net = new NetworkBuilder();
  let x = net.input(["n", 1, 28, 28]);
  let from = 1;
  for (const to of [8, 12, 16]) {
    x = net.maxPool(net.relu(net.batchNorm(net.conv(x, from, to), to)));
    from = to;
  }
  return net.output(net.linear(net.g.op("Flatten", [x]), 16 * 9, 10), ["n", 10]);
}

async function floatModel(): Promise<Model> {
  const trainable = createTrainable(network(), { reinitializeSeed: 1 });
  const result = await train(
    {
      trainable,
      training: samples,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    { ...settings, epochs: 6 },
    { openSession },
  );
  return exportTrained(trainable, result.values);
}

/** The metric of a model as onnxruntime runs it. */
async function accuracy(model: Model, { gather, count }: Samples): Promise<number> {
  const session = await openSession({ bytes: modelToBytes(model) }, { threads: Number(threads) });
  const meter = TOP1.start();
  for (let start = 0; start < count; start += 500) {
    const batch = gather(Array.from({ length: Math.min(500, count - start) }, (_, i) => start + i));
    meter.add(await session.run(batch.feeds), batch.targets);
  }
  await session.close();
  return meter.value;
}

if (!existsSync(path)) writeFileSync(path, modelToBytes(await floatModel()));
const float = loadModel(readFileSync(path));
console.log(`float ${percent(await accuracy(float, test))}`);

const LOSSES: Readonly<Record<string, Partial<DistillationLoss>>> = {
  labels: { klWeight: 0, labelWeight: 1 },
  self: { klWeight: 1, labelWeight: 0, temperature: 1 },
};

for (const width of widths.split(",")) {
  const [weights, activations, algorithm = "lsq"] = width.split("-");
  const options: QatOptions = {
    bits: {
      weights: Number(weights) as 8 | 4 | 2,
      activations: activations === "f" ? null : (Number(activations) as 8 | 4),
    },
    ...{ method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange: false },
    algorithm: algorithm as QatOptions["algorithm"],
  };
  const batches = async function* () {
    for (let i = 0; i < 256; i += 32) yield samples.gather(Array.from({ length: 32 }, (_, j) => i + j)).feeds;
  };
  const openModel = (model: Model, session?: object) => openSession({ bytes: modelToBytes(model) }, session);
  const qat = await prepareQat(float, batches, options, { openModel });
  const start = qat.finish(qat.fakeQuantize([]).finish()).model;
  console.log(`W${weights} A${activations} ${algorithm}, not trained: ${percent(await accuracy(start, test))}`);
  for (const [name, loss] of Object.entries(LOSSES)) {
    for (const seed of seeds.split(",").map(Number)) {
      const began = performance.now();
      const { model, training } = await trainQat(
        qat,
        {
          teacher: name === "labels" ? null : float,
          loss: { ...DISTILLATION_LOSS, ...loss },
          training: { ...settings, learningRate: 0.001, schedule: SCHEDULES.cosine, weightDecay: 0, seed },
          samples,
          validationSplit: 0.05,
          evaluation: test,
          metric: TOP1,
        },
        { openSession },
      );
      const { studentBefore, studentAfter } = training.metrics!;
      console.log(
        `  ${name} seed ${seed}: simulated ${percent(studentBefore)} -> ${percent(studentAfter)}, exported ${percent(await accuracy(model, test))}, ` +
          `${modelToBytes(model).length} bytes, ${((performance.now() - began) / 1000).toFixed(0)} s, ${training.run.samplesPerSecond.toFixed(0)} samples/s`,
      );
    }
  }
}
