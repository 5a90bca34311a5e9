import { CoreError } from "../errors.ts";
import { byteLengthOf, DTYPES } from "../onnx/dtype.ts";
import { arrayOf, elementCount, tensor } from "../onnx/tensor.ts";
import { CHUNK_BYTES, memorySource, type ScratchBytes } from "./byte-source.ts";
import { checkDims, checkName, LIMITS } from "./limits.ts";
import type { Contents, StoredArray } from "./sample-array.ts";
import type { TableDType, TableInput } from "./spec.ts";
import { type Cell, notANumber, notFinite, type Refuse, type TableFormat } from "./table-cells.ts";
import { LabelColumn } from "./table-labels.ts";

export interface TableSpec {
  readonly inputs: Readonly<Record<string, TableInput<string | number>>>;
  readonly labels?: string | number | undefined;
}

/**
 * Rows of a table, as they come, to arrays: a row is a sample. Numbers go to scratch room, so that a table of any length takes the same
 * memory. Errors name the line, the column and the value.
 */
export class TableRows {
  readonly #names: readonly string[];
  readonly #format: TableFormat;
  readonly #inputs: readonly InputRows[];
  readonly #labels: { readonly column: number; readonly values: LabelColumn } | undefined;
  #count = 0;

  /** `names` are those of the columns. Throws `invalid_dataset` for columns that are not there. */
  constructor(names: readonly string[], spec: TableSpec, format: TableFormat, openScratch: () => ScratchBytes) {
    if (names.length > LIMITS.columns) {
      const message = `The table has ${names.length} columns; at most ${LIMITS.columns} are read.`;
      throw new CoreError("limit_exceeded", message);
    }
    this.#names = names;
    this.#format = format;
    const labels = spec.labels === undefined ? undefined : columnOf(names, spec.labels, "the labels");
    const named = Object.entries(spec.inputs).map(([name, input]) => ({
      name,
      input,
      columns: input.columns?.map((column) => columnOf(names, column, `the input "${name}"`)),
    }));
    const taken = new Set([labels, ...named.flatMap(({ columns }) => columns ?? [])]);
    const others = names.flatMap((_, column) => (taken.has(column) ? [] : [column]));
    this.#inputs = named.map(
      ({ name, input, columns }) => new InputRows(name, input, columns ?? others, format, openScratch),
    );
    this.#labels = labels === undefined ? undefined : { column: labels, values: new LabelColumn(format) };
  }

  /** `cells` in the order of the names; `line` is where the row ends, or its number, counted from 1. */
  add(line: number, cells: readonly Cell[]): void {
    if (++this.#count > LIMITS.samples) {
      throw new CoreError("limit_exceeded", `The table has more than ${LIMITS.samples} rows.`);
    }
    const at = (column: number): Refuse => refuseCell(`${this.#format.row} ${line}`, this.#names[column]!);
    for (const input of this.#inputs) input.add(cells, at);
    if (this.#labels) this.#labels.values.add(cells[this.#labels.column], at(this.#labels.column));
  }

  finish(): Contents {
    const count = this.#count;
    if (count === 0) throw new CoreError("invalid_dataset", "The table has no rows.");
    const labels = this.#labels?.values.finish();
    return {
      arrays: this.#inputs.map((input) => input.finish(count)),
      labels: labels && { dtype: labels.dtype, dims: [count], source: memorySource(labels.bytes) },
      classes: labels?.classes,
    };
  }
}

function refuseCell(place: string, name: string): Refuse {
  return (why) => {
    throw new CoreError("invalid_dataset", `${place}, column "${name}" ${why}.`, name);
  };
}

function columnOf(names: readonly string[], wanted: string | number, what: string): number {
  if (typeof wanted === "number") {
    if (wanted < names.length) return wanted;
    throw new CoreError(
      "invalid_dataset",
      `There is no column ${wanted} for ${what}: the table has ${names.length}, counted from 0.`,
      String(wanted),
    );
  }
  const column = names.indexOf(wanted);
  const refuse = (why: string): never => {
    throw new CoreError("invalid_dataset", why, wanted);
  };
  if (column < 0) {
    const known = names.slice(0, 20).map((name) => `"${name}"`);
    return refuse(
      `There is no column "${wanted}" for ${what}; there are ${known.join(", ")}${names.length > 20 ? ", …" : ""}.`,
    );
  }
  if (names.lastIndexOf(wanted) !== column)
    return refuse(`There are two columns "${wanted}"; ${what} cannot name one.`);
  return column;
}

/** The numbers of one input, row after row. */
class InputRows {
  readonly #name: string;
  readonly #input: TableInput<string | number>;
  readonly #columns: readonly number[];
  readonly #format: TableFormat;
  readonly #scratch: ScratchBytes;
  /** Set by the first row. */
  #shape: readonly number[] | undefined;
  #chunk: NumberArray = new Float64Array(0);
  #filled = 0;

  constructor(
    name: string,
    input: TableInput<string | number>,
    columns: readonly number[],
    format: TableFormat,
    openScratch: () => ScratchBytes,
  ) {
    checkName(name);
    if (columns.length === 0)
      throw new CoreError("invalid_dataset", `No column is left for the input "${name}".`, name);
    this.#name = name;
    this.#input = input;
    this.#columns = columns;
    this.#format = format;
    this.#scratch = openScratch();
  }

  add(cells: readonly Cell[], at: (column: number) => Refuse): void {
    const [first] = this.#columns as [number];
    const nested = this.#columns.length === 1 ? cells[first] : undefined;
    if (Array.isArray(nested)) {
      const refuse = at(first);
      this.#expect(shapeOf(nested, refuse), refuse);
      for (const number of nested.flat(LIMITS.rank)) this.#put(number, refuse);
      return;
    }
    this.#expect([this.#columns.length], at(first));
    for (const column of this.#columns) this.#put(cells[column], at(column));
  }

  finish(count: number): StoredArray {
    this.#flush();
    const { dtype } = this.#input;
    return { name: this.#name, dtype, dims: [count, ...(this.#input.shape ?? this.#shape!)], source: this.#scratch };
  }

  /** Every row has the shape of the first one. */
  #expect(shape: readonly number[], refuse: Refuse): void {
    if (this.#shape === undefined) {
      const { shape: asked, dtype } = this.#input;
      const count = checkDims(shape, this.#name);
      if (asked && elementCount(asked) !== count) {
        refuse(`has ${count} numbers for "${this.#name}", which do not fill the shape [${asked}]`);
      }
      this.#shape = shape;
      const rows = Math.max(1, Math.floor(CHUNK_BYTES / byteLengthOf(dtype, Math.max(1, count))));
      this.#chunk = numbers(dtype, rows * count);
    } else if (shape.length !== this.#shape.length || shape.some((size, axis) => size !== this.#shape![axis])) {
      refuse(`has the shape [${shape}] where the first row has [${this.#shape}]`);
    }
    if (this.#filled === this.#chunk.length) this.#flush();
  }

  #put(cell: Cell, refuse: Refuse): void {
    const { dtype } = this.#input;
    const number = checkedNumber(cell, dtype, this.#format, refuse);
    const chunk = this.#chunk;
    const i = this.#filled++;
    if (chunk instanceof BigInt64Array || chunk instanceof BigUint64Array) chunk[i] = BigInt(number);
    else {
      chunk[i] = Number(number);
      if (!Number.isFinite(chunk[i])) refuse(notFinite(number, ` for ${dtype}`));
    }
  }

  #flush(): void {
    const { buffer, byteOffset, BYTES_PER_ELEMENT } = this.#chunk;
    const written = this.#scratch.size;
    const bytes = this.#filled * BYTES_PER_ELEMENT;
    if (written + bytes > LIMITS.scratchBytes) {
      throw new CoreError(
        "limit_exceeded",
        `"${this.#name}" takes more than ${LIMITS.scratchBytes} bytes.`,
        this.#name,
      );
    }
    this.#scratch.write(written, new Uint8Array(buffer, byteOffset, bytes));
    this.#filled = 0;
  }
}

/** The number in a cell, if it is one that an integer dtype can hold; floats are checked when they are rounded. */
function checkedNumber(cell: Cell, dtype: TableDType, format: TableFormat, refuse: Refuse): number | bigint {
  const number = format.numberOf(cell, dtype);
  if (number === undefined) return refuse(notANumber(cell, format));
  const range = RANGES[dtype];
  if (!range) return number;
  if (typeof number === "number" && !Number.isInteger(number)) {
    return refuse(`holds ${number}, which is not an integer as ${dtype} wants it`);
  }
  if (number < range.min || number > range.max) {
    return refuse(`holds ${number}; ${dtype} goes from ${range.min} to ${range.max}`);
  }
  if (typeof number === "number" && !Number.isSafeInteger(number)) {
    return refuse(`holds ${number}, which is too large to be read exactly`);
  }
  return number;
}

/** Throws for lists that do not form a box. */
function shapeOf(list: readonly unknown[], refuse: Refuse): number[] {
  const shape: number[] = [];
  for (let level: unknown = list; Array.isArray(level); level = level[0]) shape.push(level.length);
  if (shape.length > LIMITS.rank) refuse(`has lists nested ${shape.length} deep; at most ${LIMITS.rank} are read`);
  const check = (level: unknown, axis: number): void => {
    if (Array.isArray(level) !== axis < shape.length || (Array.isArray(level) && level.length !== shape[axis])) {
      refuse("has lists of different lengths");
    }
    if (Array.isArray(level)) for (const child of level) check(child, axis + 1);
  };
  check(list, 0);
  return shape;
}

type NumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float16Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

function numbers(dtype: TableDType, length: number): NumberArray {
  return arrayOf(tensor(dtype, [length], new Uint8Array(byteLengthOf(dtype, length))), dtype);
}

/** What integers can be. */
const RANGES: { readonly [D in TableDType]?: { readonly min: bigint; readonly max: bigint } } = Object.fromEntries(
  (["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"] as const).map((dtype) => {
    const bits = dtype === "bool" ? 1 : DTYPES[dtype].bits;
    const min = DTYPES[dtype].kind === "int" ? -(2n ** BigInt(bits - 1)) : 0n;
    return [dtype, { min, max: min + 2n ** BigInt(bits) - 1n }];
  }),
);
