import { CoreError } from "../errors.ts";
import { operatorOf } from "../operators/operators.ts";
import type { Attr, Graph, Node, Value } from "./ir.ts";
import { type ArrayDType, integersOf, isFloat, type Tensor, tensorOf } from "./tensor.ts";

export const int = (value: number): Attr => ({ type: "int", value });
export const ints = (value: readonly number[]): Attr => ({ type: "ints", value });
export const float = (value: number): Attr => ({ type: "float", value });
export const string = (value: string): Attr => ({ type: "string", value });

type Attrs = Readonly<Record<string, Attr>>;

/** A value, or a number that becomes a shared constant of the other operand's dtype. */
export type Operand = Value | number;

/**
 * Emits nodes at the end of a graph, or before a node of it, in the signatures that operators have in version 21. Constants are
 * shared. Shapes are the caller's business; dtypes are kept up so that numbers in formulas become constants of the right type.
 */
export class GraphBuilder {
  readonly graph: Graph;
  #anchor: Node | undefined;
  #standsFor: Node | undefined;
  readonly #constants = new Map<string, Value>();
  #scope = "";

  constructor(graph: Graph) {
    this.graph = graph;
    // onnxruntime refuses two nodes of one name.
    for (const node of graph.nodes) graph.model.claimName(node.name);
  }

  /** Names of the nodes that `emit` adds start with `scope`; onnxruntime's errors and profiles then say what they belong to. */
  within<T>(scope: string, emit: () => T): T {
    const outer = this.#scope;
    this.#scope = `${scope}/`;
    try {
      return emit();
    } finally {
      this.#scope = outer;
    }
  }

  /** What `emit` adds comes right before `anchor`, and is reported as `standsFor` where that is given. */
  before<T>(anchor: Node, emit: () => T, standsFor?: Node): T {
    const [outer, outerStandsFor] = [this.#anchor, this.#standsFor];
    this.#anchor = anchor;
    this.#standsFor = standsFor;
    try {
      return emit();
    } finally {
      this.#anchor = outer;
      this.#standsFor = outerStandsFor;
    }
  }

  /** A node with one output; answers that output. */
  op(opType: string, inputs: readonly (Value | undefined)[], attrs: Attrs = {}, domain = ""): Value {
    return this.ops(opType, inputs, 1, attrs, domain)[0]!;
  }

  /** A node with several outputs. */
  ops(
    opType: string,
    inputs: readonly (Value | undefined)[],
    outputs: number,
    attrs: Attrs = {},
    domain = "",
  ): readonly Value[] {
    const name = this.graph.model.freshName(`${this.#scope}${opType}`);
    const standsFor = this.#standsFor;
    const init = { opType, domain, name, inputs, outputs, attrs, ...(standsFor && { standsFor }) };
    const node = this.#anchor ? this.graph.insertBefore(this.#anchor, init) : this.graph.append(init);
    const result = operatorOf({ domain, opType })?.results?.[0];
    const dtype =
      (result === "bool" || result === "int64" ? result : undefined) ??
      inputs.find((value) => isFloat(value?.dtype))?.dtype ??
      inputs.find((value) => value?.dtype && value.dtype !== "bool")?.dtype;
    for (const value of node.outputs) value.dtype = dtype;
    return node.outputs;
  }

  /** An initializer; equal small ones (up to 64 elements) are made once. */
  constant(dtype: ArrayDType, dims: readonly number[], data: readonly number[]): Value {
    const make = () => this.graph.addInitializer("constant", tensorOf(dtype, dims, data));
    if (data.length > 64) return make();
    const key = `${dtype}[${dims}]${data}`;
    const known = this.#constants.get(key) ?? make();
    this.#constants.set(key, known);
    return known;
  }

  /** A scalar of the dtype of `like`. */
  scalar(value: number, like: Value): Value {
    return this.constant((like.dtype ?? "float32") as ArrayDType, [], [value]);
  }

  /** A float tensor of `dims` filled with `value`. It is made inside the graph, so that it takes no room in the model. */
  full(dims: readonly number[], value: number, like: Value): Value {
    const dtype = like.dtype === "float64" ? "float64" : "float32";
    const filled = this.op("ConstantOfShape", [this.shape(dims)], {
      value: { type: "tensor", value: tensorOf(dtype, [1], [value]) },
    });
    filled.dtype = dtype;
    return filled;
  }

  /** A constant vector of int64. */
  shape(dims: readonly number[]): Value {
    return this.constant("int64", [dims.length], dims);
  }

  #binary(opType: string, a: Operand, b: Operand): Value {
    const like = typeof a === "number" ? (b as Value) : a;
    const value = (operand: Operand) => (typeof operand === "number" ? this.scalar(operand, like) : operand);
    return this.op(opType, [value(a), value(b)]);
  }

