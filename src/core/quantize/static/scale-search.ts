/** Scales of channels that round a weight best. */
import { type CodeRange, quantizeValue } from "../params.ts";
import { MIN_UNSAFE_SUM, type PairLimits } from "./pair-limits.ts";

const SCALE_STEP = 1.06;

const MAX_SCALE_FACTOR = 2.1;

/** Finds the scale of an output channel with the least error once its unsafe pairs have been pulled in. */
export class ScaleSearch {
  readonly #row: Float32Array;
  readonly #range: CodeRange;
  readonly #limits: PairLimits;
  /** Where pairs are that are unsafe at the smallest scale, and the values of one that is tried. */
  readonly #unsafe: Int32Array;
  readonly #pair = new Int8Array(2);
  /** Those whose scale was looked for, with pairs that are unsafe at the smallest: all others are safe at that and at any larger one. */
  readonly unsafeChannels: number[] = [];

  constructor(limits: PairLimits, range: CodeRange) {
    this.#row = new Float32Array(limits.rows.length);
    this.#range = range;
    this.#limits = limits;
    this.#unsafe = new Int32Array(this.#row.length >> 1);
  }

  /** `smallest`, which the largest weight fits, or, if pairs are unsafe there, up to twice that one, whichever leaves the least squared error. */
  bestScale(values: Float32Array, channel: number, smallest: number): number {
    const row = this.#row;
    this.#limits.rows.gather(values, channel, row);
    const unsafe = this.#findUnsafe(channel, smallest);
    if (unsafe > 0) this.unsafeChannels.push(channel);
    let best = smallest;
    let least = Number.POSITIVE_INFINITY;
    for (let factor = 1; unsafe > 0 && factor < MAX_SCALE_FACTOR; factor *= SCALE_STEP) {
      const scale = Math.fround(smallest * factor);
      // Values shrink as the scale grows: pairs that are safe at the smallest stay so, and are rounded with an error of s²/12 on average.
      const { error, pulled } = this.#errorOfUnsafe(unsafe, channel, scale);
      const total = error + ((row.length - 2 * unsafe) * scale * scale) / 12;
      if (total < least) {
        least = total;
        best = scale;
      }
      if (pulled === 0) break;
    }
    return best;
  }

  /** Notes where pairs are unsafe at `scale`; answers how many there are. */
  #findUnsafe(channel: number, scale: number): number {
    const row = this.#row;
    let count = 0;
    for (let k = 0; k + 1 < row.length; k += 2) {
      // Most pairs are far from it, and seen to be so without a division.
      const [first, second] = [row[k]!, row[k + 1]!];
      if (first * second <= 0 || Math.abs(first) + Math.abs(second) < MIN_UNSAFE_SUM * scale) continue;
      if (this.#roundPair(k, channel, scale)) this.#unsafe[count++] = k;
    }
    return count;
  }

  #errorOfUnsafe(count: number, channel: number, scale: number): { readonly error: number; readonly pulled: number } {
    let error = 0;
    let pulled = 0;
    for (let i = 0; i < count; i++) {
      const k = this.#unsafe[i]!;
      if (this.#roundPair(k, channel, scale)) pulled++;
      error += (this.#row[k]! - this.#pair[0]! * scale) ** 2 + (this.#row[k + 1]! - this.#pair[1]! * scale) ** 2;
    }
    return { error, pulled };
  }

  /** Whether the pair at `k` had to be pulled in. */
  #roundPair(k: number, channel: number, scale: number): boolean {
    const params = { scale, zeroPoint: 0 };
    for (let i = 0; i < 2; i++) this.#pair[i] = quantizeValue(this.#row[k + i]!, params, this.#range);
    return this.#limits.pullIn(this.#pair, 0, channel, k);
  }
}
