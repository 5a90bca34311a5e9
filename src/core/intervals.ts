import type { Resampled } from "./meter.ts";
import { Random } from "./random.ts";

/**
 * Confidence intervals at 95 %: how far a number that was measured on some samples may be from what it would be on all that are like them.
 * Wilson's score interval for a proportion, p̂ of n trials, z = 1.96:
 *
 *     (p̂ + z²/2n ± z·√(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)
 *
 * For the difference of two proportions on the same n samples, of which b are right in the first model alone and c in the second alone: Wald's
 * interval with half a sample added to b, to c and to both kinds of agreement (Agresti and Min, 2005), which keeps its coverage where b = c = 0.
 * For everything else the percentiles of a bootstrap over samples (Efron, 1979).
 */

/** Lower and upper end. */
export type Interval = readonly [low: number, high: number];

/** The 97.5 % point of the standard normal distribution. */
const Z = 1.959963984540054;

/** Of a proportion: `hits` of `trials`, of which there is at least one. */
export function wilson(hits: number, trials: number): Interval {
  const p = hits / trials;
  const z2 = Z * Z;
  const centre = p + z2 / (2 * trials);
  const half = Z * Math.sqrt((p * (1 - p)) / trials + z2 / (4 * trials * trials));
  const scale = 1 + z2 / trials;
  // At the ends the square root is exact on paper only.
  return [hits === 0 ? 0 : (centre - half) / scale, hits === trials ? 1 : (centre + half) / scale];
}

/** Of the first proportion less the second, on the same `trials`: `first` hits of the first alone, `second` of the second alone. */
export function pairedDifference(first: number, second: number, trials: number): Interval {
  const n = trials + 2;
  const difference = (first - second) / n;
  const half = (Z / n) * Math.sqrt(first + second + 1 - (first - second) ** 2 / n);
  return [difference - half, difference + half];
}

const ROUNDS = 1000;
const TAIL = 0.025;

/**
 * Of a statistic of `count` samples: what it is when samples are drawn from them again, with replacement, so often as `weights` says. Undefined
 * for fewer than two samples. The same seed draws the same.
 */
export function bootstrap(count: number, statistic: (weights: Uint32Array) => number, seed = 0): Interval | undefined {
  if (count < 2) return undefined;
  const random = new Random(seed, "bootstrap");
  const weights = new Uint32Array(count);
  const values: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    weights.fill(0);
    for (let i = 0; i < count; i++) weights[random.integer(count)]!++;
    const value = statistic(weights);
    // Samples without a position that counts say nothing.
    if (!Number.isNaN(value)) values.push(value);
  }
  if (values.length === 0) return undefined;
  values.sort((a, b) => a - b);
  const at = (share: number) => values[Math.round(share * (values.length - 1))]!;
  return [at(TAIL), at(1 - TAIL)];
}

/** Of the first metric less the second, of two models on the same samples. Undefined for fewer than two samples. */
export function differenceOf(first: Resampled, second: Resampled): Interval | undefined {
  const [a, b] = [independentTrials(first), independentTrials(second)];
  if (a && b) {
    const firstAlone = a.filter((hit, i) => hit > b[i]!).length;
    const secondAlone = a.filter((hit, i) => hit < b[i]!).length;
    return pairedDifference(firstAlone, secondAlone, a.length);
  }
  return bootstrap(first.samples, (weights) => first.resampled(weights) - second.resampled(weights));
}

/** Hits, 1 or 0, of a share whose samples have one position each; undefined for other metrics, and where positions of a sample depend on each other. */
export function independentTrials({ shares }: Pick<Resampled, "shares">): readonly number[] | undefined {
  const counted = shares?.filter(({ positions }) => positions > 0);
  if (!counted?.every(({ positions }) => positions === 1)) return undefined;
  return counted.map(({ sum }) => sum);
}
