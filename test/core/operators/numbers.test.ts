/** What records say of operators as functions of numbers, held against what onnxruntime computes. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Model, Node, Value } from "../../../src/core/onnx/ir.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import type { OperatorRecord } from "../../../src/core/operators/operator-record.ts";
import { entryFor, ONNX_OPERATORS, type OpType, parameterOf } from "../../../src/core/operators/operators.ts";
import { Random } from "../../../src/core/random.ts";
import { type AttrShorthand, GraphMaker } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";

const DIMS = [2, 3, 4, 4];
type Attrs = Readonly<Record<string, AttrShorthand>>;
type More = (make: GraphMaker, x: Value) => readonly (Value | undefined)[];

const float = (value: number) => ({ type: "float", value }) as const;
const scalar = (value: number) => (make: GraphMaker) => make.floats("c", [], [value]);
const none: More = () => [];

/** What an operator reads behind x [2, 3, 4, 4], and its attributes. Operators of one input need no entry. */
const USES: Readonly<Partial<Record<OpType, { more?: More; attrs?: Attrs }>>> = {
  Add: { more: (make) => [make.weight("c", [3, 1, 1], 1)] },
  Sub: { more: (make) => [make.weight("c", [3, 1, 1], 1)] },
  Mul: { more: (make) => [make.weight("c", [3, 1, 1], 1)] },
  Div: { more: (make) => [make.floats("c", [3, 1, 1], [-2, 0.5, 3])] },
  Max: { more: (make) => [make.weight("c", [3, 1, 1], 1)] },
  Min: { more: (make) => [make.weight("c", [3, 1, 1], 1)] },
  Sum: { more: (make) => [make.weight("c", [3, 1, 1], 1)] },
  Clip: { more: (make) => [scalar(-0.5)(make), scalar(0.7)(make)] },
  PRelu: { more: (make) => [make.weight("slope", [3, 1, 1], 1)] },
  Cast: { attrs: { to: 1 } },
  Pad: { more: (make) => [make.ints("pads", [0, 0, 1, 1, 0, 0, 1, 1])] },
  Resize: {
    more: (make) => [undefined, make.floats("scales", [4], [1, 1, 2, 2])],
    attrs: { mode: "linear" },
  },
  MaxPool: { attrs: { kernel_shape: [2, 2] } },
  AveragePool: { attrs: { kernel_shape: [2, 2] } },
  LpPool: { attrs: { kernel_shape: [2, 2] } },
  BatchNormalization: {
    more: (make) =>
      ["scale", "bias", "mean"].map((name) => make.weight(name, [3], 1)).concat(make.floats("var", [3], [1, 2, 3])),
  },
};

/** Not of the newest version, of integers, or of other ranks: they have tests of their own. */
const ELSEWHERE = new Set<string>(["Upsample", "Where", "Pow", "Mean"]);

function modelOf(opType: OpType, attrs?: Attrs): Model {
  const make = new GraphMaker({ opset: 20 });
  const x = make.input("x", DIMS);
  const { more = none, attrs: given } = USES[opType] ?? {};
  make.output(make.op(opType, [x, ...more(make, x)], attrs ?? given), "y");
  return make.model;
}

async function results(model: Model, x: Float32Array<ArrayBuffer>): Promise<Float64Array> {
  const { y } = await runModel(model, { x: tensorOf("float32", DIMS, x) });
  return Float64Array.from(floatsOf(y as Tensor));
}

function numbers(seed: string, deviation = 1): Float32Array<ArrayBuffer> {
  const data = new Float32Array(DIMS.reduce((a, b) => a * b));
  new Random(1, seed).fillNormal(data);
  return data.map((value) => deviation * value);
}

function assertNear(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  assert.equal(actual.length, expected.length, what);
  const peak = Math.max(1e-3, ...Array.from(expected, Math.abs));
  for (let i = 0; i < expected.length; i++) {
    assert.ok(Math.abs(actual[i]! - expected[i]!) <= 4e-6 * peak, `${what}: ${actual[i]} is not ${expected[i]}`);
  }
}

const RECORDS = Object.entries<OperatorRecord>(ONNX_OPERATORS) as [OpType, OperatorRecord][];
const those = (has: (record: OperatorRecord) => unknown) =>
  RECORDS.filter(([opType, record]) => has(record) && !ELSEWHERE.has(opType));