  add(a: Operand, b: Operand): Value {
    return this.#binary("Add", a, b);
  }
  sub(a: Operand, b: Operand): Value {
    return this.#binary("Sub", a, b);
  }
  mul(a: Operand, b: Operand): Value {
    return this.#binary("Mul", a, b);
  }
  div(a: Operand, b: Operand): Value {
    return this.#binary("Div", a, b);
  }
  pow(a: Operand, b: Operand): Value {
    return this.#binary("Pow", a, b);
  }
  greater(a: Operand, b: Operand): Value {
    return this.#binary("Greater", a, b);
  }
  equal(a: Operand, b: Operand): Value {
    return this.#binary("Equal", a, b);
  }

  neg(x: Value): Value {
    return this.op("Neg", [x]);
  }
  exp(x: Value): Value {
    return this.op("Exp", [x]);
  }
  log(x: Value): Value {
    return this.op("Log", [x]);
  }
  sqrt(x: Value): Value {
    return this.op("Sqrt", [x]);
  }
  square(x: Value): Value {
    return this.mul(x, x);
  }

  where(condition: Value, a: Operand, b: Operand): Value {
    const like = typeof a === "number" ? (b as Value) : a;
    const value = (operand: Operand) => (typeof operand === "number" ? this.scalar(operand, like) : operand);
    return this.op("Where", [condition, value(a), value(b)]);
  }

  cast(x: Value, dtype: "float32" | "float64" | "float16" | "int64"): Value {
    const to = { float32: 1, int64: 7, float16: 10, float64: 11 }[dtype];
    const result = this.op("Cast", [x], { to: int(to) });
    result.dtype = dtype;
    return result;
  }

  /** 1 where a bool holds, else 0, in the dtype of `like`. */
  indicator(condition: Value, like: Value): Value {
    return this.cast(condition, like.dtype === "float64" ? "float64" : "float32");
  }

  matMul(a: Value, b: Value): Value {
    return this.op("MatMul", [a, b]);
  }

  /** alpha · A' · B' for matrices, A' and B' transposed on demand. */
  gemm(a: Value, b: Value, options: { transA?: boolean; transB?: boolean; alpha?: number } = {}): Value {
    return this.op("Gemm", [a, b], {
      alpha: float(options.alpha ?? 1),
      transA: int(options.transA ? 1 : 0),
      transB: int(options.transB ? 1 : 0),
    });
  }

