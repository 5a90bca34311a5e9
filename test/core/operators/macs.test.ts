import assert from "node:assert/strict";
import { test } from "node:test";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { CONTRIB_OPERATORS, hasMacs, macsOf, ONNX_OPERATORS } from "../../../src/core/operators/operators.ts";
import { type AttrShorthand, GraphMaker } from "../../support/graphs.ts";

type Dims = readonly number[] | undefined;

/** Multiply-accumulates of an operator over inputs and one output of these shapes. */
function count(
  opType: string,
  inputs: readonly Dims[],
  output: Dims,
  attrs: Record<string, AttrShorthand> = {},
): number | undefined {
  const make = new GraphMaker();
  const shapes = new Map<Value, Dims>();
  const values = inputs.map((dims, i) => {
    const value = make.input(`x${i}`, dims);
    shapes.set(value, dims);
    return value;
  });
  const domain = !(opType in ONNX_OPERATORS) && opType in CONTRIB_OPERATORS ? "com.microsoft" : "";
  const node = make.node(opType, values, attrs, 1, domain);
  shapes.set(node.outputs[0]!, output);
  assert.equal(hasMacs(node), true);
  return macsOf(node, (value) => shapes.get(value));
}

const CONV_X = [1, 8, 10, 10];
const CONV_Y = [1, 16, 8, 8];

test("convolutions: one product for each output element, input channel of the group, and kernel position", () => {
  assert.equal(count("Conv", [CONV_X, [16, 8, 3, 3]], CONV_Y), 16 * 64 * 8 * 9);
  assert.equal(count("Conv", [CONV_X, [16, 2, 3, 3]], CONV_Y, { group: 4 }), 16 * 64 * 2 * 9);
  assert.equal(count("QLinearConv", [CONV_X, [], [], [16, 8, 3, 3]], CONV_Y), 16 * 64 * 8 * 9);
  assert.equal(count("ConvInteger", [CONV_X, [16, 8, 3, 3]], CONV_Y), 16 * 64 * 8 * 9);
  assert.equal(
    count(
      "ConvTranspose",
      [
        [1, 8, 5, 5],
        [8, 4, 2, 2],
      ],
      [1, 4, 10, 10],
    ),
    8 * 25 * 4 * 4,
  );
});

test("matrix products: output elements times the inner axis", () => {
  assert.equal(
    count(
      "MatMul",
      [
        [5, 2, 3],
        [3, 4],
      ],
      [5, 2, 4],
    ),
    5 * 2 * 4 * 3,
  );
  assert.equal(count("MatMul", [[3], [3, 4]], [4]), 12);
  assert.equal(
    count(
      "Gemm",
      [
        [2, 3],
        [3, 4],
      ],
      [2, 4],
    ),
    24,
  );
  assert.equal(
    count(
      "Gemm",
      [
        [3, 2],
        [3, 4],
      ],
      [2, 4],
      { transA: 1 },
    ),
    24,
  );
  assert.equal(
    count("MatMulNBits", [[7, 64], [32, 2, 16], [64]], [7, 32], { K: 64, N: 32, bits: 4, block_size: 32 }),
    7 * 32 * 64,
  );
  assert.equal(
    count(
      "DynamicQuantizeMatMul",
      [
        [2, 3],
        [3, 4],
      ],
      [2, 4],
    ),
    24,
  );
  assert.equal(count("QGemm", [[2, 3], [], [], [3, 4]], [2, 4]), 24);
});

test("recurrent layers: every step multiplies with W and R", () => {
  const [time, batch, inputs, hidden] = [6, 2, 5, 3];
  for (const [opType, gates] of [
    ["RNN", 1],
    ["GRU", 3],
    ["LSTM", 4],
  ] as const) {
    const w = [2, gates * hidden, inputs];
    const r = [2, gates * hidden, hidden];
    const expected = time * batch * 2 * gates * hidden * (inputs + hidden);
    assert.equal(count(opType, [[time, batch, inputs], w, r], undefined, { hidden_size: hidden }), expected);
  }
});

test("Einsum: the product of all axes", () => {
  assert.equal(
    count(
      "Einsum",
      [
        [2, 3],
        [3, 4],
      ],
      [2, 4],
      { equation: "ij, jk -> ik" },
    ),
    24,
  );
  assert.equal(count("Einsum", [[2, 3, 4]], [4, 2], { equation: "ijk->ki" }), 0, "nothing is multiplied");
  assert.equal(
    count(
      "Einsum",
      [
        [2, 3],
        [3, 4],
      ],
      [2, 4],
      { equation: "...j,jk->...k" },
    ),
    undefined,
  );
});

test("what is not known makes the count unknown, and never 0", () => {
  assert.equal(count("Conv", [CONV_X, undefined], CONV_Y), undefined);
  assert.equal(count("Conv", [CONV_X, [16, 8, 3, 3]], undefined), undefined);
  assert.equal(count("MatMul", [undefined, [3, 4]], [2, 4]), undefined);
  assert.equal(count("LSTM", [undefined, [1, 4, 1], [1, 4, 1]], undefined), undefined);
  assert.equal(count("GroupQueryAttention", [[1, 2, 3]], [1, 2, 3]), undefined);
});

test("other operators have none", () => {
  const make = new GraphMaker();
  assert.equal(hasMacs(make.node("Add", [make.input("x", [1]), make.input("y", [1])])), false);
});

test("an operator of another domain is not the one of the same name", () => {
  const make = new GraphMaker();
  const [x, w] = [make.input("x", [2, 3]), make.input("w", [3, 4])];
  assert.equal(hasMacs(make.node("MatMul", [x, w], {}, 1, "my.domain")), false);
});

test("of operators that are not known nothing is said, nor of those that multiply nothing", () => {
  const make = new GraphMaker();
  for (const [opType, domain] of [
    ["MatMul", "my.domain"],
    ["Unheard", ""],
    ["Relu", ""],
  ] as const) {
    const node = make.node(opType, [make.input(`x_${opType}`, [2, 2])], {}, 1, domain);
    assert.equal(
      macsOf(node, () => [2, 2]),
      undefined,
      opType,
    );
    assert.equal(hasMacs(node), false, opType);
  }
});
