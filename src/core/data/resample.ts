/** Pixels of an image, 8 bits each: rows from the top, three interleaved channels (red, green, blue). */
export interface Pixels {
  readonly height: number;
  readonly width: number;
  readonly data: Uint8Array;
}

export interface Size {
  readonly height: number;
  readonly width: number;
}

export interface Region extends Size {
  readonly top: number;
  readonly left: number;
}

const CHANNELS = 3;
/** Weights are integers, 2^22 of which make 1: their sum times 255 still fits in 31 bits. */
const WEIGHT_BITS = 22;

/**
 * A region of an image as it is when scaled to `scaled`, which is never computed as a whole. Bilinear with antialiasing: a triangle filter
 * that is as wide as a pixel of the result, horizontally and then vertically, rounded to 8 bits after each. Bit for bit what
 * Pillow's `resize(…, BILINEAR)` makes, and with it torchvision's `Resize` of PIL images; the same on every machine.
 */
export function resample(image: Pixels, scaled: Size, region: Region): Pixels {
  const columns = weightsAlong(image.width, scaled.width, region.left, region.width);
  const rows = weightsAlong(image.height, scaled.height, region.top, region.height);
  const firstRow = rows[0]!.first;
  const lastRow = rows.at(-1)!.first + rows.at(-1)!.weights.length;
  const wide = scaleRows(image, columns, firstRow, lastRow);
  return scaleColumns(wide, rows, firstRow);
}

/** What one pixel of the result is made of: neighbouring pixels from `first` on, and how much of each. */
interface Taps {
  readonly first: number;
  readonly weights: Int32Array;
}

/** For `count` pixels from `offset` on, along an axis that is scaled from `from` to `to` pixels. */
function weightsAlong(from: number, to: number, offset: number, count: number): Taps[] {
  const ratio = from / to;
  const support = Math.max(ratio, 1);
  return Array.from({ length: count }, (_, i) => {
    const center = (offset + i + 0.5) * ratio;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const weights = Float64Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - center + 0.5) / support)),
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return {
      first,
      weights: Int32Array.from(weights, (weight) => Math.floor((weight / sum) * 2 ** WEIGHT_BITS + 0.5)),
    };
  });
}

/** What is added before the fraction is cut off. Rounded weights may add up to a little more than 1: hence the limits of 255 below. */
const HALF = 1 << (WEIGHT_BITS - 1);

/** Rows `start` to `end` of the image, each scaled to `columns`. */
function scaleRows({ width, data }: Pixels, columns: readonly Taps[], start: number, end: number): Pixels {
  const scaled = new Uint8Array((end - start) * columns.length * CHANNELS);
  let to = 0;
  for (let row = start; row < end; row++) {
    for (const { first, weights } of columns) {
      let at = (row * width + first) * CHANNELS;
      let [red, green, blue] = [HALF, HALF, HALF];
      for (let k = 0; k < weights.length; k++) {
        const weight = weights[k]!;
        red += weight * data[at++]!;
        green += weight * data[at++]!;
        blue += weight * data[at++]!;
      }
      scaled[to++] = Math.min(255, red >> WEIGHT_BITS);
      scaled[to++] = Math.min(255, green >> WEIGHT_BITS);
      scaled[to++] = Math.min(255, blue >> WEIGHT_BITS);
    }
  }
  return { height: end - start, width: columns.length, data: scaled };
}

/** The image scaled to `rows`, whose numbers count from `start`. */
function scaleColumns({ width, data }: Pixels, rows: readonly Taps[], start: number): Pixels {
  const stride = width * CHANNELS;
  const scaled = new Uint8Array(rows.length * stride);
  const sums = new Int32Array(stride);
  for (const [row, { first, weights }] of rows.entries()) {
    sums.fill(HALF);
    for (let k = 0; k < weights.length; k++) {
      const weight = weights[k]!;
      const from = (first + k - start) * stride;
      for (let i = 0; i < stride; i++) sums[i]! += weight * data[from + i]!;
    }
    for (let i = 0; i < stride; i++) scaled[row * stride + i] = Math.min(255, sums[i]! >> WEIGHT_BITS);
  }
  return { height: rows.length, width, data: scaled };
}
