/**
 * Stochastic rounding: a weight between two values becomes the upper one with the probability of its distance from the lower one, so that it
 * is right on average, at twice the squared error of rounding to nearest. One draw makes a layer worse. Of several, the one whose output error is
 * least on held-out samples can be better than nearest, because errors of different weights can cancel (Nagel et al., "Up or Down?",
 * arXiv 2004.10568, section 3).
 */
import { CoreError, checkCancelled } from "../../errors.ts";
import { Random } from "../../random.ts";
import { blockSizeOf, rangeOf, type WeightScheme } from "../scheme.ts";
import type { RoundedWeight } from "./blocks.ts";
import { nearestRound } from "./nearest.ts";
import { dequantized, OutputJudge, paramsAt, type Rounding, type RowMatrix } from "./rounding.ts";
import { blockCount } from "./weight-tiles.ts";

export interface StochasticOptions {
  readonly seed: number;
  /** Draws for each weight. */
  readonly candidates: number;
  readonly signal?: AbortSignal | undefined;
}

export function stochastic({ seed, candidates, signal }: StochasticOptions): Rounding {
  return {
    name: "stochastic",
    title: candidates === 1 ? "one stochastic draw" : `the best of ${candidates} stochastic draws`,
    sees: "float",
    async round(weight, scheme, statistics) {
      if (!statistics) return undefined;
      const judge = new OutputJudge(
        weight,
        statistics.heldOut,
        Array.from({ length: weight.rows }, (_, row) => row),
      );
      let best: RoundedWeight | undefined;
      let least = Number.POSITIVE_INFINITY;
      for (let candidate = 0; candidate < candidates; candidate++) {
        checkCancelled(signal);
        const drawn = stochasticRound(weight, scheme, seed, candidate);
        const error = judge.error(dequantized(weight, drawn, scheme));
        if (error < least) [best, least] = [drawn, error];
      }
      return best;
    },
  };
}

/** One draw. The numbers depend on the seed, the name of the weight, the candidate and the place of each element, and nothing else. */
export function stochasticRound(
  weight: RowMatrix,
  scheme: WeightScheme,
  seed: number,
  candidate: number,
): RoundedWeight {
  const { values, rows, depth, name = "", limit } = weight;
  const { scales, zeroPoints } = nearestRound({ ...weight, limit: undefined }, scheme);
  const { min, max } = rangeOf(scheme);
  const block = Math.min(blockSizeOf(scheme, depth), depth);
  const blocks = blockCount(depth, block);
  const random = new Random(seed, `rounding ${candidate} ${name}`);
  const q = new Uint8Array(rows * depth);
  for (let i = 0; i < values.length; i++) {
    const at = Math.floor(i / depth) * blocks + Math.floor((i % depth) / block);
    const { scale, zeroPoint } = paramsAt({ scales, zeroPoints }, at, scheme);
    const exact = values[i]! / scale;
    if (exact - exact !== 0) throw new CoreError("non_finite", "A weight holds NaN or an infinity.");
    const lower = Math.floor(exact);
    const up = random.uint32() < (exact - lower) * 2 ** 32 ? 1 : 0;
    q[i] = Math.min(Math.max(lower + up + zeroPoint, min), max);
  }
  limit?.(new Int8Array(q.buffer));
  return { q, scales, zeroPoints };
}
