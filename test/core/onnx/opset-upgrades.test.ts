/**
 * Every rewrite of an operator to a newer version, in graphs of that operator alone with random shapes and attributes: ranks up to 5, axes
 * from either end, sizes of 0. In onnxruntime both versions give the same bytes, types and shapes.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import type { Attr, Model, Value } from "../../../src/core/onnx/ir.ts";
import { UPGRADED_OPERATORS, upgradeOpset } from "../../../src/core/onnx/opset.ts";
import { elementCount, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Draw } from "../../support/draw.ts";
import { type AttrShorthand, GraphMaker } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";

/** Graphs of each operator that onnxruntime has to run, of at most how many that are drawn. */
const RUNS = 24;
const DRAWS = 10 * RUNS;
const TARGETS = [13, 21];

interface Operator {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly attrs?: Readonly<Record<string, AttrShorthand>>;
  readonly outputs?: number;
}

interface Case {
  readonly versions: readonly number[];
  readonly build: (draw: Draw) => Omit<Operator, "op">;
}

const float = (value: number): Attr => ({ type: "float", value });

/** Whether axes may count from the end. */
const signed = (draw: Draw, axis: number, rank: number) => (draw.opset >= 11 && draw.bool() ? axis - rank : axis);

function someAxes(draw: Draw, rank: number): number[] {
  const all = Array.from({ length: rank }, (_, i) => i);
  return draw
    .shuffled(all)
    .slice(0, 1 + draw.below(rank))
    .map((axis) => signed(draw, axis, rank));
}

const reduce: Case["build"] = (draw) => {
  const dims = draw.dims(1).map((dim) => dim || 1);
  const axes = draw.below(3) ? { axes: someAxes(draw, dims.length) } : {};
  return { inputs: [draw.data("float32", dims)], attrs: { ...axes, ...(draw.bool() && { keepdims: draw.below(2) }) } };
};

const softmax: Case["build"] = (draw) => {
  const dims = draw.dims(1);
  const axis = draw.opset >= 11 ? draw.axis(dims.length) : draw.below(dims.length);
  return { inputs: [draw.finite("float32", dims)], attrs: draw.below(4) || dims.length < 2 ? { axis } : {} };
};

const resize: Case["build"] = (draw) => {
  const dims = [1, 1 + draw.below(2), 1 + draw.below(4), 1 + draw.below(4)];
  const scales = tensorOf("float32", [4], [1, 1, draw.of([1, 2, 2.5, 3]), draw.of([1, 1.5, 2])]);
  return {
    inputs: [draw.finite("float32", dims), scales],
    attrs: draw.bool() ? { mode: draw.of(["nearest", "linear"]) } : {},
  };
};

