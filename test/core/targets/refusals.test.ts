import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { tensorOf } from "../../../src/core/onnx/tensor.ts";
import { float16Refusal } from "../../../src/core/targets/float16.ts";
import { int8Support } from "../../../src/core/targets/onnxruntime-cpu.ts";
import { GraphMaker } from "../../support/graphs.ts";

/** What stands against a kernel, and what does not, at the borders of each rule. */

type Attrs = Parameters<GraphMaker["op"]>[2];

describe("a transposition is not computed in float16 where onnxruntime would fuse it with a product and crash", () => {
  const refusal = (perm: readonly number[] | undefined, reader: string, cast = false) => {
    const make = new GraphMaker();
    const dims = (perm ?? [0, 1, 2]).map((_, i) => i + 2);
    const turned = make.op("Transpose", [make.input("x", dims)], perm ? { perm } : {});
    const read = cast ? make.op("Cast", [turned], { to: 10 }) : turned;
    make.output(make.op(reader, [read, make.input("w", undefined)]), "y");
    const node = turned.producer!;
    const rule = float16Refusal(node);
    return (typeof rule === "function" ? rule(node) : rule)?.code;
  };
  for (const [perm, isRefused] of [
    [[1, 2, 0], true],
    [[1, 0, 2], true],
    [[1, 2, 0, 3], true],
    [[1, 2, 3, 0], true],
    [[1, 0, 2, 3], false],
    [[0, 2, 1], false],
    [[2, 1, 0], false],
    [[2, 0, 1], false],
    [[1, 0], false],
    [undefined, false],
  ] as const) {
    test(`perm ${perm}`, () => {
      assert.equal(refusal(perm, "MatMul"), isRefused ? "does_not_load" : undefined);
    });
  }
  test("whoever reads it", () => {
    assert.equal(refusal([1, 2, 0], "FusedMatMul"), "does_not_load");
    assert.equal(refusal([1, 2, 0], "MatMul", true), "does_not_load");
    assert.equal(refusal([1, 2, 0], "Add"), undefined);
    assert.equal(refusal([1, 2, 0], "Add", true), undefined);
  });
});

test("scattering into a tensor has a float16 form unless it adds up", () => {
  const make = new GraphMaker();
  const refusal = (attrs: Attrs) => {
    const [x, at] = [make.input("x", [4]), make.input("at", [2], "int64")];
    const node = make.op("ScatterElements", [x, at, make.input("u", [2])], attrs).producer!;
    const rule = float16Refusal(node);
    return (typeof rule === "function" ? rule(node) : rule)?.code;
  };
  assert.deepEqual(
    [refusal({}), refusal({ reduction: "none" }), refusal({ reduction: "add" })],
    [undefined, undefined, "no_float16"],
  );
});

test("operators of other domains have a float16 form where it is known", () => {
  const refusal = (domain: string, opType: string) => {
    const rule = float16Refusal({ domain, opType });
    return typeof rule === "object" ? rule.code : rule;
  };
  assert.equal(refusal("", "Relu"), undefined);
  assert.equal(refusal("", "Celu"), "no_float16");
  assert.equal(refusal("com.microsoft", "FastGelu"), undefined);
  assert.equal(refusal("com.microsoft", "Celu"), "unknown_operator");
  assert.equal(refusal("my.domain", "FastGelu"), "unknown_operator");
});

