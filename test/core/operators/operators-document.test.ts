import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { operatorsDocument } from "../../../scripts/operators.ts";
import { ONNX_OPERATORS, type OpType } from "../../../src/core/operators/operators.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { DYNAMIC_INT8 } from "../../../src/core/targets/onnxruntime-cpu.ts";
import { compress } from "../../support/compressed.ts";
import { GraphMaker } from "../../support/graphs.ts";

test("docs/operators.md is what the records say (npm run operators)", () => {
  assert.equal(readFileSync(new URL("../../../docs/operators.md", import.meta.url), "utf8"), operatorsDocument());
});

test("the operators that dynamic quantization has kernels for are those of the table", () => {
  const uses: Partial<Record<OpType, (make: GraphMaker) => void>> = {
    MatMul: (make) => make.op("MatMul", [make.input("x", [2, 64]), make.weight("w", [64, 64], 0.1)]),
    Gemm: (make) => make.op("Gemm", [make.input("x", [2, 64]), make.weight("w", [64, 64], 0.1)]),
    Conv: (make) => make.op("Conv", [make.input("x", [2, 64, 4, 4]), make.weight("w", [64, 64, 3, 3], 0.1)]),
    ConvTranspose: (make) =>
      make.op("ConvTranspose", [make.input("x", [2, 64, 4, 4]), make.weight("w", [64, 64, 3, 3], 0.1)]),
    DeformConv: (make) =>
      make.op("DeformConv", [
        make.input("x", [2, 64, 4, 4]),
        make.weight("w", [64, 64, 3, 3], 0.1),
        make.input("o", [2, 18, 2, 2]),
      ]),
    Einsum: (make) =>
      make.op("Einsum", [make.input("x", [2, 64]), make.weight("w", [64, 64], 0.1)], { equation: "nk,kc->nc" }),
    Gather: (make) => make.op("Gather", [make.weight("w", [64, 64], 0.1), make.input("i", [2], "int64")]),
    ...Object.fromEntries(
      (
        [
          ["LSTM", 4],
          ["GRU", 3],
          ["RNN", 1],
        ] as const
      ).map(([opType, gates]) => [
        opType,
        (make: GraphMaker) =>
          make.op(
            opType,
            [
              make.input("x", [3, 1, 64]),
              make.weight("w", [1, gates * 64, 64], 0.1),
              make.weight("r", [1, gates * 64, 64], 0.1),
            ],
            { hidden_size: 64 },
          ),
      ]),
    ),
  };
  const listed = (Object.keys(ONNX_OPERATORS) as OpType[]).filter((opType) => {
    const { weights, quantized } = ONNX_OPERATORS[opType];
    return weights?.some(({ reducedAxes }) => reducedAxes) && !quantized;
  });
  assert.deepEqual(listed.toSorted(), Object.keys(uses).toSorted());
  for (const opType of listed) {
    const make = new GraphMaker({ opset: 19 });
    uses[opType]!(make);
    make.output(make.graph.nodes.at(-1)!.outputs[0]!, "y");
    const pass = dynamicPass({ perChannel: true, reduceRange: false, exclude: { nodes: [], ops: [] } });
    const [note] = compress(make.model, pass).notes;
    assert.equal(note?.outcome, "changed", opType);
    assert.equal(note?.code.startsWith("dynamic_"), DYNAMIC_INT8.has(opType), `${opType}: ${note?.code}`);
  }
});
