/**
 * Every operator that is folded, in graphs of that operator alone: ranks 0 to 5, negative axes, empty tensors, operator sets 8 to 21. What
 * simplification makes of a graph gives the same bytes, types and shapes in onnxruntime as the graph itself.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import { DTYPES, type DType } from "../../../src/core/onnx/dtype.ts";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { type ArrayDType, elementCount, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { ONNX_OPERATORS, type OpType } from "../../../src/core/operators/operators.ts";
import { simplify } from "../../../src/core/passes/simplify.ts";
import { Draw } from "../../support/draw.ts";
import type { GraphMaker } from "../../support/graphs.ts";
import { runModel } from "../../support/open-model.ts";

const OPSETS = [8, 9, 10, 11, 12, 13, 14, 17, 18, 21];
/** Graphs of each operator that onnxruntime has to run. */
const RUNS = 20;
const DRAWS = 12 * RUNS;

const FLOATS: readonly ArrayDType[] = ["float32", "float64", "float16"];
const NUMBERS: readonly ArrayDType[] = [...FLOATS, "int32", "int64", "int8", "uint8"];
const ALL: readonly ArrayDType[] = [...NUMBERS, "bool"];

/** The value that the operator computes of constants. */
type Case = (draw: Draw) => Value;

function pointwise(opType: string, dtypes: readonly ArrayDType[]): [string, Case] {
  return [opType, (draw) => draw.make.op(opType, [draw.constant(draw.of(dtypes), draw.dims())])];
}

function binary(opType: string, dtypes: readonly ArrayDType[]): [string, Case] {
  return [
    opType,
    (draw) => {
      const dtype = draw.of(dtypes);
      const dims = draw.dims();
      const operands = [dims, draw.broadcasting(dims)].map((dims) => draw.constant(dtype, dims));
      const attrs = opType === "Mod" && DTYPES[dtype].kind === "float" ? { fmod: 1 } : {};
      return draw.make.op(opType, draw.shuffled(operands), attrs);
    },
  ];
}

function reduction(opType: string): [string, Case] {
  return [
    opType,
    (draw) => {
      const dims = draw.dims();
      const axes = draw.bool() ? draw.axes(dims.length) : undefined;
      const { attrs, inputs } = draw.early(opType === "ReduceSum" ? 13 : 18, "axes", axes);
      const x = draw.constant(draw.of(["float32", "float64", "int32", "int64"]), dims);
      return draw.make.op(opType, [x, ...inputs], { ...attrs, keepdims: draw.below(2) });
    },
  ];
}

