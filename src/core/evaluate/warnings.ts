import type { JobMetrics } from "../facts.ts";
import type { Latency } from "../runtime/latency.ts";

/** Of rounds A B, how many the second must lose to be called slower: by chance, 2 of 3 of 50 are lost once in a hundred times. */
const LOST_ROUNDS = 2 / 3;

/** What nobody compresses a model for, and has to be told of though no limit was set. */
export function warningsOf(
  { size, latency }: Pick<JobMetrics, "size" | "latency">,
  { before, after }: Latency["samplesMs"],
): JobMetrics["warnings"] {
  const lost = after.filter((ms, round) => ms > before[round]!).length;
  const isSlower = latency.speedup < 1 && lost >= LOST_ROUNDS * after.length;
  return [
    ...(isSlower
      ? [
          {
            code: "slower_than_original",
            message: `It takes ${times(1 / latency.speedup)} the time of the original here, and was slower in ${lost} of ${after.length} rounds.`,
            value: latency.speedup,
          },
        ]
      : []),
    ...(size.ratio > 1
      ? [
          {
            code: "larger_than_original",
            message: `Its files are ${times(size.ratio)} as large as the original's.`,
            value: size.ratio,
          },
        ]
      : []),
  ];
}

function times(ratio: number): string {
  return `${ratio.toFixed(2)} times`;
}
