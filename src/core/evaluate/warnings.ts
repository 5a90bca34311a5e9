import type { JobMetrics, OutputFidelity } from "../facts.ts";
import type { Latency } from "../runtime/latency.ts";

/** Of rounds A B, how many the second must lose to be called slower: by chance, 2 of 3 of 50 are lost once in a hundred times. */
const LOST_ROUNDS = 2 / 3;

/** What nobody compresses a model for, and has to be told of though no limit was set. */
export function warningsOf(
  { size, latency, outputs }: Pick<JobMetrics, "size" | "latency"> & { readonly outputs: readonly OutputFidelity[] },
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
    ...outputs
      .filter(({ shape_mismatches }) => shape_mismatches > 0)
      .map(({ name, shape_mismatches }) => ({
        code: "shapes_differ",
        message: `In ${shape_mismatches} runs the output "${name}" had another shape than the original's, so that these were not compared.`,
        value: shape_mismatches,
      })),
  ];
}

function times(ratio: number): string {
  return `${ratio.toFixed(2)} times`;
}