const CASES = new Map<string, Case>([
  ...["Neg", "Abs", "Sign"].map((op) => pointwise(op, NUMBERS)),
  ...["Sqrt", "Exp", "Log", "Reciprocal", "Floor", "Ceil", "Round", "Erf", "Tanh", "Sigmoid"].map((op) =>
    pointwise(op, FLOATS),
  ),
  pointwise("Relu", FLOATS),
  pointwise("Not", ["bool"]),
  ...["Identity", "Shape", "Size"].map((op) => pointwise(op, ALL)),
  ...["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mod"].map((op) => binary(op, NUMBERS)),
  ...["Greater", "Less", "GreaterOrEqual", "LessOrEqual"].map((op) => binary(op, NUMBERS)),
  binary("Equal", ALL),
  ...["And", "Or", "Xor"].map((op) => binary(op, ["bool"])),
  ...["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"].map(reduction),
  [
    "Where",
    (draw) => {
      const dims = draw.dims();
      const dtype = draw.of(ALL);
      const operands = [dims, draw.broadcasting(dims)].map((dims) => draw.constant(dtype, dims));
      return draw.make.op("Where", [draw.constant("bool", draw.broadcasting(dims)), ...operands]);
    },
  ],
  [
    "Cast",
    (draw) => {
      // What float to integer gives past the range of the integer is not defined.
      const from = draw.of(ALL);
      const to = draw.of(DTYPES[from].kind === "float" ? [...FLOATS, "bool" as const] : ALL);
      return draw.make.op("Cast", [draw.constant(from, draw.dims())], { to: DTYPES[to].onnx });
    },
  ],
  [
    "Clip",
    (draw) => {
      const x = draw.constant("float32", draw.dims());
      const [low, high] = [draw.bool(), draw.bool()];
      const float = (value: number) => ({ type: "float", value }) as const;
      if (draw.opset < 11) {
        return draw.make.op("Clip", [x], { ...(low && { min: float(-0.75) }), ...(high && { max: float(1.5) }) });
      }
      const bound = (value: number) => draw.make.floats("bound", [], [value]);
      return draw.make.op("Clip", [x, low ? bound(-0.75) : undefined, ...(high ? [bound(1.5)] : [])]);
    },
  ],
  [
    "Transpose",
    (draw) => {
      const dims = draw.dims();
      const perm = draw.shuffled(dims.map((_, i) => i));
      return draw.make.op("Transpose", [draw.constant(draw.of(ALL), dims)], draw.bool() ? { perm } : {});
    },
  ],
  [
    "Reshape",
    (draw) => {
      const dims = draw.dims();
      // The same elements, cut anew; a size that stays can be 0, and one of the others -1.
      const target = draw.bool() ? draw.shuffled(dims) : [...dims, 1];
      const kept = target.map((dim, i) => (dim === dims[i] && draw.bool() ? 0 : dim));
      const open = draw.below(kept.length + 1);
      const shape = kept.map((dim, i) => (i === open && !kept.includes(0) && !dims.includes(0) ? -1 : dim));
      const allowsZero = draw.opset >= 14 && dims.includes(0) && draw.bool();
      const attrs = allowsZero ? { allowzero: 1 } : {};
      return draw.make.op(
        "Reshape",
        [draw.constant(draw.of(ALL), dims), draw.ints(allowsZero ? target : shape)],
        attrs,
      );
    },
  ],
  [
    "Flatten",
    (draw) => {
      const dims = draw.dims();
      const { length } = dims;
      const axis = draw.opset >= 11 && draw.bool() ? draw.below(length + 1) - length : draw.below(length + 1);
      return draw.make.op("Flatten", [draw.constant(draw.of(NUMBERS), dims)], draw.below(4) ? { axis } : {});
    },
  ],
  [
    "Squeeze",
    (draw) => {
      const dims = draw.dims();
      const ones = dims.flatMap((dim, i) => (dim === 1 ? [i] : []));
      const axes = draw.bool() ? draw.axes(dims.length, ones) : undefined;
      const { attrs, inputs } = draw.early(13, "axes", axes);
      return draw.make.op("Squeeze", [draw.constant(draw.of(ALL), dims), ...inputs], attrs);
    },
  ],
  [
    "Unsqueeze",
    (draw) => {
      const dims = draw.dims().slice(0, 3);
      const rank = dims.length + 1 + draw.below(2);
      const axes = draw.shuffled(Array.from({ length: rank }, (_, i) => i)).slice(0, rank - dims.length);
      const signed = axes.map((axis) => (draw.opset >= 11 && draw.bool() ? axis - rank : axis));
      const { attrs, inputs } = draw.early(13, "axes", signed);
      return draw.make.op("Unsqueeze", [draw.constant(draw.of(ALL), dims), ...inputs], attrs);
    },
  ],
  [
    "Slice",
    (draw) => {
      const dims = draw.dims(1);
      const axes = draw.shuffled(dims.map((_, i) => i)).slice(0, 1 + draw.below(dims.length));
      const at = () => draw.of([-1000, -3, -2, -1, 0, 1, 2, 3, 2 ** 31, -(2 ** 31)]);
      const [starts, ends] = [axes.map(at), axes.map(at)];
      const x = draw.constant(draw.of(draw.opset < 10 ? ["float32"] : ALL), dims);
      if (draw.opset < 10) return draw.make.op("Slice", [x], { starts, ends, axes });
      const signed = axes.map((axis) => (draw.bool() ? axis : axis - dims.length));
      const steps = draw.bool() ? [draw.ints(axes.map(() => draw.of([1, 2, -1, -2, -1000])))] : [];
      return draw.make.op("Slice", [x, draw.ints(starts), draw.ints(ends), draw.ints(signed), ...steps]);
    },
  ],
  [
    "Split",
    (draw) => {
      const dims = draw.dims(1);
      const axis = draw.axis(dims.length);
      const size = dims.at(axis < 0 ? axis : axis - dims.length)!;
      const cut = draw.below(size + 1);
      const isEven = draw.bool();
      const { attrs, inputs } = draw.early(13, "split", isEven ? undefined : [cut, size - cut]);
      const x = draw.constant(draw.of(ALL), dims);
      const even = isEven && draw.opset >= 18 ? { num_outputs: 2 } : {};
      const parts = draw.make.node("Split", [x, ...inputs], { axis, ...attrs, ...even }, 2).outputs;
      return draw.of(parts);
    },
  ],
  [
    "Concat",
    (draw) => {
      const dims = draw.dims(1);
      const axis = draw.opset >= 11 ? draw.axis(dims.length) : draw.below(dims.length);
      const dtype = draw.of(ALL);
      const part = () => dims.map((dim, i) => (i === (axis + dims.length) % dims.length ? draw.below(4) : dim));
      const parts = Array.from({ length: 1 + draw.below(3) }, () => draw.constant(dtype, part()));
      return draw.make.op("Concat", parts, { axis });
    },
  ],
  [
    "Gather",
    (draw) => {
      const dims = draw.dims(1).map((dim) => dim || 1);
      const axis = draw.axis(dims.length);
      const size = dims.at(axis < 0 ? axis : axis - dims.length)!;
      const shape = draw.dims().slice(0, 2);
      const indices = Array.from({ length: elementCount(shape) }, () =>
        draw.opset >= 11 ? draw.below(2 * size) - size : draw.below(size),
      );
      const isShort = draw.bool();
      const at = draw.make.constant("at", tensorOf(isShort ? "int32" : "int64", shape, indices));
      return draw.make.op("Gather", [draw.constant(draw.of(ALL), dims), at], draw.below(3) ? { axis } : { axis: 0 });
    },
  ],
]);

