/**
 * Distillation on MNIST: a CNN teacher (trained first, or read from the file when it is there) and a student of at most 5 % of its
 * parameters, trained on labels alone and with the teacher, from the same start, on the same images, for several seeds. Accuracies are of
 * the 10,000 test images; the number of epochs was chosen on training images.
 *
 *   node bench/distill-mnist.ts TEACHER.onnx [seed,seed,...] [epochs] [samples] [threads]
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import { distillOffline } from "../src/core/distill/offline.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { train } from "../src/core/train/loop.ts";
import { crossEntropy } from "../src/core/train/losses.ts";
import { splitSamples } from "../src/core/train/samples.ts";
import { createTrainable, exportTrained } from "../src/core/train/trainable.ts";
import { cnn, NetworkBuilder } from "../test/support/networks.ts";
import { mnist, mnistSettings, SHIFTED, TOP1 } from "./mnist.ts";

const [path, seeds = "1,2,3", epochs = "12", count = "60000", threads = "2"] = process.argv.slice(2);
if (!path) throw new Error("Where is the teacher kept? node bench/distill-mnist.ts TEACHER.onnx");

const settings = mnistSettings({ epochs: Number(epochs), threads: Number(threads) });
const samples = mnist("training", Number(count));
const test = mnist("test");

function studentNetwork(): Model {
  const net = new NetworkBuilder();
  let x = net.input(["n", 1, 28, 28]);
  let from = 1;
  for (const to of [8, 12, 16]) {
    x = net.maxPool(net.relu(net.batchNorm(net.conv(x, from, to), to)));
    from = to;
  }
  return net.output(net.linear(net.g.op("Flatten", [x]), 16 * 9, 10), ["n", 10]);
}

async function trainTeacher(): Promise<Model> {
  const trainable = createTrainable(cnn([16, 32], 64), { reinitializeSeed: 1 });
  const { training, validation } = splitSamples(samples, 0.05, 1);
  const result = await train(
    {
      trainable,
      training,
      validation,
      metric: TOP1,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    // Shifted images teach it what the students, which see the images as they are, can only learn from it.
    { ...settings, augmentation: SHIFTED },
    { openSession, onEpoch: (record) => console.log(`teacher ${JSON.stringify(record)}`) },
  );
  return exportTrained(trainable, result.values);
}

if (!existsSync(path)) writeFileSync(path, modelToBytes(await trainTeacher()));
const teacher = loadModel(readFileSync(path));
const parameters = (model: Model) => createTrainable(model).parameters.reduce((sum, { data }) => sum + data.length, 0);
const share = parameters(studentNetwork()) / parameters(teacher);
console.log(`student: ${parameters(studentNetwork())} parameters, ${(100 * share).toFixed(1)} % of the teacher's`);

const percent = (x: number) => `${(100 * x).toFixed(2)} %`;
const gaps: number[] = [];
for (const seed of seeds.split(",").map(Number)) {
  const started = performance.now();
  const { metrics } = await distillOffline(
    {
      teacher,
      student: studentNetwork(),
      reinitialize: true,
      loss: DISTILLATION_LOSS,
      training: { ...settings, seed },
      samples,
      validationSplit: 0.05,
      evaluation: test,
      metric: TOP1,
      baseline: true,
    },
    { openSession },
  );
  const { studentAfter } = metrics!;
  const [best, baseline] = [metrics!.teacher!, metrics!.baseline!];
  gaps.push((studentAfter - baseline) / (best - baseline));
  console.log(
    `seed ${seed}: teacher ${percent(best)}, student ${percent(studentAfter)} distilled, ${percent(baseline)} on labels: ` +
      `${percent(gaps.at(-1)!)} of the gap closed, ${((performance.now() - started) / 1000).toFixed(0)} s`,
  );
}
console.log(`mean gap closed: ${percent(gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length)}`);
