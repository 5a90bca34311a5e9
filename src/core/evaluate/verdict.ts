import { LOW_SQNR_DB } from "../codes.ts";
import type { JobMetrics } from "../facts.ts";
import { isBlank } from "./fidelity.ts";
import { METRICS } from "./metrics.ts";
import { LOW_AGREEMENT } from "./warnings.ts";

/** How near a result is to the original, in one word; `GRADES` says what each means. */
export type Grade = "very_close" | "close" | "check_accuracy" | "broken" | "not_judged";

export interface Verdict {
  readonly grade: Grade;
  /** The number that decided, in a sentence. */
  readonly reason: string;
}

/** What each grade is called. */
export const GRADES: Readonly<Record<Grade, string>> = {
  very_close: "Very close to the original",
  close: "Close to the original",
  check_accuracy: "Check the accuracy",
  broken: "Broken",
  not_judged: "Not judged",
};

/**
 * Where grades end. A metric that is a share is taken first, then the share of equal answers, then the error of outputs: what users see
 * comes before what is behind it.
 */
const LIMITS = {
  /** Of a metric that is a share (accuracy): how much of it may be lost. */
  metricLoss: { very_close: 0.005, close: 0.02, check_accuracy: 0.2 },
  /** Of a metric that is an error: the relative growth. */
  errorGrowth: { very_close: 0.02, close: 0.1, check_accuracy: 1 },
  agreement: { very_close: 0.99, close: LOW_AGREEMENT, check_accuracy: 0.5 },
  /** Below 3 dB the error is half as strong as the signal itself. */
  sqnrDb: { very_close: 30, close: LOW_SQNR_DB, check_accuracy: 3 },
} as const;

/** The grades of a scale, from the best to the worst but one. */
const SCALE = ["very_close", "close", "check_accuracy"] as const;

/** Judges a result by what was measured on data. On synthetic inputs only breakage can be told. */
export function verdictOf({
  fidelity,
  accuracy,
  auto,
}: Pick<JobMetrics, "fidelity" | "accuracy"> & Partial<Pick<JobMetrics, "auto">>): Verdict {
  const { outputs, data, samples } = fidelity;
  const found = auto?.candidates.find(({ name }) => name === auto.recommendation.candidate);
  if (found?.spec === null) return { grade: "very_close", reason: "It is the original." };
  const broken = outputs.find(({ non_finite }) => non_finite > 0);
  if (broken)
    return {
      grade: "broken",
      reason: `The output ${broken.name} has NaN or infinity where the original gives numbers.`,
    };
  if (outputs.length === 0) return { grade: "not_judged", reason: "No output could be compared." };
  const telling = outputs.filter((output) => !isBlank(output));
  if (telling.length === 0 && !accuracy) {
    return {
      grade: "not_judged",
      reason: `The original answers nothing, or next to 0, on all of ${counted(samples)}.`,
    };
  }
  const worst = Math.min(...telling.map(({ sqnr_db }) => sqnr_db ?? Infinity));
  if (data === "synthetic") {
    if (worst < LIMITS.sqnrDb.check_accuracy) {
      return {
        grade: "broken",
        reason: `Even on random inputs the error is as strong as the output itself (${worst.toFixed(1)} dB).`,
      };
    }
    return { grade: "not_judged", reason: "It was compared on random inputs only, which say nothing about accuracy." };
  }
  if (accuracy) return byMetric(accuracy);
  const agreements = telling.flatMap(({ top1_agreement }) => top1_agreement ?? []);
  if (agreements.length > 0) {
    const least = Math.min(...agreements);
    const grade = SCALE.find((it) => least >= LIMITS.agreement[it]) ?? "broken";
    return { grade, reason: `It gives the same answer as the original on ${share(least)} of ${counted(samples)}.` };
  }
  const grade = SCALE.find((it) => worst >= LIMITS.sqnrDb[it]) ?? "broken";
  const error = worst === Infinity ? "no error at all" : `an SQNR of ${worst.toFixed(1)} dB`;
  return { grade, reason: `Its outputs have ${error} on ${counted(samples)}.` };
}

function byMetric({ metric, before, after, drop, samples }: NonNullable<JobMetrics["accuracy"]>): Verdict {
  const { isShare } = METRICS[metric];
  if (isShare) {
    const grade = SCALE.find((it) => drop <= LIMITS.metricLoss[it]) ?? "broken";
    return { grade, reason: `${metric} went from ${share(before)} to ${share(after)} on ${counted(samples)}.` };
  }
  const growth = drop <= 0 ? 0 : drop / Math.max(Math.abs(before), Number.MIN_VALUE);
  const grade = SCALE.find((it) => growth <= LIMITS.errorGrowth[it]) ?? "broken";
  return {
    grade,
    reason: `${metric} went from ${before.toPrecision(3)} to ${after.toPrecision(3)} on ${counted(samples)}.`,
  };
}

function share(value: number): string {
  return `${Number((100 * value).toFixed(1))} %`;
}

function counted(samples: number): string {
  return `${samples.toLocaleString("en-US")} sample${samples === 1 ? "" : "s"}`;
}
