import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { Random } from "../../../src/core/random.ts";
import { applyUpdate, OPTIMIZERS } from "../../../src/core/train/optimizer.ts";
import { allocateParameters, type ParameterArrays } from "../../../src/core/train/parameter-kernels.ts";
import { UpdateThreads } from "../../../src/core/train/update-threads.ts";

/** Shares end within a parameter, at its end, and leave one that is smaller than a vector. */
const LENGTHS = [3, 200_000, 1, 65_536, 70_001];

function parametersFrom(seed: number): readonly ParameterArrays[] {
  const parameters = allocateParameters(LENGTHS);
  for (const [i, { data }] of parameters.entries()) new Random(seed, `parameter ${i}`).fillNormal(data);
  return parameters;
}

const bytesOf = (parameters: readonly ParameterArrays[]) =>
  parameters.map(({ data, slots }) =>
    [data, ...slots].map((array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64")),
  );

for (const [kind, threads] of [
  ["adamw", 2],
  ["adam", 3],
  ["sgd", 2],
] as const) {
  test(`${threads} threads give the bytes of one (${kind})`, async () => {
    const optimizer = OPTIMIZERS[kind];
    const [expected, actual] = [parametersFrom(1), parametersFrom(1)];
    const updater = new UpdateThreads(optimizer, threads, actual);
    try {
      // In the first steps the threads may not have started, in the last they have.
      for (let step = 1; step <= 6; step++) {
        if (step === 4) await setTimeout(1000);
        const gradients = LENGTHS.map((length, i) => {
          const gradient = new Float32Array(length);
          new Random(step, `gradient ${i}`).fillNormal(gradient);
          return gradient;
        });
        const update = { learningRate: 1e-2, weightDecay: 0.1, gradientScale: 0.5, step };
        for (const [i, { data, slots }] of expected.entries()) {
          applyUpdate(optimizer, data, gradients[i]!, slots, update);
        }
        // Some gradients are sums of parts, which threads read where they are.
        const given = actual.map((parameter, i) => {
          if (i % 2 === 0) return { parameter, gradient: gradients[i]!, update };
          parameter.sum.set(gradients[i]!);
          return { parameter, gradient: parameter.sum, update };
        });
        updater.apply(given);
        assert.deepEqual(bytesOf(actual), bytesOf(expected), `step ${step}`);
      }
    } finally {
      await updater.close();
    }
  });
}
