import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { train } from "../../../src/core/train/loop.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { toNearestBfloat16, toRandomBfloat16 } from "../../../src/core/train/rewrites.ts";
import { SCHEDULES } from "../../../src/core/train/schedule.ts";
import { createTrainable } from "../../../src/core/train/trainable.ts";
import type { TrainingSettings } from "../../../src/core/train/training-task.ts";
import type { UpdateRounding } from "../../../src/core/train/update-roundings.ts";
import { halves, NetworkBuilder } from "../../support/networks.ts";

/** The two bfloat16 values around a number of float32, from the definition: 8 significant bits. */
function neighbours(x: number): readonly [number, number] {
  if (x === 0) return [0, 0];
  const step = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), -126) - 7);
  return [Math.floor(x / step) * step, Math.ceil(x / step) * step];
}

// Far from the ends of the range, and from where log2 itself is rounded.
const weight = fc.double({ min: -1000, max: 1000, noNaN: true }).map((x) => Math.fround(Math.abs(x) < 1e-6 ? 0 : x));

describe("weights in bfloat16", () => {
  test("the nearest value, ties to the even one", () => {
    fc.assert(
      fc.property(weight, (x) => {
        const data = Float32Array.of(x);
        toNearestBfloat16(data);
        const [down, up] = neighbours(x);
        const nearest = x - down < up - x ? [down] : x - down > up - x ? [up] : [down, up];
        assert.ok(nearest.includes(data[0]!), `${x} -> ${data[0]}, not ${nearest}`);
      }),
      { numRuns: 2000 },
    );
    // 1 + 1/256 is between 1 and 1 + 1/128, 1 + 3/256 between the latter and 1 + 2/128.
    const ties = Float32Array.of(1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256);
    toNearestBfloat16(ties);
    assert.deepEqual([...ties], [1, 1 + 2 / 128, -1]);
  });

  test("one of the two values beside, with a mean that is the weight", () => {
    fc.assert(
      fc.property(weight, fc.nat(), (x, seed) => {
        const draws = 4096;
        const data = new Float32Array(draws).fill(x);
        toRandomBfloat16(data, new Random(seed, "test"));
        const [down, up] = neighbours(x);
        assert.ok(
          data.every((value) => value === down || value === up),
          `${x}: ${new Set(data)}, not ${[down, up]}`,
        );
        const mean = data.reduce((sum, value) => sum + value, 0) / draws;
        // Five standard deviations of the mean of a value that is up or down.
        assert.ok(Math.abs(mean - x) <= (5 * (up - down)) / 2 / Math.sqrt(draws) + 1e-12, `${x}: mean ${mean}`);
      }),
      { numRuns: 200 },
    );
  });

  test("updates below half a step are lost by the nearest, and kept on average by chance", async () => {
    const moved = async (updateRounding?: UpdateRounding) => {
      const net = new NetworkBuilder(4);
      const model = net.output(net.linear(net.g.op("Flatten", [net.input(["n", 1, 8, 8])]), 64, 4), ["n", 4]);
      const trainable = createTrainable(model);
      const { data } = trainable.parameters.find(({ role }) => role === "weight")!;
      toNearestBfloat16(data);
      const start = data.slice();
      const settings: TrainingSettings = {
        ...{ epochs: 10, batchSize: 32, optimizer: { kind: "sgd", momentum: 0, nesterov: false }, learningRate: 1e-5 },
        ...{ schedule: SCHEDULES.constant, warmupSteps: 0, weightDecay: 0, gradientClip: null, averageDecay: null },
        ...{ augmentation: null, patience: null, seed: 2, threads: 1, ...(updateRounding && { updateRounding }) },
      };
      const { values } = await train(
        {
          trainable,
          training: halves(320, 5),
          objective: ({ g, value, target }) => [
            { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
          ],
        },
        settings,
        { openSession },
      );
      const after = values.parameters.find(
        ({ name }) => name === trainable.parameters.find((it) => it.data === data)!.name,
      )!;
      return after.data.map((w, i) => w - start[i]!);
    };
    const [exact, nearest, random] = [await moved(), await moved("nearest"), await moved("stochastic")];
    const along = (other: Float32Array) =>
      other.reduce((sum, d, i) => sum + d * exact[i]!, 0) / exact.reduce((sum, d) => sum + d * d, 0);
    // Every update is less than half a step: the nearest loses it. By chance it is kept on average over 256 weights, each a whole step or nothing.
    assert.ok(along(nearest) < 0.1, `${along(nearest)} of the way with the nearest`);
    assert.ok(Math.abs(along(random) - 1) < 0.5, `${along(random)} of the way by chance`);
  });
});
