/** How large two weights that are multiplied and added in 16 bits may be. */
import type { RowLayout } from "./channel-weights.ts";

const MAX_PAIR = 2 ** 15 - 1;

const MAX_ACTIVATION = 255;

/** Less than what the values of an unsafe pair add up to, before rounding. */
export const MIN_UNSAFE_SUM = Math.floor(MAX_PAIR / MAX_ACTIVATION) - 1;

export class PairLimits {
  readonly rows: RowLayout;
  readonly #inputLimits: ArrayLike<number> | undefined;

  constructor(rows: RowLayout, inputLimits: ArrayLike<number> | undefined) {
    this.rows = rows;
    this.#inputLimits = inputLimits;
  }

  /** Pulls in every unsafe pair of a weight, in place: of these output channels, or of all. */
  apply(q: Int8Array, channels: Iterable<number> = Array(this.rows.channels).keys()): void {
    const row = new Int8Array(this.rows.length);
    for (const c of channels) {
      this.rows.gather(q, c, row);
      for (let k = 0; k + 1 < row.length; k += 2) this.pullIn(row, k, c, k);
      this.rows.scatter(row, c, q);
    }
  }

  /**
   * The least and the largest value that each value of `q`, whose pairs are safe, may take whatever the other of its pair does: what a pair leaves of the
   * limit, its two values share alike. Laid out as `q`.
   */
  around(q: Int8Array, largest: number): { readonly low: Int8Array; readonly high: Int8Array } {
    const row = new Int8Array(this.rows.length);
    const [low, high] = [new Int8Array(q.length), new Int8Array(q.length)];
    const [lows, highs] = [new Int8Array(row.length), new Int8Array(row.length)];
    for (let c = 0; c < this.rows.channels; c++) {
      this.rows.gather(q, c, row);
      lows.fill(-largest);
      highs.fill(largest);
      for (let k = 0; k + 1 < row.length; k += 2) {
        const [a, b] = [this.#limitOf(c, k), this.#limitOf(c, k + 1)];
        const sum = a * row[k]! + b * row[k + 1]!;
        const up = Math.floor((MAX_PAIR - sum) / (a + b));
        const down = Math.floor((MAX_PAIR + sum) / (a + b));
        for (const i of [k, k + 1]) {
          lows[i] = Math.max(-largest, row[i]! - down);
          highs[i] = Math.min(largest, row[i]! + up);
        }
      }
      this.rows.scatter(lows, c, low);
      this.rows.scatter(highs, c, high);
    }
    return { low, high };
  }

  /** Moves the pair at `q[at]`, products `k` and `k + 1` of output channel `c`, towards zero until it is safe; answers whether it was not. */
  pullIn(q: Int8Array, at: number, c: number, k: number): boolean {
    const first = q[at]!;
    const second = q[at + 1]!;
    // Products of different signs cannot reach the limit, nor can a single one.
    if (first * second <= 0 || (Math.abs(first) + Math.abs(second)) * MAX_ACTIVATION <= MAX_PAIR) return false;
    const a = this.#limitOf(c, k);
    const b = this.#limitOf(c, k + 1);
    const excess = Math.abs(first) * a + Math.abs(second) * b - MAX_PAIR;
    if (excess <= 0) return false;
    const sign = Math.sign(first);
    // The shortest way back to the line a·|first| + b·|second| = limit, in whole steps.
    const less = Math.min(Math.ceil((excess * a) / (a * a + b * b)), Math.abs(first));
    const rest = Math.max(0, Math.ceil((excess - less * a) / b));
    q[at] = first - sign * less;
    q[at + 1] = second - sign * rest;
    return true;
  }

  #limitOf(c: number, k: number): number {
    return this.#inputLimits?.[this.rows.inputOf(c, k)] ?? MAX_ACTIVATION;
  }
}
