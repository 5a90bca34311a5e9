import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ChannelLabels, relateChannels } from "../../../src/core/distill/channel-labels.ts";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { GraphMaker } from "../../support/graphs.ts";

type Attrs = Parameters<GraphMaker["op"]>[2];

/** One operator on values of these shapes, by name; its result is `y`. Constants have numbers for values. */
interface Case {
  readonly inputs: Readonly<Record<string, readonly number[] | { readonly ints: readonly number[] }>>;
  readonly y: readonly number[] | readonly (readonly number[])[];
  readonly attrs?: Attrs;
  readonly opset?: number;
}

/** The labels of a graph of one operator, and its values by name; of several results `y0`, `y1` … */
function labelsOf(opType: string, { inputs, y, attrs = {}, opset = 18 }: Case) {
  const make = new GraphMaker({ opset });
  const values: Record<string, Value> = {};
  for (const [name, dims] of Object.entries(inputs)) {
    values[name] = "ints" in dims ? make.ints(name, dims.ints) : make.input(name, dims);
  }
  const results = (Array.isArray(y[0]) ? y : [y]) as readonly (readonly number[])[];
  const node = make.node(opType, Object.values(values), attrs, results.length);
  const shapes = new Map<Value, readonly number[]>();
  for (const [name, dims] of Object.entries(inputs)) {
    shapes.set(values[name]!, "ints" in dims ? [dims.ints.length] : dims);
  }
  for (const [i, output] of node.outputs.entries()) {
    values[results.length > 1 ? `y${i}` : "y"] = output;
    shapes.set(output, results[i]!);
  }
  const labels = new ChannelLabels((value) => shapes.get(value)!);
  relateChannels(labels, [node], []);
  return { labels, values, shapes };
}

/** Axes of more than one element that are cut together, index by index; `!` says that they must stay. Axes that are tied to nothing are left out. */
function axesOf(opType: string, given: Case): string {
  const { labels, values, shapes } = labelsOf(opType, given);
  const known = new Set(labels.values);
  const classes = new Map<string, string[]>();
  for (const [name, value] of Object.entries(values)) {
    for (const [axis, size] of shapes.get(value)!.entries()) {
      if (size === 1 || !known.has(value)) continue;
      const units = Array.from({ length: size }, (_, i) => labels.unit(value, axis, i));
      const key = units.every((unit) => unit === undefined) ? "!" : units.join();
      classes.set(key, [...(classes.get(key) ?? []), `${name}${axis}`]);
    }
  }
  return [...classes]
    .filter(([key, axes]) => key === "!" || axes.length > 1)
    .map(([key, axes]) => axes.join("=") + (key === "!" ? "!" : ""))
    .join(" ");
}