describe("what onnxruntime computes is what records say", () => {
  for (const [opType] of those(({ homogeneous }) => homogeneous)) {
    test(`${opType} is positively homogeneous, channel by channel`, async () => {
      const factors = [3, 0.25, 7];
      const x = numbers(opType);
      const perChannel = 16;
      const scaled = x.map((value, i) => value * factors[Math.floor(i / perChannel) % 3]!);
      const y = await results(modelOf(opType), x);
      const block = y.length / 6;
      const expected = y.map((value, i) => value * factors[Math.floor(i / block) % 3]!);
      assertNear(await results(modelOf(opType), scaled), expected, opType);
    });
  }

  for (const [opType] of those(({ small }) => small === "linear")) {
    test(`${opType} makes sums of sums`, async () => {
      const [a, b] = [numbers("a"), numbers("b")];
      const model = modelOf(opType);
      const zero = await results(model, new Float32Array(a.length));
      const [fa, fb, fab] = [
        await results(model, a),
        await results(model, b),
        await results(
          model,
          a.map((value, i) => value + b[i]!),
        ),
      ];
      assertNear(
        fab,
        fa.map((value, i) => value + fb[i]! - zero[i]!),
        opType,
      );
    });
  }

  for (const [opType, { magnitude }] of those((record) => record.magnitude !== undefined)) {
    test(`${opType} is no larger than is said`, async () => {
      for (const largest of [0.5, 3, 2000]) {
        const raw = numbers(opType, largest);
        const x = raw.map((value) => Math.max(-largest, Math.min(largest, value)));
        const model = modelOf(opType);
        const [node] = [...model.nodes()] as [Node];
        const ofInputs = node.inputs.map((value) => {
          if (!value) return 0;
          const { constant } = value;
          return constant
            ? Math.max(...Array.from(constant.dtype === "float32" ? floatsOf(constant) : [0], Math.abs))
            : largest;
        });
        const limit =
          typeof magnitude === "function"
            ? magnitude(node, ofInputs)
            : typeof magnitude === "number"
              ? magnitude
              : Math.max(...ofInputs);
        for (const value of await results(model, x)) {
          if (Number.isFinite(value))
            assert.ok(Math.abs(value) <= limit * (1 + 1e-6), `${opType}(${largest}): ${value}`);
        }
      }
    });
  }

  for (const [opType, { affine }] of those((record) => record.affine)) {
    for (const at of [0, 1] as const) {
      test(`${opType} of a tensor and a number in place ${at}`, async () => {
        for (const constant of [2.5, -0.75]) {
          const make = new GraphMaker();
          const [x, c] = [make.input("x", DIMS), make.floats("c", [], [constant])];
          make.output(make.op(opType, at === 0 ? [c, x] : [x, c]), "y");
          const data = numbers(opType);
          const said = affine!(constant, at);
          const actual = await results(make.model, data);
          if (!said) {
            // No line goes through three of its points.
            const [a, b, d] = [0, 1, 2].map((i) => [data[i]!, actual[i]!] as const);
            const slope = (p: readonly [number, number], q: readonly [number, number]) => (q[1] - p[1]) / (q[0] - p[0]);
            assert.ok(Math.abs(slope(a!, b!) - slope(b!, d!)) > 1e-3);
          } else
            assertNear(
              actual,
              Float64Array.from(data, (value) => said.factor * value + said.shift),
              opType,
            );
        }
      });
    }
  }

  for (const [opType, { clamps }] of those((record) => record.clamps)) {
    test(`${opType} cuts off at its limits and changes nothing between them`, async () => {
      const model = modelOf(opType);
      const limits = clamps!([...model.nodes()][0]!);
      const numberOf = (limit: number | Value | undefined, otherwise: number) =>
        limit === undefined ? otherwise : typeof limit === "number" ? limit : floatsOf(limit.constant!)[0]!;
      const [low, high] = [numberOf(limits.low, -Infinity), numberOf(limits.high, Infinity)];
      const x = numbers(opType);
      assertNear(
        await results(model, x),
        Float64Array.from(x, (value) => Math.min(Math.max(value, low), high)),
        opType,
      );
    });
  }

  test("attributes that a node does not give are those of its record", async () => {
    for (const [opType, { defaults = {} }] of RECORDS) {
      const names = Object.keys(defaults).filter((name) => !Number.isInteger(defaults[name]) || name === "alpha");
      if (names.length === 0 || ["Gemm", "Swish", "Celu", "ThresholdedRelu"].includes(opType)) continue;
      const more: Partial<Record<OpType, More>> = {
        InstanceNormalization: (make) => [make.weight("s", [3], 1), make.weight("b", [3], 1)],
        LayerNormalization: (make) => [make.weight("s", [4], 1)],
        RMSNormalization: (make) => [make.weight("s", [4], 1)],
        BatchNormalization: USES.BatchNormalization!.more!,
      };
      // onnxruntime 1.30 takes GroupNormalization from operator set 18 with scales of groups only.
      if (opType === "GroupNormalization") continue;
      const run = async (attrs: Attrs) => {
        const make = new GraphMaker({ opset: opType === "RMSNormalization" ? 23 : 20 });
        const x = make.input("x", DIMS);
        make.output(make.op(opType, [x, ...(entryFor(more, { domain: "", opType }) ?? none)(make, x)], attrs), "y");
        const node = [...make.model.nodes()][0]!;
        for (const name of names) assert.equal(Math.fround(parameterOf(node, name)), Math.fround(defaults[name]!));
        return results(make.model, numbers(opType, 1e-2));
      };
      const extra: Attrs = opType === "LRN" ? { size: 3 } : {};
      const given = Object.fromEntries(names.map((name) => [name, float(defaults[name]!)]));
      assert.deepEqual(await run(extra), await run({ ...extra, ...given }), opType);
    }
  });

  for (const [opType] of those(({ random }) => random)) {
    test(`${opType} is drawn anew by each node`, async () => {
      const make = new GraphMaker();
      const isAlone = opType === "RandomNormal" || opType === "RandomUniform";
      const x = isAlone ? [] : [make.input("x", [2, 64])];
      const attrs: Attrs = {
        ...(isAlone && { shape: [2, 64] }),
        ...(opType === "Multinomial" && { sample_size: 64 }),
      };
      const dtype = opType === "Multinomial" ? "int32" : "float32";
      for (const name of ["a", "b"]) make.output(make.op(opType, x, attrs), name, undefined, dtype);
      const feeds = isAlone ? {} : { x: tensorOf("float32", [2, 64], new Float32Array(128).fill(0.5)) };
      const { a, b } = await runModel(make.model, feeds);
      assert.notDeepEqual([...a!.bytes], [...b!.bytes]);
    });
  }
});