const CASES: Readonly<Record<string, Case>> = {
  ReduceSum: { versions: [7, 11, 12], build: reduce },
  ...Object.fromEntries(
    ["Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"].map((name) => [
      `Reduce${name}`,
      { versions: [7, 11, 13, 17], build: reduce },
    ]),
  ),
  ...Object.fromEntries(
    ["Softmax", "LogSoftmax", "Hardmax"].map((op) => [op, { versions: [7, 11, 12], build: softmax }]),
  ),
  Squeeze: {
    versions: [7, 11, 12],
    build: (draw) => {
      const dims = draw.dims();
      const ones = dims.flatMap((dim, i) => (dim === 1 ? [i] : []));
      const axes = draw.shuffled(ones).map((axis) => signed(draw, axis, dims.length));
      return { inputs: [draw.data("float32", dims)], attrs: draw.bool() && ones.length > 0 ? { axes } : {} };
    },
  },
  Unsqueeze: {
    versions: [7, 11, 12],
    build: (draw) => {
      const dims = draw.dims().slice(0, 3);
      const rank = dims.length + 1 + draw.below(2);
      const all = Array.from({ length: rank }, (_, i) => i);
      const axes = draw.shuffled(all).slice(0, rank - dims.length);
      return { inputs: [draw.data("float32", dims)], attrs: { axes: axes.map((axis) => signed(draw, axis, rank)) } };
    },
  },
  Split: {
    versions: [7, 11, 12, 13, 17],
    build: (draw) => {
      const dims = draw.dims(1);
      const axis = draw.below(dims.length);
      const size = dims[axis]!;
      const cut = draw.below(size + 1);
      const inSizes = draw.bool();
      // onnxruntime refuses num_outputs, which version 18 needs, where there is nothing to split.
      if (!inSizes) dims[axis] = 2 * (size || 1);
      const parts = inSizes ? [cut, size - cut] : undefined;
      const isAttr = draw.opset < 13;
      return {
        inputs: [draw.data("float32", dims), ...(parts && !isAttr ? [tensorOf("int64", [2], parts)] : [])],
        attrs: { axis: signed(draw, axis, dims.length), ...(parts && isAttr && { split: parts }) },
        outputs: 2,
      };
    },
  },
  Scatter: {
    versions: [9, 10],
    build: (draw) => {
      const dims = draw.dims(1).map((dim) => dim || 1);
      const axis = draw.below(dims.length);
      const picked = dims.map((dim, i) => (i === axis ? 1 : dim));
      const indices = Array.from({ length: elementCount(picked) }, () => draw.below(dims[axis]!));
      const inputs = [draw.data("float32", dims), tensorOf("int64", picked, indices), draw.data("float32", picked)];
      return { inputs, attrs: axis === 0 && draw.bool() ? {} : { axis } };
    },
  },
  Pad: {
    versions: [7, 10],
    build: (draw) => {
      const dims = draw.dims(1).map((dim) => dim + 2);
      const pads = [...dims, ...dims].map(() => draw.below(3) - (draw.below(4) === 0 ? 1 : 0));
      const mode = draw.of(["constant", "reflect", "edge"]);
      const inside = mode === "constant" ? pads : pads.map((pad) => Math.max(0, pad));
      const value = mode === "constant" && draw.bool() ? { value: float(0.75) } : {};
      return {
        inputs: [draw.data(draw.of(["float32", "float64"]), dims)],
        attrs: { pads: inside, ...(draw.bool() || mode !== "constant" ? { mode } : {}), ...value },
      };
    },
  },
  Clip: {
    versions: [7, 10],
    build: (draw) => ({
      inputs: [draw.data("float32", draw.dims())],
      attrs: { ...(draw.bool() && { min: float(-0.75) }), ...(draw.bool() && { max: float(1.5) }) },
    }),
  },
  Slice: {
    versions: [7, 9],
    build: (draw) => {
      const dims = draw.dims(1);
      const axes = draw.shuffled(dims.map((_, i) => i)).slice(0, 1 + draw.below(dims.length));
      const at = () => draw.of([-1000, -2, -1, 0, 1, 2, 3, 2 ** 31]);
      const isInOrder = axes.every((axis, i) => axis === i);
      return {
        inputs: [draw.data("float32", dims)],
        attrs: { starts: axes.map(at), ends: axes.map(at), ...(isInOrder && draw.bool() ? {} : { axes }) },
      };
    },
  },
  Dropout: {
    versions: [7, 10, 11],
    build: (draw) => ({
      inputs: [draw.data(draw.of(["float32", "float64"]), draw.dims())],
      attrs: draw.bool() ? { ratio: float(0.25) } : {},
    }),
  },
  Upsample: {
    versions: [7, 9],
    build: (draw) => {
      const { inputs, attrs } = resize(draw);
      if (draw.opset >= 9) return { inputs, attrs: { mode: "nearest", ...attrs } };
      const scales: Attr = { type: "floats", value: [1, 1, 2, draw.of([1, 1.5, 3])] };
      return { inputs: [inputs[0]!], attrs: { mode: "nearest", ...attrs, scales } };
    },
  },
  Resize: { versions: [10], build: resize },
  TopK: {
    versions: [7, 9],
    build: (draw) => {
      const dims = draw.dims(1).map((dim) => dim + 1);
      const axis = draw.below(dims.length);
      return {
        inputs: [draw.finite("float32", dims)],
        attrs: { k: 1 + draw.below(dims[axis]!), axis: axis === dims.length - 1 && draw.bool() ? -1 : axis },
        outputs: 2,
      };
    },
  },
  BatchNormalization: {
    versions: [7, 9, 13],
    build: (draw) => {
      const dims = [1 + draw.below(2), 1 + draw.below(3), ...draw.dims().slice(0, 2)];
      const list = (least: number) =>
        tensorOf(
          "float32",
          [dims[1]!],
          Array.from({ length: dims[1]! }, () => least + draw.below(8) / 8),
        );
      return {
        inputs: [draw.finite("float32", dims), list(-0.5), list(-0.5), list(-0.5), list(0.25)],
        attrs: { ...(draw.opset < 9 && draw.bool() && { spatial: 1 }), ...(draw.bool() && { epsilon: float(0.125) }) },
      };
    },
  },
  GroupNormalization: {
    versions: [18, 20],
    build: (draw) => {
      const groups = 1 + draw.below(3);
      const dims = [1 + draw.below(2), groups * (1 + draw.below(3)), ...draw.dims(1).slice(0, 2)];
      const list = () => draw.finite("float32", [groups]);
      return {
        inputs: [
          draw.finite(
            "float32",
            dims.map((dim) => dim || 1),
          ),
          list(),
          list(),
        ],
        attrs: { num_groups: groups },
      };
    },
  },
  DFT: {
    versions: [17, 19],
    build: (draw) => {
      const dims = [1 + draw.below(2), 1 + draw.below(4), 1 + draw.below(4), 1];
      return { inputs: [draw.finite("float32", dims)], attrs: draw.bool() ? { axis: 1 + draw.below(2) } : {} };
    },
  },
  GridSample: {
    versions: [16, 19],
    build: (draw) => {
      const grid = tensorOf(
        "float32",
        [1, 2, 3, 2],
        Array.from({ length: 12 }, () => draw.below(200) / 100 - 1),
      );
      const mode = draw.of([undefined, "bilinear", "bicubic", "nearest"]);
      return { inputs: [draw.finite("float32", [1, 2, 4, 5]), grid], attrs: mode === undefined ? {} : { mode } };
    },
  },
  RoiAlign: {
    versions: [10, 15],
    build: (draw) => {
      const edges = () => [draw.below(3), draw.below(3), 4 + draw.below(3), 4 + draw.below(3)].map((at) => at + 0.25);
      return {
        inputs: [
          draw.finite("float32", [1, 2, 8, 8]),
          tensorOf("float32", [2, 4], [...edges(), ...edges()]),
          tensorOf("int64", [2], [0, 0]),
        ],
        attrs: { output_height: 2, output_width: 3, sampling_ratio: 2 },
      };
    },
  },
};