describe("which axes are cut together", () => {
  for (const [opType, given, expected] of [
    ["Gemm", { inputs: { a: [2, 3], b: [3, 5], c: [5] }, y: [2, 5] }, "a0=y0 a1=b0 b1=c0=y1"],
    ["Gemm", { inputs: { a: [3, 2], b: [3, 5] }, y: [2, 5], attrs: { transA: 1 } }, "a0=b0 a1=y0 b1=y1"],
    ["Gemm", { inputs: { a: [2, 3], b: [5, 3] }, y: [2, 5], attrs: { transB: 1 } }, "a0=y0 a1=b1 b0=y1"],
    ["Gemm", { inputs: { a: [3, 2], b: [5, 3] }, y: [2, 5], attrs: { transA: 1, transB: 1 } }, "a0=b1 a1=y0 b0=y1"],
    ["Gemm", { inputs: { a: [2, 3], b: [3, 5], c: [2, 1] }, y: [2, 5] }, "a0=c0=y0 a1=b0 b1=y1"],
    ["Gemm", { inputs: { a: [2, 3], b: [3, 5], c: [1, 5] }, y: [2, 5] }, "a0=y0 a1=b0 b1=c1=y1"],
    ["MatMul", { inputs: { a: [2, 3], b: [3, 5] }, y: [2, 5] }, "a0=y0 a1=b0 b1=y1"],
    ["MatMul", { inputs: { a: [7, 2, 3], b: [7, 3, 5] }, y: [7, 2, 5] }, "a0=b0=y0 a1=y1 a2=b1 b2=y2"],
    ["MatMul", { inputs: { a: [7, 2, 3], b: [3, 5] }, y: [7, 2, 5] }, "a0=y0 a1=y1 a2=b0 b1=y2"],
    ["MatMul", { inputs: { a: [1, 2, 3], b: [7, 3, 5] }, y: [7, 2, 5] }, "a1=y1 a2=b1 b0=y0 b2=y2"],
    ["MatMul", { inputs: { a: [3], b: [3, 5] }, y: [5] }, "a0=b0=b1=y0!"],
    ["MatMul", { inputs: { a: [2, 3], b: [3] }, y: [2] }, "a0=a1=b0=y0!"],
    ["Conv", { inputs: { x: [2, 3, 8, 8], w: [5, 3, 3, 3], b: [5] }, y: [2, 5, 8, 8] }, "x1=w1 w0=b0=y1 w2=w3!"],
    ["Conv", { inputs: { x: [2, 3, 8], w: [3, 1, 3], b: [3] }, y: [2, 3, 8], attrs: { group: 3 } }, "x1=w0=b0=y1 w2!"],
    [
      "Conv",
      { inputs: { x: [2, 4, 8], w: [6, 2, 3] }, y: [2, 6, 8], attrs: { group: 2 } },
      "x0=x1=x2=w0=w1=w2=y0=y1=y2!",
    ],
    ["Conv", { inputs: { x: [2, 3, 8], w: [6, 1, 3] }, y: [2, 6, 8], attrs: { group: 3 } }, "x0=x1=x2=w0=w2=y0=y1=y2!"],
    ["ConvTranspose", { inputs: { x: [2, 3, 8], w: [3, 5, 4], b: [5] }, y: [2, 5, 9] }, "x1=w0 w1=b0=y1 w2!"],
    [
      "ConvTranspose",
      { inputs: { x: [2, 4, 8], w: [4, 2, 3] }, y: [2, 4, 9], attrs: { group: 2 } },
      "x0=x1=x2=w0=w1=w2=y0=y1=y2!",
    ],
    [
      "BatchNormalization",
      { inputs: { x: [2, 3, 8], s: [3], b: [3], m: [3], v: [3] }, y: [2, 3, 8] },
      "x0=y0 x1=s0=b0=m0=v0=y1 x2=y2",
    ],
    ["LayerNormalization", { inputs: { x: [2, 3, 8], s: [8], b: [8] }, y: [2, 3, 8] }, "x0=y0 x1=y1 x2=s0=b0=y2"],
    [
      "LayerNormalization",
      { inputs: { x: [2, 3, 8], s: [8] }, y: [2, 3, 8], attrs: { axis: 2 } },
      "x0=y0 x1=y1 x2=s0=y2",
    ],
    [
      "LayerNormalization",
      { inputs: { x: [2, 3, 8], s: [3, 8] }, y: [2, 3, 8], attrs: { axis: 1 } },
      "x0=x1=x2=s0=s1=y0=y1=y2!",
    ],
    ["MaxPool", { inputs: { x: [2, 3, 8] }, y: [2, 3, 4], attrs: { kernel_shape: [2] } }, "x0=y0 x1=y1"],
    ["Softmax", { inputs: { x: [2, 3, 8] }, y: [2, 3, 8] }, "x0=y0 x1=y1 x2=y2!"],
    ["Softmax", { inputs: { x: [2, 3, 8] }, y: [2, 3, 8], opset: 12 }, "x0=y0 x1=y1! x2=y2"],
    ["Softmax", { inputs: { x: [2, 3, 8] }, y: [2, 3, 8], attrs: { axis: 0 } }, "x0=y0! x1=y1 x2=y2"],
    ["Softmax", { inputs: { x: [2, 3, 8] }, y: [2, 3, 8], attrs: { axis: -2 } }, "x0=y0 x1=y1! x2=y2"],
    ["Transpose", { inputs: { x: [2, 3, 8] }, y: [8, 3, 2] }, "x0=y2 x1=y1 x2=y0"],
    ["Transpose", { inputs: { x: [2, 3, 8] }, y: [3, 8, 2], attrs: { perm: [1, 2, 0] } }, "x0=y2 x1=y0 x2=y1"],
    ["Add", { inputs: { a: [2, 3, 8], b: [3, 8] }, y: [2, 3, 8] }, "a0=y0 a1=b0=y1 a2=b1=y2"],
    ["Add", { inputs: { a: [2, 1, 8], b: [3, 1] }, y: [2, 3, 8] }, "a0=y0 a2=y2 b0=y1"],
    ["Relu", { inputs: { x: [2, 3] }, y: [2, 3] }, "x0=y0 x1=y1"],
    ["Resize", { inputs: { x: [2, 3, 4], r: [6], s: [3] }, y: [2, 3, 8] }, "x0=y0 x1=y1"],
    ["Resize", { inputs: { x: [2, 3, 4], r: [6], s: [3], z: [3] }, y: [2, 3, 8] }, "x0=x1=x2=r0=s0=z0=y0=y1=y2!"],
    [
      "Gather",
      { inputs: { x: [2, 3, 8], i: { ints: [0, 1] } }, y: [2, 2, 8], attrs: { axis: 1 } },
      "x0=y0 x1=y1! x2=y2",
    ],
    ["Gather", { inputs: { x: [2, 3, 8], i: [5, 7] }, y: [2, 3, 5, 7], attrs: { axis: -1 } }, "x0=y0 x1=y1 x2=y2=y3!"],
    ["NoSuchOperator", { inputs: { x: [2, 3] }, y: [2, 3] }, "x0=x1=y0=y1!"],
  ] as const satisfies readonly (readonly [string, Case, string])[]) {
    test(`${opType} ${JSON.stringify(given)}`, () => assert.equal(axesOf(opType, given), expected));
  }
});

