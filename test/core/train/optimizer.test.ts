import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  applyUpdate,
  moveAverage,
  OPTIMIZERS,
  type OptimizerSpec,
  slotCount,
  type Update,
} from "../../../src/core/train/optimizer.ts";
import {
  addGradients,
  allocateParameters,
  type Floats,
  type ParameterArrays,
} from "../../../src/core/train/parameter-kernels.ts";

function close(actual: readonly number[], expected: readonly number[], tolerance = 1e-6): void {
  actual.forEach((x, i) => {
    assert.ok(Math.abs(x - expected[i]!) < tolerance, `${actual} instead of ${expected}`);
  });
}

interface Run {
  readonly spec: OptimizerSpec;
  readonly start: readonly number[];
  /** One for each step. */
  readonly gradients: readonly (readonly number[])[];
  readonly update: Omit<Update, "step">;
}

function run({ spec, start, gradients, update }: Run): number[] {
  const [{ data: parameter, slots }] = allocateParameters([start.length]) as [ParameterArrays];
  parameter.set(start);
  gradients.forEach((gradient, i) => {
    const used = slots.slice(0, slotCount(spec));
    applyUpdate(spec, parameter, Float32Array.from(gradient), used, { ...update, step: i + 1 });
  });
  return [...parameter];
}

/** One scalar at a time in double precision, written after the definitions in the papers. */
function reference({ spec, start, gradients, update }: Run): number[] {
  const { learningRate, weightDecay, gradientScale } = update;
  return start.map((from, i) => {
    let [p, first, second] = [from, 0, 0];
    for (const [at, gradient] of gradients.entries()) {
      const isDecoupled = spec.kind === "adamw";
      const g = gradient[i]! * gradientScale + (isDecoupled ? 0 : weightDecay * p);
      if (spec.kind === "sgd") {
        first = spec.momentum * first + g;
        p -= learningRate * (spec.nesterov ? g + spec.momentum * first : first);
        continue;
      }
      if (isDecoupled) p -= learningRate * weightDecay * p;
      first += (1 - spec.beta1) * (g - first);
      second += (1 - spec.beta2) * (g * g - second);
      const [mean, square] = [first / (1 - spec.beta1 ** (at + 1)), second / (1 - spec.beta2 ** (at + 1))];
      p -= (learningRate * mean) / (Math.sqrt(square) + spec.epsilon);
    }
    return p;
  });
}

const between = (min: number, max: number) => fc.double({ min, max, noNaN: true });
const anySpec: fc.Arbitrary<OptimizerSpec> = fc.oneof(
  fc.record({
    kind: fc.constant("sgd" as const),
    momentum: fc.oneof(fc.constant(0), between(0.1, 0.99)),
    nesterov: fc.boolean(),
  }),
  fc.record({
    kind: fc.constantFrom<"adam" | "adamw">("adam", "adamw"),
    beta1: between(0, 0.95),
    beta2: between(0.5, 0.999),
    epsilon: fc.constantFrom(1e-8, 1e-3, 1),
  }),
);

describe("optimizers follow their definitions", () => {
  test("with any settings, over some steps", () => {
    const lengths = { minLength: 5, maxLength: 5 };
    const anyRun = fc.record({
      spec: anySpec,
      start: fc.array(between(-3, 3), lengths),
      gradients: fc.array(fc.array(between(-2, 2), lengths), { minLength: 1, maxLength: 6 }),
      update: fc.record({
        learningRate: between(1e-3, 0.1),
        weightDecay: fc.oneof(fc.constant(0), between(0.01, 0.5)),
        gradientScale: between(0.1, 1),
      }),
    });
    fc.assert(
      fc.property(anyRun, (it) => close(run(it), reference(it), 1e-5)),
      { numRuns: 500 },
    );
  });

  test("SGD without momentum keeps no state", () => {
    assert.equal(slotCount({ kind: "sgd", momentum: 0, nesterov: false }), 0);
  });

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

test("gradients of parts are added to the mean, and its squares are summed", () => {
  for (const n of [1, 3, 4, 4096, 4097, 9001]) {
    const [before, { sum }, after] = allocateParameters([5, n, 5]) as [
      ParameterArrays,
      ParameterArrays,
      ParameterArrays,
    ];
    for (const { data, sum: neighbour } of [before, after]) for (const array of [data, neighbour]) array.fill(1);
    const parts = [1, 2, 3, 4].map((phase) => Float32Array.from({ length: n }, (_, i) => Math.sin(i + phase)));
    addGradients(sum, parts.slice(0, 2), { fresh: true, share: 1 });
    const squares = addGradients(sum, parts.slice(2), { fresh: false, share: 0.25 });
    const expected = Array.from({ length: n }, (_, i) => parts.reduce((total, part) => total + part[i]!, 0) / 4);
    assert.ok(
      [...sum].every((x, i) => Math.abs(x - expected[i]!) < 2e-7),
      `length ${n}`,
    );
    const exact = sum.reduce((total, x) => total + x * x, 0);
    assert.ok(Math.abs(squares - exact) <= 1e-12 * exact, `squares, length ${n}`);
    const neighbours = [before, after].flatMap(({ data, sum: neighbour }) => [data, neighbour]);
    assert.ok(
      neighbours.every((array) => array.every((x) => x === 1)),
      `neighbours, length ${n}`,
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
