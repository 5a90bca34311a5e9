/** Parts of weights in the memory of the kernels. */
import { CoreError } from "../../errors.ts";
import type { CodeRange } from "../params.ts";
import type { Grid, Layout, RoundedWeight, WeightMatrix } from "./blocks.ts";
import { type WeightKernels, weightKernels } from "./kernels.ts";

/** Floats that are worked on at a time, so that a tile's values and codes stay in the cache of one core. */
const TILE_FLOATS = 1 << 18;

/** A column-major tile is at least this wide, or copying it in would be all short pieces. */
const MIN_TILE_COLUMNS = 128;

/** The kernels take 16 floats at a time. Padding is zeros, which change no range. */
function padded(length: number): number {
  return Math.ceil(length / 16) * 16;
}

/** A part of one matrix: some of its rows, and of those a range of whole blocks. */
interface TilePlace {
  readonly batch: number;
  readonly row: number;
  readonly rows: number;
  readonly block: number;
  readonly blocks: number;
  /** First element along the depth, and how many there are. */
  readonly start: number;
  readonly length: number;
}

/**
 * A tile in the kernels' memory, in the layout of its matrix: [rows][blocks][block] or [blocks][block][rows], the last axis (and for
 * columns the block as well) padded to 16. Ranges, scales and zero points are [rows][blocks] or [blocks][rows padded].
 */
class Tile {
  readonly scales: Float32Array;
  readonly zeroPoints: Float32Array;
  readonly #los: Float32Array;
  readonly #his: Float32Array;
  readonly #floats: Float32Array;
  readonly #codes: Uint8Array;
  readonly #transposed: Uint8Array;
  readonly #kernels: WeightKernels;
  readonly #place: TilePlace;
  readonly #matrix: WeightMatrix;
  /** Padded sizes: of a block, and of the rows of a column-major tile. */
  readonly #block: number;
  readonly #width: number;

  /** Memory for tiles of up to this size. */
  static bytes(rows: number, blocks: number, blockSize: number): number {
    return padded(rows) * blocks * (6 * padded(blockSize) + 16);
  }

  constructor(kernels: WeightKernels, matrix: WeightMatrix, place: TilePlace, blockSize: number) {
    this.#kernels = kernels;
    this.#matrix = matrix;
    this.#place = place;
    this.#block = padded(blockSize);
    this.#width = padded(place.rows);
    const { buffer } = kernels;
    const params = (matrix.layout === "row-major" ? place.rows : this.#width) * place.blocks;
    const floats = params * this.#block;
    const room = this.#width * place.blocks * this.#block;
    this.#floats = new Float32Array(buffer, 0, floats);
    this.#codes = new Uint8Array(buffer, 4 * room, floats);
    this.#transposed = new Uint8Array(buffer, 5 * room, room);
    this.#los = new Float32Array(buffer, 6 * room, params);
    this.#his = new Float32Array(buffer, 6 * room + 4 * params, params);
    this.scales = new Float32Array(buffer, 6 * room + 8 * params, params);
    this.zeroPoints = new Float32Array(buffer, 6 * room + 12 * params, params);
    this.#load();
  }

  #load(): void {
    const { values, rows: allRows, depth, layout } = this.#matrix;
    const { batch, row, rows, start, length, blocks } = this.#place;
    const base = batch * allRows * depth;
    if (this.#floats.length !== rows * length) this.#floats.fill(0);
    if (layout === "row-major") {
      copyRuns(values, base + row * depth + start, depth, this.#floats, 0, blocks * this.#block, rows, length);
    } else copyRuns(values, base + start * allRows + row, allRows, this.#floats, 0, this.#width, length, rows);
  }

  /** lo and hi of every block; see `reduceRange` of a scheme for `pairs`. */
  ranges(pairs: boolean): { readonly los: Float32Array; readonly his: Float32Array } {
    const los = this.#los;
    const his = this.#his;
    if (this.#matrix.layout === "row-major") {
      const compute = pairs ? this.#kernels.pairRangesOfRows : this.#kernels.rangesOfRows;
      compute(0, this.#floats.byteLength, 4 * this.#block, los.byteOffset, his.byteOffset);
    } else {
      const compute = pairs ? this.#kernels.pairRangesOfColumns : this.#kernels.rangesOfColumns;
      los.fill(0);
      his.fill(0);
      this.#forEachColumnBlock((src, end, at) => {
        compute(src, end, 4 * this.#width, los.byteOffset + at, his.byteOffset + at);
      });
    }
    for (let i = 0; i < los.length; i++) {
      if (Number.isNaN(los[i])) throw new CoreError("non_finite", "A weight holds NaN or an infinity.");
    }
    return { los, his };
  }

  encode(codes: CodeRange): void {
    const { scales, zeroPoints } = this;
    const to = this.#codes.byteOffset;
    if (this.#matrix.layout === "row-major") {
      const { encodeRows } = this.#kernels;
      const [end, block] = [this.#floats.byteLength, 4 * this.#block];
      encodeRows(0, end, block, scales.byteOffset, zeroPoints.byteOffset, codes.min, codes.max, to);
      return;
    }
    const { encodeColumns } = this.#kernels;
    this.#forEachColumnBlock((src, end, at) => {
      const [scale, zero] = [scales.byteOffset + at, zeroPoints.byteOffset + at];
      encodeColumns(src, end, 4 * this.#width, scale, zero, codes.min, codes.max, to + src / 4);
    });
  }

  /** Copies codes, scales and zero points out to where they belong. */
  store(to: RoundedWeight, layout: Layout, rowLength: number, allBlocks: number): void {
    this.#storeParams(to, layout, allBlocks);
    const { rows: allRows } = this.#matrix;
    const { batch, row, rows, start, blocks } = this.#place;
    const depth = blocks * this.#block;
    const length = Math.min(depth, rowLength - start);
    const base = batch * allRows * rowLength;
    const rowMajor = layout === "row-major";
    const codes = layout === this.#matrix.layout ? this.#codes : this.#transpose(depth);
    if (rowMajor) copyRuns(codes, 0, depth, to.q, base + row * rowLength + start, rowLength, rows, length);
    else copyRuns(codes, 0, this.#width, to.q, base + start * allRows + row, allRows, length, rows);
  }

  get firstRow(): number {
    return this.#place.row;
  }

  get rows(): number {
    return this.#place.rows;
  }

  /** Takes the parameters of its blocks from those of the whole weight. */
  loadGrid({ scales, zeroPoints }: Grid, layout: Layout, allBlocks: number, signed: boolean): void {
    this.#forEachBlock(layout, allBlocks, (here, there) => {
      this.scales[here] = scales[there]!;
      this.zeroPoints[here] = signed ? (zeroPoints[there]! << 24) >> 24 : zeroPoints[there]!;
    });
  }

  #storeParams(to: RoundedWeight, layout: Layout, allBlocks: number): void {
    this.#forEachBlock(layout, allBlocks, (here, there) => {
      to.scales[there] = this.scales[here]!;
      to.zeroPoints[there] = this.zeroPoints[here]!;
    });
  }

  /** Visits the blocks by their index among the parameters of this tile and among those of the whole weight. */
  #forEachBlock(layout: Layout, allBlocks: number, visit: (here: number, there: number) => void): void {
    const { rows: allRows } = this.#matrix;
    const { batch, row, rows, block, blocks } = this.#place;
    const [hereRow, hereBlock] = this.#matrix.layout === "row-major" ? [blocks, 1] : [1, this.#width];
    const [thereRow, thereBlock] = layout === "row-major" ? [allBlocks, 1] : [1, allRows];
    for (let r = 0; r < rows; r++) {
      let here = r * hereRow;
      let there = batch * allRows * allBlocks + (row + r) * thereRow + block * thereBlock;
      for (let b = 0; b < blocks; b++, here += hereBlock, there += thereBlock) visit(here, there);
    }
  }

  /** The codes in the other layout, both axes padded to 16. */
  #transpose(depth: number): Uint8Array {
    const rowMajor = this.#matrix.layout === "row-major";
    const [height, width] = rowMajor ? [this.#place.rows, depth] : [depth, this.#width];
    const from = this.#codes.byteOffset;
    const to = this.#transposed.byteOffset;
    const toWidth = rowMajor ? this.#width : depth;
    for (let y = 0; y < height; y += 16) {
      this.#kernels.transposeBytes(from + y * width, from + (y + 1) * width, width, to + y, toWidth);
    }
    return this.#transposed;
  }

  #forEachColumnBlock(visit: (src: number, end: number, paramsOffset: number) => void): void {
    const blockBytes = 4 * this.#block * this.#width;
    for (let b = 0; b < this.#place.blocks; b++) {
      visit(b * blockBytes, (b + 1) * blockBytes, 4 * b * this.#width);
    }
  }
}

