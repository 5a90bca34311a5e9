import { CoreError } from "../errors.ts";
import type { DType } from "../onnx/dtype.ts";
import { checkName, LIMITS } from "./limits.ts";
import { type Cell, notANumber, notFinite, type Refuse, type TableFormat } from "./table-cells.ts";

/** A column of labels when all of it has been read. */
export interface Labels {
  /** `int64` for classes, by number or by name; `float64` for numbers of which one is not an integer. */
  readonly dtype: DType;
  readonly bytes: Uint8Array;
  /** Sorted names, when the labels are text; the labels are their numbers. */
  readonly classes: readonly string[] | undefined;
}

/**
 * Labels as they come. The first one decides: when it is a number all must be, so that a slip of the pen is found and does not turn class
 * numbers into names.
 */
export class LabelColumn {
  readonly #format: TableFormat;
  readonly #values = new GrowingNumbers();
  #names: Map<string, number> | undefined;
  #integers = true;

  constructor(format: TableFormat) {
    this.#format = format;
  }

  add(cell: Cell, refuse: Refuse): void {
    const number = this.#names ? undefined : this.#format.numberOf(cell, "float64");
    if (this.#values.length === 0 && number === undefined && this.#format.textOf(cell)) this.#names = new Map();
    this.#values.push(this.#names ? this.#numberOf(this.#names, cell, refuse) : this.#checked(number, cell, refuse));
  }

  #checked(number: number | bigint | undefined, cell: Cell, refuse: Refuse): number {
    if (number === undefined) {
      const why = notANumber(cell, this.#format);
      return refuse(this.#values.length === 0 ? why : `${why} as the labels before it are`);
    }
    const value = Number(number);
    if (!Number.isFinite(value)) return refuse(notFinite(number));
    this.#integers &&= Number.isSafeInteger(value);
    return value;
  }

  /** The number of a name, in the order of their first appearance for now. */
  #numberOf(names: Map<string, number>, cell: Cell, refuse: Refuse): number {
    const name = this.#format.textOf(cell);
    if (name === undefined) return refuse("holds a number where the labels before it are text");
    if (name === "") return refuse("is empty");
    const known = names.get(name);
    if (known !== undefined) return known;
    checkName(name);
    if (names.size === LIMITS.classes) {
      throw new CoreError("limit_exceeded", `There are more than ${LIMITS.classes} different labels.`);
    }
    names.set(name, names.size);
    return names.size - 1;
  }

  finish(): Labels {
    const values = this.#values.toArray();
    if (!this.#integers) return { dtype: "float64", bytes: bytesOf(values), classes: undefined };
    if (!this.#names) return { dtype: "int64", bytes: bytesOf(BigInt64Array.from(values, BigInt)), classes: undefined };
    const classes = [...this.#names.keys()].sort();
    const sorted = new Map(classes.map((name, i) => [name, BigInt(i)]));
    const numbers = [...this.#names.keys()].map((name) => sorted.get(name)!);
    return { dtype: "int64", bytes: bytesOf(BigInt64Array.from(values, (i) => numbers[i]!)), classes };
  }
}

function bytesOf(array: Float64Array | BigInt64Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

class GrowingNumbers {
  #array = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#array.length) {
      const larger = new Float64Array(2 * this.length);
      larger.set(this.#array);
      this.#array = larger;
    }
    this.#array[this.length++] = value;
  }

  toArray(): Float64Array {
    return this.#array.subarray(0, this.length);
  }
}