  sum(x: Value, axes: readonly number[], keepDims = true): Value {
    return this.#reduce("ReduceSum", x, axes, keepDims);
  }
  mean(x: Value, axes: readonly number[], keepDims = true): Value {
    return this.#reduce("ReduceMean", x, axes, keepDims);
  }
  max(x: Value, axes: readonly number[], keepDims = true): Value {
    return this.#reduce("ReduceMax", x, axes, keepDims);
  }
  #reduce(opType: string, x: Value, axes: readonly number[], keepDims: boolean): Value {
    return this.op(opType, [x, this.shape(axes)], { keepdims: int(keepDims ? 1 : 0) });
  }
  /** The mean of all elements, a scalar. */
  meanAll(x: Value): Value {
    return this.op("ReduceMean", [x], { keepdims: int(0) });
  }
  /** The sum of all elements, a scalar. */
  sumAll(x: Value): Value {
    return this.op("ReduceSum", [x], { keepdims: int(0) });
  }

  reshape(x: Value, dims: readonly number[]): Value {
    return this.op("Reshape", [x, this.shape(dims)]);
  }
  transpose(x: Value, perm: readonly number[]): Value {
    return perm.every((axis, i) => axis === i) ? x : this.op("Transpose", [x], { perm: ints(perm) });
  }
  expand(x: Value, dims: readonly number[]): Value {
    return this.op("Expand", [x, this.shape(dims)]);
  }
  squeeze(x: Value, axes: readonly number[]): Value {
    return this.op("Squeeze", [x, this.shape(axes)]);
  }
  unsqueeze(x: Value, axes: readonly number[]): Value {
    return this.op("Unsqueeze", [x, this.shape(axes)]);
  }
  concat(values: readonly Value[], axis: number): Value {
    return values.length === 1 ? values[0]! : this.op("Concat", values, { axis: int(axis) });
  }
  split(x: Value, axis: number, sizes: readonly number[]): readonly Value[] {
    return this.ops("Split", [x, this.shape(sizes)], sizes.length, { axis: int(axis) });
  }
  slice(
    x: Value,
    axes: readonly number[],
    starts: readonly number[],
    ends: readonly number[],
    steps?: readonly number[],
  ): Value {
    const inputs = [x, this.shape(starts), this.shape(ends), this.shape(axes)];
    return this.op("Slice", steps ? [...inputs, this.shape(steps)] : inputs);
  }
  /** Reverses the order along `axes`. */
  flip(x: Value, axes: readonly number[]): Value {
    const all = (value: number) => axes.map(() => value);
    return axes.length === 0 ? x : this.slice(x, axes, all(-1), all(-(2 ** 31)), all(-1));
  }
  /** Zeros before and after each axis; negative counts cut off. */
  pad(x: Value, before: readonly number[], after: readonly number[]): Value {
    if ([...before, ...after].every((count) => count === 0)) return x;
    return this.op("Pad", [x, this.shape([...before, ...after])]);
  }
}

/** The static shape of a value. Throws `unsupported` where `resolveStatics` found none. */
export function dimsOf(value: Value): readonly number[] {
  if (!value.shape?.every((dim) => typeof dim === "number")) {
    throw new CoreError("unsupported", `The shape of "${value.name}" is not known before the model runs.`, value.name);
  }
  return value.shape as readonly number[];
}

/** The constant that an input of a node holds, undefined where the input is absent. Throws `unsupported` where it is not constant. */
export function constantInput(node: Node, index: number): Tensor | undefined {
  const value = node.inputs[index];
  if (!value) return undefined;
  if (!value.constant) {
    throw new CoreError(
      "unsupported",
      `Input ${index} of "${node.label}" (${node.opType}) is computed from the data; its gradient needs it to be constant.`,
      node.label,
    );
  }
  return value.constant;
}

/** Integers that an input of a node holds: axes, shapes, pads. */
export function integerInput(node: Node, index: number): readonly number[] | undefined {
  const constant = constantInput(node, index);
  return constant && integersOf(constant);
}

/** Axes counted from the front. */
export function normalAxes(axes: readonly number[], rank: number): readonly number[] {
  return axes.map((axis) => (axis < 0 ? axis + rank : axis));
}

/** 0, 1, … n − 1. */
export function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}

/** Sums a tensor of shape `from` over the axes along which one of shape `to` was broadcast to it. */
export function sumTo(g: GraphBuilder, value: Value, from: readonly number[], to: readonly number[]): Value {
  const added = from.length - to.length;
  const stretched = range(to.length).flatMap((i) => (to[i] === 1 && from[i + added] !== 1 ? [i + added] : []));
  if (added === 0 && stretched.length === 0) return value;
  if (stretched.length === 0) return g.sum(value, range(added), false);
  const sum = g.sum(value, [...range(added), ...stretched]);
  return added === 0 ? sum : g.reshape(sum, to);
}