test("every operator that is rewritten has its case", () => {
  assert.deepEqual(Object.keys(CASES).toSorted(), [...UPGRADED_OPERATORS].toSorted());
});

function modelOf({ op, inputs, attrs = {}, outputs = 1 }: Operator, opset: number): Model {
  const make = new GraphMaker({ opset, irVersion: 10 });
  // Operands beside the first are constants, as exporters write them.
  const values = inputs.map(
    (tensor, i): Value => (i === 0 ? make.input("x", tensor.dims, tensor.dtype) : make.constant(`c${i}`, tensor)),
  );
  const node = make.node(op, values, attrs, outputs);
  for (const value of node.outputs) make.graph.addOutput(value);
  return make.model;
}

/** What onnxruntime gives, or undefined where it does not run the model. */
async function resultsOf(model: Model, x: Tensor) {
  try {
    const results = await runModel(model, { x }, { optimization: "disabled" });
    return Object.values(results).map(({ dtype, dims, bytes }) => ({ dtype, dims, bytes: [...bytes] }));
  } catch (error) {
    if (error instanceof CoreError) return undefined;
    throw error;
  }
}

for (const [op, { versions, build }] of Object.entries(CASES)) {
  test(`${op} computes the same in newer versions`, async () => {
    let ran = 0;
    await fc.assert(
      fc.asyncProperty(fc.infiniteStream(fc.nat()), async (stream) => {
        if (ran >= RUNS) return;
        const draw = new Draw(() => stream.next().value!, versions);
        const operator = { op, ...build(draw) };
        const x = operator.inputs[0]!;
        const expected = await resultsOf(modelOf(operator, draw.opset), x);
        if (!expected) return;
        ran++;
        for (const target of TARGETS) {
          if (draw.opset >= target) continue;
          // Before version 14 a shape cannot say that a size is 0, which a Softmax over several axes has to.
          if (target < 14 && x.dims.includes(0) && op.endsWith("max")) continue;
          const model = modelOf(operator, draw.opset);
          upgradeOpset(model, target);
          assert.deepEqual(await resultsOf(model, x), expected, `version ${draw.opset} in version ${target}`);
        }
      }),
      { numRuns: DRAWS },
    );
    assert.ok(ran >= RUNS, `onnxruntime ran ${ran} graphs`);
  });
}