test("every operator that is folded has its case", () => {
  assert.deepEqual(
    [...CASES.keys()].toSorted(),
    (Object.keys(ONNX_OPERATORS) as OpType[]).filter((name) => ONNX_OPERATORS[name].folds).toSorted(),
  );
});

/** Expand is not folded, takes every type and, to the shape of a scalar, changes nothing. */
function giveOut(make: GraphMaker, value: Value, dtype: DType | undefined): Model {
  make.output(make.op("Expand", [value, make.ints("scalar", [])]), "y", undefined, dtype);
  // An output must not be declared with a type that onnxruntime finds out otherwise.
  make.model.graph.outputs[0]!.retype(dtype, undefined);
  return make.model;
}

/** What onnxruntime gives, or undefined where it has no kernel for this operator, type and version. */
async function outputOf(model: Model): Promise<Tensor | undefined> {
  try {
    return (await runModel(model, {}, { optimization: "disabled" })).y;
  } catch (error) {
    if (error instanceof CoreError) return undefined;
    throw error;
  }
}

for (const [opType, build] of CASES) {
  test(`${opType}: folded or not, the same bytes`, async () => {
    let ran = 0;
    let folded = 0;
    await fc.assert(
      fc.asyncProperty(fc.infiniteStream(fc.nat()), async (stream) => {
        if (ran >= RUNS) return;
        const draw = new Draw(() => stream.next().value!, OPSETS);
        const value = build(draw);
        const model = giveOut(draw.make, value, resultDType(opType, value));
        const expected = await outputOf(model);
        if (!expected) return;
        ran++;
        const result = await simplify(model, { evaluate: (extract) => runModel(extract, {}) });
        const actual = await outputOf(result.model);
        if (![...result.model.nodes()].some((node) => node.opType === opType)) folded++;
        assert.deepEqual([actual?.dtype, actual?.dims], [expected.dtype, expected.dims]);
        assert.deepEqual(actual!.bytes, expected.bytes);
      }),
      { numRuns: DRAWS },
    );
    assert.ok(ran >= RUNS, `onnxruntime ran ${ran} graphs`);
    assert.ok(folded >= RUNS / 2, `${folded} of ${ran} were folded`);
  });
}

/** The element type of a result. */
function resultDType(opType: string, { producer }: Value): DType | undefined {
  const [first, second] = producer!.inputs;
  if (opType === "Shape" || opType === "Size") return "int64";
  if (opType === "Cast")
    return (Object.keys(DTYPES) as DType[]).find((name) => DTYPES[name].onnx === producer!.int("to"));
  if (opType === "Where") return second!.dtype;
  const isBool = ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"].includes(opType);
  return isBool ? "bool" : first!.dtype;
}