/** Copies `count` runs of `length` elements that are `fromStride` apart to places that are `toStride` apart. */
function copyRuns<A extends Float32Array | Uint8Array>(
  from: A,
  fromStart: number,
  fromStride: number,
  to: A,
  toStart: number,
  toStride: number,
  count: number,
  length: number,
): void {
  if (fromStride === length && toStride === length) {
    to.set(from.subarray(fromStart, fromStart + count * length), toStart);
    return;
  }
  for (let i = 0; i < count; i++) {
    const at = fromStart + i * fromStride;
    to.set(from.subarray(at, at + length), toStart + i * toStride);
  }
}

export function forEachTile(matrix: WeightMatrix, blockSize: number, visit: (tile: Tile) => void): void {
  const { batches, rows, depth, layout } = matrix;
  const block = padded(blockSize);
  const allBlocks = blockCount(depth, blockSize);
  let tileRows: number;
  if (layout === "row-major") tileRows = Math.max(1, Math.floor(TILE_FLOATS / (allBlocks * block)));
  else tileRows = padded(Math.max(MIN_TILE_COLUMNS, Math.floor(Math.sqrt(TILE_FLOATS))));
  tileRows = Math.min(tileRows, rows);
  const width = padded(tileRows);
  const tileBlocks = Math.min(allBlocks, Math.max(1, Math.floor(TILE_FLOATS / (width * block))));
  const kernels = weightKernels(Tile.bytes(tileRows, tileBlocks, blockSize));
  for (let batch = 0; batch < batches; batch++) {
    for (let first = 0; first < allBlocks; first += tileBlocks) {
      const start = first * blockSize;
      const blocks = Math.min(tileBlocks, allBlocks - first);
      const length = Math.min(blocks * blockSize, depth - start);
      for (let row = 0; row < rows; row += tileRows) {
        const place = { batch, row, rows: Math.min(tileRows, rows - row), block: first, blocks, start, length };
        visit(new Tile(kernels, matrix, place, blockSize));
      }
    }
  }
}

export function blockCount(depth: number, blockSize: number): number {
  return Math.max(1, Math.ceil(depth / blockSize));
}