describe("axes that are summed over may shrink, and the others are those of the result", () => {
  const x = [2, 3, 8];
  for (const [given, expected] of [
    [{ inputs: { x }, y: [2, 1, 8], attrs: { axes: [1] }, opset: 13 }, "x0=y0 x2=y2"],
    [{ inputs: { x }, y: [2, 8], attrs: { axes: [1], keepdims: 0 }, opset: 13 }, "x0=y0 x2=y1"],
    [{ inputs: { x }, y: [3, 8], attrs: { axes: [-3], keepdims: 0 }, opset: 13 }, "x1=y0 x2=y1"],
    [{ inputs: { x }, y: [8], attrs: { axes: [0, 1], keepdims: 0 }, opset: 13 }, "x2=y0"],
    [{ inputs: { x, a: { ints: [-1, 0] } }, y: [1, 3, 1] }, "x1=y1"],
    [{ inputs: { x }, y: [1, 1, 1] }, ""],
    [{ inputs: { x, a: [1] }, y: [2, 1, 8] }, "x0=x1=x2=y0=y2!"],
  ] as const satisfies readonly (readonly [Case, string])[]) {
    test(JSON.stringify(given), () => assert.equal(axesOf("ReduceMean", given), expected));
  }
});

describe("axes of which stretches are cut together", () => {
  /** The units of an axis as numbers from 0 in the order of `x`; -1 for what must stay. */
  const unitsOf = (opType: string, given: Case) => {
    const { labels, values, shapes } = labelsOf(opType, given);
    const numbers = new Map<number, number>();
    return (name: string, axis: number) =>
      Array.from({ length: shapes.get(values[name]!)![axis]! }, (_, i) => {
        const unit = labels.unit(values[name]!, axis, i);
        if (unit === undefined) return -1;
        if (!numbers.has(unit)) numbers.set(unit, numbers.size);
        return numbers.get(unit)!;
      });
  };

  test("a flattened image has the channels of the image, in stretches of its positions", () => {
    for (const [opType, inputs] of [
      ["Flatten", { x: [2, 3, 2, 2] }],
      ["Reshape", { x: [2, 3, 2, 2], s: { ints: [0, -1] } }],
    ] as const) {
      const units = unitsOf(opType, { inputs, y: [2, 12] });
      assert.deepEqual(units("x", 1), [0, 1, 2]);
      assert.deepEqual(units("y", 1), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
      assert.deepEqual(
        [units("x", 2), units("x", 3)],
        [
          [-1, -1],
          [-1, -1],
        ],
      );
    }
  });

  test("heads are stretches of a width", () => {
    const units = unitsOf("Reshape", { inputs: { x: [2, 5, 6], s: { ints: [0, 0, 3, 2] } }, y: [2, 5, 3, 2] });
    assert.deepEqual(
      [units("x", 2), units("y", 2)],
      [
        [0, 0, 1, 1, 2, 2],
        [0, 1, 2],
      ],
    );
    assert.deepEqual(units("y", 3), [-1, -1]);
  });

  test("a shape that is computed, and axes that meet in no other way, must stay", () => {
    const computed = unitsOf("Reshape", { inputs: { x: [2, 6], s: [3] }, y: [2, 3, 2] });
    assert.deepEqual(computed("x", 1), Array(6).fill(-1));
    const crossed = unitsOf("Reshape", { inputs: { x: [4, 6], s: { ints: [6, 4] } }, y: [6, 4] });
    assert.deepEqual([crossed("x", 0), crossed("y", 1)], [Array(4).fill(-1), Array(4).fill(-1)]);
  });

  test("a concatenation has the channels of its parts one after the other, and a Split gives them back", () => {
    const concat = unitsOf("Concat", { inputs: { a: [2, 2], b: [2, 3] }, y: [2, 5], attrs: { axis: -1 } });
    assert.deepEqual(
      [concat("a", 1), concat("b", 1), concat("y", 1)],
      [
        [0, 1],
        [2, 3, 4],
        [0, 1, 2, 3, 4],
      ],
    );
    assert.deepEqual(concat("a", 0), concat("b", 0));
    const given: Case = {
      inputs: { x: [5, 2], s: { ints: [2, 3] } },
      y: [
        [2, 2],
        [3, 2],
      ],
    };
    const split = unitsOf("Split", given);
    assert.deepEqual(
      [split("x", 0), split("y0", 0), split("y1", 0)],
      [
        [0, 1, 2, 3, 4],
        [0, 1],
        [2, 3, 4],
      ],
    );
    assert.deepEqual([split("y0", 1), split("y1", 1)], [split("x", 1), split("x", 1)]);
    const unknown = unitsOf("Split", {
      inputs: { x: [5, 2], s: [2] },
      y: [
        [2, 2],
        [3, 2],
      ],
    });
    assert.deepEqual(unknown("x", 0), Array(5).fill(-1), "sizes that are computed cannot be corrected");
  });
});

test("what is given as fixed must stay, with all that is tied to it; and so must what bodies read", () => {
  const make = new GraphMaker();
  const [x, z] = [make.input("x", [2, 3]), make.input("z", [2, 3])];
  const y = make.op("Relu", [x]);
  const shape = () => [2, 3];
  const labels = new ChannelLabels(shape);
  relateChannels(labels, [y.producer!], [x]);
  assert.equal(labels.unit(y, 1, 2), undefined);
  const free = new ChannelLabels(shape);
  relateChannels(free, [y.producer!], []);
  assert.equal(free.unit(y, 1, 2), free.unit(x, 1, 2));
  assert.notEqual(free.unit(y, 1, 2), undefined);
  assert.notEqual(free.unit(y, 1, 2), free.unit(y, 1, 1));
  assert.notEqual(free.unit(z, 1, 2), undefined, "nothing has touched it");
});