describe("what has an 8-bit kernel, but not in this form", () => {
  /** The code of the refusal of a node with a float32 weight, a bias and attributes, unless told otherwise. */
  const refused = (opType: string, weight: readonly number[] | null, attrs: Attrs = {}, change: Change = {}) => {
    const make = new GraphMaker();
    const { x = [2, 8], dtype = "float32", bias, biasDtype = "float32" } = change;
    const first = change.constantFirst ? make.floats("x", x, Array(16).fill(1)) : make.input("x", x, "float32");
    const count = (weight ?? []).reduce((a, b) => a * b, 1);
    const second = weight ? make.constant("w", tensorOf(dtype, weight, Array(count).fill(1))) : make.input("w", [8, 4]);
    const third =
      bias === undefined ? [] : [make.constant("b", tensorOf(biasDtype, bias, Array(bias[0] ?? 1).fill(0)))];
    const node = make.op(opType, [first, second, ...third], attrs).producer!;
    return int8Support(node)?.refuse?.(node)?.code;
  };
  interface Change {
    readonly x?: readonly number[];
    readonly dtype?: "float32" | "float16";
    readonly bias?: readonly number[];
    readonly biasDtype?: "float32" | "float16";
    readonly constantFirst?: boolean;
  }

  test("a weight that is computed, of another type, of another rank, or empty", () => {
    for (const op of ["Gemm", "MatMul"]) {
      assert.equal(refused(op, [8, 4]), undefined, op);
      assert.equal(refused(op, [8, 4], {}, { dtype: "float16" }), "weight_not_float32", op);
      assert.equal(refused(op, [1, 8, 4]), "weight_rank", op);
      assert.equal(refused(op, [8, 0]), "empty_weight", op);
    }
    assert.equal(refused("Gemm", null), "weight_not_constant");
    assert.equal(refused("MatMul", null), undefined, "a product of two activations");
    assert.equal(refused("MatMul", [8, 4], {}, { constantFirst: true }), "constant_operand");
    const image = { x: [1, 4, 8, 8] };
    assert.equal(refused("Conv", [3, 4, 1, 1], {}, image), undefined);
    assert.equal(refused("Conv", [3, 4, 1], {}, image), undefined, "of any rank");
    assert.equal(refused("Conv", [3, 4, 1, 1], {}, { ...image, dtype: "float16" }), "weight_not_float32");
    assert.equal(refused("Conv", [3, 4, 1, 1], {}, { ...image, bias: [3] }), undefined);
    assert.equal(refused("Conv", [3, 4, 1, 1], {}, { ...image, bias: [3], biasDtype: "float16" }), "bias_not_constant");
  });

  test("a Gemm that transposes its first operand, scales, or has a bias that is not one number for each column", () => {
    assert.equal(refused("Gemm", [8, 4], { transA: 1 }), "gemm_form");
    assert.equal(refused("Gemm", [8, 4], { alpha: { type: "float", value: 0.5 } }), "gemm_form");
    // Without a bias there is nothing to scale.
    assert.equal(refused("Gemm", [8, 4], { beta: { type: "float", value: 0.5 } }), undefined);
    assert.equal(refused("Gemm", [8, 4], { beta: { type: "float", value: 0.5 } }, { bias: [4] }), "gemm_form");
    assert.equal(refused("Gemm", [8, 4], {}, { bias: [4] }), undefined);
    assert.equal(refused("Gemm", [8, 4], {}, { bias: [1] }), "gemm_form");
    assert.equal(refused("Gemm", [4, 8], { transB: 1 }, { bias: [4] }), undefined);
    assert.equal(refused("Gemm", [4, 8], { transB: 1 }, { bias: [8] }), "gemm_form");
    assert.equal(refused("Gemm", [8, 4], {}, { bias: [4], biasDtype: "float16" }), "bias_not_constant");
  });

  test("interpolation, indices of a maximum, and a maximum over the last axis alone", () => {
    const make = new GraphMaker();
    const x = make.input("x", [1, 4, 8, 8]);
    const code = (opType: string, attrs: Attrs, outputs = 1) => {
      const node = make.graph.append({ opType, inputs: [x], outputs });
      for (const [name, value] of Object.entries(attrs ?? {})) {
        if (typeof value === "string") node.setAttr(name, { type: "string", value });
        else if (Array.isArray(value)) node.setAttr(name, { type: "ints", value });
      }
      return int8Support(node)?.refuse?.(node)?.code;
    };
    assert.deepEqual(
      [code("Resize", {}), code("Resize", { mode: "nearest" }), code("Resize", { mode: "linear" })],
      [undefined, undefined, "interpolation"],
    );
    assert.deepEqual([code("MaxPool", {}), code("MaxPool", {}, 2)], [undefined, "indices"]);
    for (const op of ["ReduceMax", "ReduceMin"]) {
      assert.deepEqual(
        [[-1], [3], [2, 3], [1], [-2]].map((axes) => code(op, { axes })),
        ["slower", "slower", undefined, undefined, undefined],
        op,
      );
    }
  });

  test("of com.microsoft what onnxruntime fuses, and nothing else", () => {
    const runs = (opType: string) => int8Support({ domain: "com.microsoft", opType })?.runs;
    assert.deepEqual([runs("FusedConv"), runs("FusedMatMul"), runs("Conv")], ["computes", "computes", undefined]);
  });
});
