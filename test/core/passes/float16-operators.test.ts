import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { assertConverted, modelOf, weightBytes } from "../../support/float16.ts";
import { GraphMaker } from "../../support/graphs.ts";

describe("operators with types of their own", () => {
  const cases: Readonly<Record<string, Model>> = {
    "Resize by scales": modelOf([1, 2, 4, 4], (make, x) => {
      const scales = make.floats("scales", [4], [1, 1, 2, 2]);
      return make.op("Resize", [make.conv(x, [2, 4], 3), undefined, scales], { mode: "linear" });
    }),
    "Resize of opset 10": modelOf(
      [1, 2, 4, 4],
      (make, x) => make.op("Resize", [make.conv(x, [2, 4], 3), make.floats("scales", [4], [1, 1, 2, 2])]),
      { opset: 10 },
    ),
    "Upsample of opset 9": modelOf(
      [1, 2, 4, 4],
      (make, x) => make.op("Upsample", [make.conv(x, [2, 4], 3), make.floats("scales", [4], [1, 1, 2, 2])]),
      { opset: 9 },
    ),
    "Cast back and forth": modelOf([2, 8], (make, x) => {
      const truncated = make.op("Cast", [make.op("Cast", [make.op("Mul", [x, x])], { to: 7 })], { to: 1 });
      return make.op("Add", [truncated, x]);
    }),
    "ConstantOfShape of a state": modelOf([3, 2, 12], (make, x) => {
      const zeros = make.op("ConstantOfShape", [make.ints("shape", [1, 2, 16])]);
      const weights = [make.weight("w", [1, 64, 12], 0.2), make.weight("r", [1, 64, 16], 0.2)];
      return make.op("LSTM", [x, ...weights, undefined, undefined, zeros, zeros], { hidden_size: 16 });
    }),
    "ConstantOfShape of a number": modelOf([2, 3], (make, x) => {
      const value = { type: "tensor", value: tensorOf("float32", [1], [0.25]) } as const;
      return make.op("Add", [x, make.op("ConstantOfShape", [make.ints("shape", [2, 3])], { value })]);
    }),
    "OneHot and Where": modelOf([2, 4], (make, x) => {
      const values = make.floats("values", [2], [0.5, 2]);
      const hot = make.op("OneHot", [
        make.op("ArgMax", [x], { axis: 1, keepdims: 0 }),
        make.ints("depth", [4], []),
        values,
      ]);
      return make.op("Where", [make.op("Greater", [x, make.floats("zero", [], [0])]), hot, x]);
    }),
    "TopK in float32": modelOf([2, 16], (make, x) => make.node("TopK", [x, make.ints("k", [3])], {}, 2).outputs[0]!),
    "Range and CumSum in float32": modelOf([4], (make, x) => {
      const range = make.op(
        "Range",
        ["from", "to", "by"].map((name, i) => make.floats(name, [], [[0, 4, 1][i]!])),
      );
      return make.op("CumSum", [make.op("Mul", [x, range]), make.ints("axis", [0], [])]);
    }),
    "LayerNormalization whose statistics are read": modelOf([2, 8], (make, x) => {
      const node = make.node("LayerNormalization", [x, make.weight("s", [8], 1)], { axis: -1 }, 3);
      return make.op("Mul", [node.outputs[0]!, node.outputs[2]!]);
    }),
    "a normalization written out": modelOf([2, 8], (make, x) => {
      const far = make.op("Mul", [x, make.floats("far", [], [500])]);
      const centred = make.op("Sub", [far, make.op("ReduceMean", [far], { axes: [-1] })]);
      const square = make.op("Pow", [centred, make.floats("two", [], [2])]);
      const variance = make.op("Add", [
        make.op("ReduceMean", [square], { axes: [-1] }),
        make.floats("eps", [], [1e-12]),
      ]);
      return make.op("Div", [centred, make.op("Sqrt", [variance])]);
    }),
    "GridSample in float32": modelOf(
      [1, 2, 5, 5],
      (make, x) =>
        make.op("GridSample", [make.conv(x, [2, 2], 3), make.constant("grid", make.random([1, 3, 3, 2], 0.4))]),
      { opset: 16 },
    ),
    "Clip, Pad and Dropout": modelOf([2, 8], (make, x) => {
      const clipped = make.op("Clip", [x, make.floats("lo", [], [-0.5]), make.floats("hi", [], [0.5])]);
      const padded = make.op("Pad", [clipped, make.ints("pads", [0, 1, 0, 1]), make.floats("fill", [], [3])]);
      return make.node("Dropout", [padded], {}, 2).outputs[0]!;
    }),
    "a sequence": modelOf([4, 6], (make, x) => {
      const sequence = make.op("SplitToSequence", [make.op("Relu", [x])], { axis: 0 });
      return make.op("Relu", [make.op("SequenceAt", [sequence, make.ints("at", [1], [])])]);
    }),
    "float64 inside": modelOf([2, 6], (make, x) => {
      const wide = make.op("Cast", [make.op("Relu", [x])], { to: 11 });
      return make.op("Relu", [make.op("Cast", [make.op("Mul", [wide, wide])], { to: 1 })]);
    }),
    "a part that is quantized": modelOf([2, 64], (make, x) => {
      const [scale, zero] = [make.floats("s", [], [0.02]), make.constant("z", tensorOf("uint8", [], [128]))];
      const back = make.op("DequantizeLinear", [make.op("QuantizeLinear", [x, scale, zero]), scale, zero]);
      return make.linear(back, 64, 16);
    }),
    "CastLike of a mask": modelOf(
      [2, 6],
      (make, x) => {
        const y = make.linear(x, 6, 6);
        const [far, zero] = [make.floats("far", [], [Number.NEGATIVE_INFINITY]), make.floats("zero", [], [0])];
        const mask = make.op("Where", [make.op("Greater", [x, zero]), zero, far]);
        return make.op("Sigmoid", [make.op("Add", [y, make.op("CastLike", [mask, y])])]);
      },
      { opset: 18 },
    ),
    "a Cast to the type it has": modelOf([2, 6], (make, x) =>
      make.op("Relu", [make.op("Cast", [make.op("Relu", [x])], { to: 1 })]),
    ),
    "CastLike of integers": modelOf(
      [2, 6],
      (make, x) => make.op("Add", [x, make.op("CastLike", [make.op("ArgMax", [x], { axis: 0 }), x])]),
      { opset: 18 },
    ),
    "ScatterND that adds": modelOf(
      [3, 6],
      (make, x) => {
        const places = make.ints("places", [0, 2, 2], [3, 1]);
        return make.op("ScatterND", [make.weight("sums", [5, 6], 1), places, make.op("Relu", [x])], {
          reduction: "add",
        });
      },
      { opset: 18 },
    ),
    "ScatterElements that multiplies": modelOf(
      [2, 4],
      (make, x) => {
        const places = make.ints("places", [0, 1, 1, 0, 2, 2, 1, 1], [2, 4]);
        return make.op("ScatterElements", [make.weight("to", [3, 4], 1), places, make.op("Relu", [x])], {
          reduction: "mul",
        });
      },
      { opset: 18 },
    ),
    MeanVarianceNormalization: modelOf([2, 3, 4, 4], (make, x) =>
      make.op("Relu", [make.op("MeanVarianceNormalization", [make.op("Relu", [x])])]),
    ),
    EyeLike: modelOf([4, 4], (make, x) => make.op("MatMul", [make.op("Relu", [x]), make.op("EyeLike", [x], { k: 1 })])),
    "a batch that is transposed before and after a MatMul": modelOf([3, 4, 5], (make, x) => {
      const first = make.op("Transpose", [make.op("Identity", [x])], { perm: [1, 0, 2] });
      const second = make.op("Transpose", [make.linear(first, 5, 6)], { perm: [1, 2, 0] });
      return make.linear(second, 4, 2);
    }),
    "a batch of four axes that is transposed": modelOf([3, 4, 5, 2], (make, x) => {
      const first = make.op("Transpose", [x], { perm: [1, 2, 0, 3] });
      const second = make.op("Transpose", [make.linear(first, 2, 6)], { perm: [1, 2, 3, 0] });
      return make.op("MatMul", [make.weight("left", [2, 6], 1), second]);
    }),
    "an output that is read inside": (() => {
      const make = new GraphMaker();
      const hidden = make.op("Relu", [make.linear(make.input("x", [2, 8]), 8, 8)]);
      make.output(hidden, "hidden", [2, 8]);
      make.output(make.op("Tanh", [hidden]), "y", [2, 8]);
      return make.model;
    })(),
  };
  for (const [name, model] of Object.entries(cases)) {
    it(name, async () => {
      for (const keepIo of [true, false]) await assertConverted(model, { keepIo }, 6e-3);
    });
  }
});

