/**
 * GPTQ (Frantar et al., arXiv 2210.17323): weights are rounded one after the other along the depth, and what each loses is made up for by those
 * that are still to be rounded, as far as the activations correlate. Minimizes ‖X·(Ŵ − W)ᵀ‖², given H = XᵀX.
 */
import { quantizeValue } from "../params.ts";
import { blockSizeOf, rangeOf, type WeightScheme } from "../scheme.ts";
import { blockRule, type RoundedWeight } from "./blocks.ts";
import { FactorsAhead } from "./factors-ahead.ts";
import { type Matrix, type Workspace, workspace } from "./products.ts";
import { paramsAt, type Rounding, type RowMatrix } from "./rounding.ts";
import { blockCount } from "./weight-tiles.ts";

/**
 * Layers are rounded for what the float model shows them. Layers that follow each other and read the same input share the factor of its H. With two threads
 * or more the factors of those to come are computed meanwhile.
 */
export function gptq({ threads = 1 }: { readonly threads?: number } = {}): Rounding {
  let factors = new FactorsAhead([]);
  return {
    name: "gptq",
    title: "GPTQ",
    sees: "float",
    ahead: (statistics) => {
      factors = new FactorsAhead(threads > 1 ? statistics.map(({ fit }) => fit.gram) : []);
      return factors;
    },
    round: async (weight, scheme, statistics) => {
      if (!statistics) return undefined;
      return gptqRound(weight, scheme, await factors.factorOf(statistics.fit.gram, weight.depth));
    },
  };
}

/** Columns that are finished before what they lost reaches the columns behind them, by a product. */
const CHUNK = 32;
/** Rows of a weight that are rounded at a time. */
const MAX_ROWS = 1024;

/**
 * Rounds the rows of a weight, given U [depth, depth], the inverse factor of H (symmetric, any factor). Scale and zero point of a block are those of its
 * weights at the time it is reached, unless they are given. Undefined without U: H could not be factorized, because it is not finite.
 */
export function gptqRound(
  weight: RowMatrix,
  scheme: WeightScheme,
  upper: Float64Array | undefined,
): RoundedWeight | undefined {
  const { values, rows, depth, grid, limit } = weight;
  if (!upper) return undefined;
  const blocks = blockCount(depth, Math.min(blockSizeOf(scheme, depth), depth));
  const rounded: RoundedWeight = {
    q: new Uint8Array(rows * depth),
    scales: grid ? Float32Array.from(grid.scales) : new Float32Array(rows * blocks),
    zeroPoints: grid ? Uint8Array.from(grid.zeroPoints) : new Uint8Array(rows * blocks),
  };
  const most = Math.min(rows, MAX_ROWS);
  const chunk = chunkOf(scheme, depth);
  const space = workspace([
    [most, depth],
    [most, chunk],
    [chunk, depth],
  ]);
  const [work] = space.matrices;
  for (let first = 0; first < rows; first += most) {
    const count = Math.min(most, rows - first);
    for (let row = 0; row < count; row++) {
      const at = (first + row) * depth;
      work.data.set(values.subarray(at, at + depth), row * work.stride);
    }
    roundRows(space, upper, rounded, { first, count, depth, scheme, isGiven: grid !== undefined });
  }
  limit?.(new Int8Array(rounded.q.buffer));
  return rounded;
}

interface Part {
  readonly first: number;
  readonly count: number;
  readonly depth: number;
  readonly scheme: WeightScheme;
  /** Whether scales and zero points are there. */
  readonly isGiven: boolean;
}

/**
 * What is left to be rounded, [rows, depth]; what the weights of a chunk have lost, over the diagonal of U, [rows, chunk]; and the rows of U that
 * belong to the chunk, [chunk, depth].
 */
type RoundingSpace = Workspace<readonly [work: Matrix, losses: Matrix, panel: Matrix]>;

/** Rounds the rows in the workspace, which are those from `first` on, into `rounded`, with U = `upper` [depth, depth]. */
function roundRows(
  { matrices: [work, losses, panel], subtractProduct }: RoundingSpace,
  upper: Float64Array,
  rounded: RoundedWeight,
  { first, count, depth, scheme, isGiven }: Part,
): void {
  const range = rangeOf(scheme);
  const blockSize = Math.min(blockSizeOf(scheme, depth), depth);
  const blocks = blockCount(depth, blockSize);
  const chunk = chunkOf(scheme, depth);
  const paramsOf = blockRule(scheme);
  const { data } = work;
  // The part of U that a chunk meets within itself, close together.
  const own = new Float64Array(chunk * chunk);
  for (let start = 0; start < depth; start += chunk) {
    const end = Math.min(start + chunk, depth);
    const width = end - start;
    for (let i = 0; i < width; i++) {
      const at = (start + i) * depth;
      own.set(upper.subarray(at + start, at + end), i * chunk);
    }
    for (let row = 0; row < count; row++) {
      const from = row * work.stride + start;
      const lossesAt = row * losses.stride;
      const codesAt = (first + row) * depth + start;
      for (let i = 0; i < width; ) {
        const at = (first + row) * blocks + Math.floor((start + i) / blockSize);
        if ((start + i) % blockSize === 0 && !isGiven) {
          const size = Math.min(blockSize, depth - start - i);
          const { scale, zeroPoint } = paramsOf(...extremesOf(data, from + i, from + i + size));
          rounded.scales[at] = scale;
          rounded.zeroPoints[at] = zeroPoint;
        }
        const params = paramsAt(rounded, at, scheme);
        const { scale, zeroPoint } = params;
        for (const stop = Math.min(i + blockSize - ((start + i) % blockSize), width); i < stop; i++) {
          const x = data[from + i]!;
          const q = quantizeValue(x, params, range);
          rounded.q[codesAt + i] = q;
          const loss = (x - (q - zeroPoint) * scale) / own[i * chunk + i]!;
          losses.data[lossesAt + i] = loss;
          for (let j = i + 1, k = i * chunk + j; j < width; j++, k++) data[from + j] = data[from + j]! - loss * own[k]!;
        }
      }
    }
    const behind = depth - end;
    for (let i = start; i < end; i++) {
      panel.data.set(upper.subarray(i * depth + end, (i + 1) * depth), (i - start) * panel.stride);
    }
    subtractProduct(
      { of: work, row: 0, column: end, rows: count, columns: behind },
      { of: losses, row: 0, column: 0, rows: count, columns: end - start },
      { of: panel, row: 0, column: 0, rows: end - start, columns: behind },
    );
  }
}

/** Whole blocks, so that a block's range is known when it is reached; a single block for the whole depth needs none. */
function chunkOf(scheme: WeightScheme, depth: number): number {
  const blockSize = blockSizeOf(scheme, depth);
  return blockSize >= depth ? Math.min(CHUNK, depth) : blockSize * Math.max(1, Math.floor(CHUNK / blockSize));
}

function extremesOf(weights: Float64Array, start: number, end: number): [number, number] {
  let [lo, hi] = [0, 0];
  for (let i = start; i < end; i++) {
    const x = Math.fround(weights[i]!);
    if (x < lo) lo = x;
    else if (x > hi) hi = x;
    else if (Number.isNaN(x)) return [Number.NaN, Number.NaN];
  }
  return [lo, hi];
}
