/** A small float model that tests of quantization-aware training start from, and what is asked of it and of its simulation. */
import { meanMeter } from "../../src/core/meter.ts";
import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { floatsOf } from "../../src/core/onnx/tensor.ts";
import { prepareQat, type QatModel, type QatOptions } from "../../src/core/qat/qat.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { train } from "../../src/core/train/loop.ts";
import { crossEntropy } from "../../src/core/train/losses.ts";
import type { Samples } from "../../src/core/train/samples.ts";
import { createTrainable, exportTrained, type TrainedValues } from "../../src/core/train/trainable.ts";
import { createValidator, type ValidationMetric } from "../../src/core/train/validate.ts";
import { NetworkBuilder } from "./networks.ts";
import { fresh, SHORT, samples } from "./short-training.ts";

/** Two convolutions, the second with enough weights to be packed, and a dense layer. */
function network(seed: number): Model {
  const net = new NetworkBuilder(seed);
  const first = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, 16), 16));
  const second = net.relu(net.batchNorm(net.conv(first, 16, 16), 16));
  return net.output(net.linear(net.g.op("Flatten", [net.maxPool(second, 4)]), 64, 4), ["n", 4]);
}

export async function* batches() {
  for (let start = 0; start < 128; start += 32) {
    yield samples.gather(Uint32Array.from({ length: 32 }, (_, i) => start + i)).feeds;
  }
}

export const openModel = (model: Model, options?: object) => openSession({ bytes: modelToBytes(model) }, options);
export const optionsOf = (bits: QatOptions["bits"]): QatOptions => ({
  ...{ bits, method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange: false, algorithm: "lsq" },
  ...{ samples: 4, corrections: false },
});

export const prepare = (float: Model, bits: QatOptions["bits"], more: Partial<QatOptions> = {}) =>
  prepareQat(float, { batches }, { ...optionsOf(bits), ...more }, { openModel });

/** A float model that was trained for a short while. */
export async function trainedFloat(): Promise<Model> {
  const trainable = createTrainable(network(1));
  const result = await train(
    {
      trainable,
      training: samples,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    { ...SHORT, epochs: 8 },
    { openSession },
  );
  return exportTrained(trainable, result.values);
}

/** All logits of a model, as onnxruntime runs it. */
export async function logitsOf(model: Model, options?: object): Promise<Float32Array> {
  const session = await openModel(model, options);
  try {
    const all = Uint32Array.from({ length: fresh.count }, (_, i) => i);
    return floatsOf((await session.run(fresh.gather(all).feeds)).logits!);
  } finally {
    await session.close();
  }
}

/** All logits of the simulation. */
export async function simulated(qat: QatModel, values?: TrainedValues, on: Samples = fresh): Promise<Float32Array> {
  const { trainable } = qat.fakeQuantize([]);
  const logits: number[] = [];
  const record: ValidationMetric = {
    name: "record",
    better: "higher",
    start: () =>
      meanMeter((outputs) => {
        logits.push(...floatsOf(outputs.logits!));
        return { sum: 0, positions: 1 };
      }),
  };
  const validator = await createValidator(trainable, { metric: record, batchSize: 100, threads: 1, openSession });
  await validator.evaluate(values ?? trainable, on);
  await validator.close();
  return Float32Array.from(logits);
}

export function sqnrDb(exact: Float32Array, other: Float32Array): number {
  let [signal, noise] = [0, 0];
  for (const [i, x] of exact.entries()) {
    signal += x * x;
    noise += (x - other[i]!) ** 2;
  }
  return 10 * Math.log10(signal / noise);
}
