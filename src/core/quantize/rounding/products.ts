/**
 * Products of matrices of float64, in WebAssembly with 128-bit vectors. Tiles of four rows by four columns stay in registers; factors are cut along
 * the depth, so that what is read again and again stays in the cache.
 */
import { CoreError } from "../../errors.ts";
import {
  advance,
  advanceBelow,
  assembleKernels,
  type Code,
  createMemory,
  I32,
  I32_ADD,
  I32_LT_U,
  i32,
  kernel,
  type Local,
  load,
  loop,
  store,
  V128,
  vector,
} from "../../wasm-assembler.ts";

/** Row-major, in memory that kernels read. Rows and columns are whole tiles; what is beyond the matrix is zero. */
export interface Matrix {
  readonly data: Float64Array<ArrayBuffer>;
  /** Elements from one row to the next. */
  readonly stride: number;
}

/** A part of a matrix. Where it begins, and its size unless it ends with its matrix, are whole tiles. */
export interface Block {
  readonly of: Matrix;
  readonly row: number;
  readonly column: number;
  readonly rows: number;
  readonly columns: number;
}

/** Rows and columns of a tile. */
export const TILE = 4;
/** Depth that is multiplied at a time: four columns of it are in the first cache. */
const PANEL = 128;

const BYTES = 8;
const F64_LOAD_SPLAT: Code = vector(10, 3, 0);
const F64_SUB: Code = vector(0xf1);
const F64_MUL: Code = vector(0xf2);

const POINTERS = { row0: I32, row1: I32, row2: I32, row3: I32 } as const;
const FACTORS = { a0: I32, a1: I32, a2: I32, a3: I32 } as const;

/**
 * C −= A·B, for whole tiles. Strides are in bytes; `depth` is the length of a row of A in bytes, `rows` the bytes from the first row of C to behind
 * the last, `columns` those from the first column to behind the last.
 */
const subtract = kernel(
  { c: I32, a: I32, b: I32, strideC: I32, strideA: I32, strideB: I32, depth: I32, rows: I32, columns: I32 },
  { ...POINTERS, ...FACTORS, factorRow: I32, q: I32, end: I32, lastRow: I32, lastColumn: I32, left: V128, right: V128 },
  (local, vectors) => {
    const { c, a, b, strideC, strideA, strideB, depth, rows, columns } = local;
    const { factorRow, q, end, lastRow, lastColumn, left, right } = local;
    const target = [local.row0, local.row1, local.row2, local.row3];
    const factors = [local.a0, local.a1, local.a2, local.a3];
    const sums = (row: number) => [vectors[2 * row]!, vectors[2 * row + 1]!] as const;
    const factor = vectors[8]!;
    const rowsFrom = (pointers: readonly Local[], stride: Local): Code =>
      pointers.slice(1).map((pointer, i) => [pointers[i]!.get, stride.get, I32_ADD, pointer.set]);
    return [
      [c.get, columns.get, I32_ADD, lastColumn.set],
      loop(
        [c.get, target[0]!.set, a.get, factorRow.set],
        [c.get, rows.get, I32_ADD, lastRow.set],
        loop(
          rowsFrom(target, strideC),
          target.map((pointer, row) => [
            pointer.get,
            load(0),
            sums(row)[0].set,
            pointer.get,
            load(16),
            sums(row)[1].set,
          ]),
          [factorRow.get, factors[0]!.set, rowsFrom(factors, strideA)],
          [b.get, q.set, factorRow.get, depth.get, I32_ADD, end.set],
          loop(
            [q.get, load(0), left.set, q.get, load(16), right.set],
            factors.map((pointer, row) => [
              [pointer.get, F64_LOAD_SPLAT, factor.set],
              [sums(row)[0].get, factor.get, left.get, F64_MUL, F64_SUB, sums(row)[0].set],
              [sums(row)[1].get, factor.get, right.get, F64_MUL, F64_SUB, sums(row)[1].set],
            ]),
            factors.slice(1).map((pointer) => advance(pointer, i32(BYTES))),
            advance(q, strideB.get),
            advanceBelow(factors[0]!, i32(BYTES), end),
          ),
          target.map((pointer, row) => [
            [pointer.get, sums(row)[0].get, store],
            [pointer.get, i32(16), I32_ADD, sums(row)[1].get, store],
          ]),
          [factorRow.get, factors.map(() => [strideA.get, I32_ADD]), factorRow.set],
          [target[3]!.get, strideC.get, I32_ADD, target[0]!.tee, lastRow.get, I32_LT_U],
        ),
        advance(b, i32(TILE * BYTES)),
        advanceBelow(c, i32(TILE * BYTES), lastColumn),
      ),
    ];
  },
  9,
);

interface Functions {
  readonly subtract: (...addressesAndLengths: number[]) => void;
}

let instantiate: ReturnType<typeof assembleKernels<Functions>> | undefined;

/** Matrices of zeros in one memory, and what computes with them. */
export interface Workspace<M extends readonly Matrix[]> {
  readonly matrices: M;
  /** C −= A·B. C must not overlap A and B. */
  subtractProduct(c: Block, a: Block, b: Block): void;
}

/** Matrices [rows, columns] for each of `shapes`. Throws `limit_exceeded` for more than WebAssembly can address. */
export function workspace<const S extends readonly (readonly [rows: number, columns: number])[]>(
  shapes: S,
): Workspace<{ readonly [K in keyof S]: Matrix }> {
  const sizes = shapes.map(([rows, columns]) => wholeTiles(rows) * strideFor(columns));
  const bytes = BYTES * sizes.reduce((sum, size) => sum + size, 0);
  if (bytes > 2 ** 32 - 2 ** 16) {
    throw new CoreError(
      "limit_exceeded",
      `Matrices of ${shapes.join(" and ")} elements are too large to be multiplied.`,
    );
  }
  const memory = createMemory(bytes);
  instantiate ??= assembleKernels<Functions>({ subtract });
  const { subtract: run } = instantiate(memory);
  let at = 0;
  const matrices = shapes.map(([, columns], i): Matrix => {
    const data = new Float64Array(memory.buffer, at, sizes[i]!);
    at += BYTES * sizes[i]!;
    return { data, stride: strideFor(columns) };
  });
  const addressOf = ({ of, row, column }: Block) => of.data.byteOffset + BYTES * (row * of.stride + column);
  return {
    matrices: matrices as { readonly [K in keyof S]: Matrix },
    subtractProduct(c, a, b) {
      const [rows, columns, depth] = [wholeTiles(c.rows), wholeTiles(c.columns), wholeTiles(a.columns)];
      if (rows === 0 || columns === 0) return;
      const strides = [c, a, b].map(({ of }) => BYTES * of.stride);
      for (let start = 0; start < depth; start += PANEL) {
        const panel = Math.min(PANEL, depth - start);
        run(
          ...[addressOf(c), addressOf({ ...a, column: a.column + start }), addressOf({ ...b, row: b.row + start })],
          ...strides,
          ...[BYTES * panel, rows * strides[0]!, BYTES * columns],
        );
      }
    },
  };
}

/** Of a cache line, in elements. */
const LINE = 8;

/**
 * An odd number of cache lines: the tiles of a column go down the rows, and with a stride of many times two all of them would be in the same few places of the
 * cache.
 */
function strideFor(columns: number): number {
  const lines = Math.ceil(columns / LINE);
  return LINE * (lines % 2 === 0 ? lines + 1 : lines);
}

export function wholeTiles(length: number): number {
  return TILE * Math.ceil(length / TILE);
}
