/**
 * Trains an MLP and a CNN with BatchNormalization on MNIST from scratch and prints the history and the accuracy on the 10,000 test images,
 * of the exported inference graph.
 *
 *   node bench/train-mnist.ts [mlp|cnn] [epochs] [samples] [threads] [learning rate] [float32|nearest|stochastic]
 *
 * The last says what weights are kept in: float32, or bfloat16 with updates rounded so.
 * Epochs are judged on 3,000 of the training images; the test images are seen once, at the end.
 */

import { modelToBytes } from "../src/core/onnx/save.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { train } from "../src/core/train/loop.ts";
import { crossEntropy } from "../src/core/train/losses.ts";
import { splitSamples } from "../src/core/train/samples.ts";
import { createTrainable, exportTrained } from "../src/core/train/trainable.ts";
import type { UpdateRounding } from "../src/core/train/update-roundings.ts";
import { cnn, mlp } from "../test/support/networks.ts";
import { mnist, mnistSettings, SHIFTED, TOP1 } from "./mnist.ts";

const [kind = "cnn", epochs = "6", samples = "60000", threads = "2", rate, updates = "float32"] = process.argv.slice(2);
const model = kind === "mlp" ? mlp([784, 512, 256, 10]) : cnn([16, 32], 64);
const { training, validation } = splitSamples(mnist("training", Number(samples)), 0.05, 1);
const test = mnist("test");
const started = performance.now();

const trainable = createTrainable(model, { reinitializeSeed: 1 });
const parameters = trainable.parameters.reduce((sum, { data }) => sum + data.length, 0);
console.log(`${kind}: ${parameters} parameters, ${training.count} samples`);
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
  mnistSettings({
    ...{ epochs: Number(epochs), threads: Number(threads), augmentation: kind === "cnn" ? SHIFTED : null },
    ...(rate !== undefined && { learningRate: Number(rate) }),
    ...(updates !== "float32" && { updateRounding: updates as UpdateRounding }),
  }),
  {
    openSession,
    onEpoch: (record) => console.log(JSON.stringify(record)),
  },
);

const trained = exportTrained(trainable, result.values);
const session = await openSession({ bytes: modelToBytes(trained) }, { threads: 2 });
const meter = TOP1.start();
for (let start = 0; start < test.count; start += 500) {
  const batch = test.gather(Array.from({ length: 500 }, (_, i) => start + i));
  meter.add(await session.run(batch.feeds), batch.targets);
}
await session.close();
console.log(
  `exported model: ${(100 * meter.value).toFixed(2)} % of the test images (best epoch ${result.bestEpoch}), ` +
    `${result.samplesPerSecond.toFixed(0)} samples/s, ${((performance.now() - started) / 1000).toFixed(1)} s in all`,
);
