import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Floats } from "../../../src/core/train/adam-kernel.ts";
import { allocateParameters, type ParameterArrays } from "../../../src/core/train/adam-kernel.ts";
import {
  applyUpdate,
  moveAverage,
  OPTIMIZERS,
  type OptimizerSpec,
  slotCount,
} from "../../../src/core/train/optimizer.ts";

const START = [0.5, -1.25, 3];
const GRADIENTS = [
  [0.1, -0.2, 1],
  [0.3, 0.1, -2],
  [-0.5, 0.7, 0.25],
];
const UPDATE = { learningRate: 0.05, weightDecay: 0.1, gradientScale: 0.5 };

function run(spec: OptimizerSpec, update = UPDATE): number[] {
  const [{ data: parameter, slots }] = allocateParameters([START.length]) as [ParameterArrays];
  parameter.set(START);
  GRADIENTS.forEach((gradient, i) => {
    applyUpdate(spec, parameter, Float32Array.from(gradient), slots, { ...update, step: i + 1 });
  });
  return [...parameter];
}

function close(actual: readonly number[], expected: readonly number[]): void {
  actual.forEach((x, i) => {
    assert.ok(Math.abs(x - expected[i]!) < 1e-6, `${actual} instead of ${expected}`);
  });
}

/** One scalar at a time in double precision, written after the definitions in the papers. */
function reference(step: (p: number, g: number, t: number, memory: Record<string, number>) => number): number[] {
  return START.map((start, i) => {
    const memory: Record<string, number> = {};
    return GRADIENTS.reduce((p, gradient, t) => step(p, gradient[i]! * UPDATE.gradientScale, t + 1, memory), start);
  });
}

describe("optimizers follow their definitions", () => {
  const { learningRate: lr, weightDecay } = UPDATE;
  for (const nesterov of [false, true]) {
    test(`SGD with momentum${nesterov ? ", Nesterov" : ""}`, () => {
      const expected = reference((p, gradient, _t, memory) => {
        const g = gradient + weightDecay * p;
        memory.v = 0.9 * (memory.v ?? 0) + g;
        return p - lr * (nesterov ? g + 0.9 * memory.v : memory.v);
      });
      close(run({ kind: "sgd", momentum: 0.9, nesterov }), expected);
    });
  }

  test("SGD without momentum keeps no state", () => {
    const spec = { kind: "sgd", momentum: 0, nesterov: false } as const;
    assert.equal(slotCount(spec), 0);
    close(
      run(spec),
      reference((p, g) => p - lr * (g + weightDecay * p)),
    );
  });

  for (const kind of ["adam", "adamw"] as const) {
    test(kind, () => {
      const expected = reference((p, gradient, t, memory) => {
        const g = kind === "adam" ? gradient + weightDecay * p : gradient;
        memory.m = 0.9 * (memory.m ?? 0) + 0.1 * g;
        memory.v = 0.999 * (memory.v ?? 0) + 0.001 * g * g;
        const mHat = memory.m / (1 - 0.9 ** t);
        const vHat = memory.v / (1 - 0.999 ** t);
        const decayed = kind === "adamw" ? p - lr * weightDecay * p : p;
        return decayed - (lr * mHat) / (Math.sqrt(vHat) + 1e-8);
      });
      close(run(OPTIMIZERS[kind]), expected);
    });
  }

  test("Adam's first step is the learning rate, whatever the gradient's size", () => {
    const [{ data: parameter, slots }] = allocateParameters([2]) as [ParameterArrays];
    parameter.fill(1);
    const update = { learningRate: 0.01, weightDecay: 0, gradientScale: 1, step: 1 };
    applyUpdate(OPTIMIZERS.adam, parameter, Float32Array.from([1e-3, -1e3]), slots, update);
    close([...parameter], [0.99, 1.01]);
  });
});

test("Adam updates every element of a parameter, whatever the length, and none of its neighbours'", () => {
  const spec = OPTIMIZERS.adamw;
  const update = { learningRate: 0.01, weightDecay: 0.1, gradientScale: 1, step: 3 };
  const values = (n: number, phase: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i + phase));
  for (const n of [1, 3, 4, 5, 4095, 4096, 4097, 40001]) {
    const all = allocateParameters([7, n, 7]);
    const neighbours = [all[0]!, all[2]!].flatMap(({ data, slots }) => [data, ...slots]);
    for (const array of neighbours) array.fill(1);
    const { data: p, slots } = all[1]!;
    const [m, v] = slots;
    p.set(values(n, 0));
    m.set(values(n, 2));
    v.set(values(n, 3).map(Math.abs));
    const gradient = values(n, 1);
    const expected = [...p].map((x, i) => {
      const first = 0.9 * m[i]! + 0.1 * gradient[i]!;
      const second = 0.999 * v[i]! + 0.001 * gradient[i]! ** 2;
      return 0.999 * x - (0.01 * first) / (1 - 0.9 ** 3) / (Math.sqrt(second / (1 - 0.999 ** 3)) + 1e-8);
    });
    applyUpdate(spec, p, gradient, slots, update);
    assert.ok(
      neighbours.every((array) => array.every((x) => x === 1)),
      `neighbours, length ${n}`,
    );
    assert.ok(
      [...p].every((x, i) => Math.abs(x - expected[i]!) < 1e-6),
      `length ${n}`,
    );
  }
});

test("arrays that the kernel cannot see are refused", () => {
  const [p, g, m, v] = [0, 1, 2, 3].map(() => new Float32Array(4)) as [Floats, Floats, Floats, Floats];
  const update = { learningRate: 0.01, weightDecay: 0, gradientScale: 1, step: 1 };
  assert.throws(() => applyUpdate(OPTIMIZERS.adam, p, g, [m, v], update), { code: "internal" });
});

test("a moving average", () => {
  const average = Float32Array.from([1, 2]);
  moveAverage(average, Float32Array.from([3, 4]), 0.75);
  close([...average], [1.5, 2.5]);
});