it("bits of float32 numbers stay what they are", async () => {
  const make = new GraphMaker({ opset: 26, irVersion: 13 });
  const bits = make.op("BitCast", [make.op("Relu", [make.input("x", [5])])], { to: 6 });
  make.output(bits, "y", [5], "int32");
  await assertConverted(make.model);
});

it("a model of ai.onnx.ml alone imports what Cast is from", async () => {
  const build = () => {
    const make = new GraphMaker();
    make.model.opsets.clear();
    const scaler = make.node(
      "Scaler",
      [make.input("x", [2, 3])],
      { scale: { type: "floats", value: [2] }, offset: { type: "floats", value: [0.5] } },
      1,
      "ai.onnx.ml",
    );
    make.output(scaler.outputs[0]!, "y", [2, 3]);
    return make.model;
  };
  await assertConverted(build());
  const { opsets } = await assertConverted(build(), { keepIo: false });
  assert.deepEqual(Object.fromEntries(opsets), { "": 15, "ai.onnx.ml": 1 });
});

describe("operators of com.microsoft", () => {
  it("have weights and results of float16 where they have such a form, and what reads them is converted too", async () => {
    const make = new GraphMaker({ opset: 17 });
    const contrib = (op: string, inputs: readonly (Value | undefined)[], attrs = {}, outputs = 1) =>
      make.node(op, inputs, attrs, outputs, "com.microsoft").outputs[0]!;
    const ids = make.input("ids", [2, 5], "int32");
    const normal = [make.weight("gamma", [16], 1), make.weight("beta", [16], 1)];
    const tables = [make.weight("words", [12, 16], 1), make.weight("places", [8, 16], 1), undefined];
    const embedded = contrib("EmbedLayerNormalization", [ids, undefined, ...tables, ...normal], {}, 2);
    const projections = [make.weight("w", [16, 48], 0.25), make.weight("b", [48], 0.2)];
    const attended = contrib("Attention", [embedded, ...projections], { num_heads: 2 });
    const flat = make.op("Reshape", [attended, make.ints("flat", [10, 16])]);
    const gemm = contrib("FusedGemm", [flat, make.weight("v", [16, 16], 0.25), make.weight("c", [16], 1)], {
      activation: "Relu",
    });
    const image = make.op("Reshape", [gemm, make.ints("image", [2, 5, 16, 1])]);
    const conv = contrib("FusedConv", [image, make.weight("k", [4, 5, 3, 1], 0.25)], {
      activation: "Relu",
    });
    make.output(make.op("MatMul", [conv, make.weight("u", [1, 8], 1)]), "y", [2, 4, 14, 8]);
    const feeds = { ids: tensorOf("int32", [2, 5], [1, 2, 3, 4, 5, 11, 10, 9, 8, 0]) };
    const model = await assertConverted(make.model, {}, 4e-3, feeds);
    assert.equal(weightBytes(model).float32, 0);
  });
});
