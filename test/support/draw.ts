import { DTYPES } from "../../src/core/onnx/dtype.ts";
import type { Value } from "../../src/core/onnx/ir.ts";
import { type ArrayDType, elementCount, type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { GraphMaker } from "./graphs.ts";

/** Draws what a graph of one operator is made of: shapes of rank 0 to 5, axes from either end, numbers that are not finite. */
export class Draw {
  readonly make: GraphMaker;
  readonly opset: number;
  readonly #nat: () => number;

  constructor(nat: () => number, opsets: readonly number[]) {
    this.#nat = nat;
    this.opset = this.of(opsets);
    this.make = new GraphMaker({ opset: this.opset, irVersion: 10, storage: this.of(["initializer", "constant"]) });
  }

  below(n: number): number {
    return this.#nat() % n;
  }

  of<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  bool(): boolean {
    return this.below(2) === 1;
  }

  /** A shape of rank `min` to 5, now and then with a 0 in it. */
  dims(min = 0): number[] {
    const sizes = this.below(6) === 0 ? [0, 1, 2, 3] : [1, 2, 3];
    return Array.from({ length: min + this.below(6 - min) }, () => this.of(sizes));
  }

  /** A shape that broadcasts with `dims`. */
  broadcasting(dims: readonly number[]): number[] {
    return dims.slice(this.below(dims.length + 1)).map((dim) => (this.below(3) === 0 ? 1 : dim));
  }

  /** An axis of `rank`, from the front or from the end. */
  axis(rank: number): number {
    return this.below(2 * rank) - rank;
  }

  shuffled<T>(items: readonly T[]): T[] {
    const rest = [...items];
    return items.map(() => rest.splice(this.below(rest.length), 1)[0]!);
  }

  /** Some different axes of `rank` in any order, each from the front or from the end. */
  axes(rank: number, among: readonly number[] = Array.from({ length: rank }, (_, i) => i)): number[] {
    const some = this.shuffled(among).slice(0, this.below(among.length + 1));
    return some.map((axis) => (this.bool() ? axis : axis - rank));
  }

  data(dtype: ArrayDType, dims: readonly number[]): Tensor {
    const { kind } = DTYPES[dtype];
    const values = Array.from({ length: elementCount(dims) }, () => {
      if (kind === "bool") return this.below(2);
      if (kind === "uint") return this.below(6);
      if (kind === "int") return this.below(11) - 5;
      const special = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 0.5, 65504, 1e-7];
      return this.below(8) === 0 ? this.of(special) : (this.below(2001) - 1000) / 256;
    });
    return tensorOf(dtype, dims, values);
  }

  /** Floats without the special ones. */
  finite(dtype: "float32" | "float64", dims: readonly number[]): Tensor {
    const values = Array.from({ length: elementCount(dims) }, () => (this.below(2001) - 1000) / 256);
    return tensorOf(dtype, dims, values);
  }

  constant(dtype: ArrayDType, dims: readonly number[]): Value {
    return this.make.constant("k", this.data(dtype, dims));
  }

  ints(values: readonly number[]): Value {
    return this.make.ints("i", values);
  }

  /** Integers that are an attribute before version `since`, and an input from then on. */
  early(since: number, name: string, values: readonly number[] | undefined) {
    const isAttr = this.opset < since;
    return {
      attrs: isAttr && values ? { [name]: values } : {},
      inputs: !isAttr && values ? [this.ints(values)] : [],
    };
  }
}
