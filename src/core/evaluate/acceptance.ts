import type { JobMetrics } from "../facts.ts";

/** Limits that a result must keep; those left out are not checked. */
export interface AcceptanceLimits {
  readonly max_metric_drop?: number | undefined;
  readonly min_sqnr_db?: number | undefined;
  readonly max_size_ratio?: number | undefined;
  readonly min_speedup?: number | undefined;
}

type Measured = Pick<JobMetrics, "size" | "fidelity" | "accuracy" | "latency">;

interface Rule {
  readonly bound: "min" | "max";
  /** The number to hold against the limit; null when it was not measured. */
  value(metrics: Measured): number | null;
}

const RULES: Readonly<Record<keyof AcceptanceLimits, Rule>> = {
  max_metric_drop: { bound: "max", value: ({ accuracy }) => accuracy?.drop ?? null },
  // Of the worst output. An identical one has no noise, and infinitely many decibels.
  min_sqnr_db: {
    bound: "min",
    value: ({ fidelity }) => Math.min(...fidelity.outputs.map(({ sqnr_db }) => sqnr_db ?? Infinity)),
  },
  max_size_ratio: { bound: "max", value: ({ size }) => size.ratio },
  min_speedup: { bound: "min", value: ({ latency }) => latency.speedup },
};

/**
 * Holds the measurements against the limits. What was not measured misses its limit. A model that gives NaN or infinity where the original
 * does not misses a limit that nobody has to ask for.
 */
export function checkAcceptance(limits: AcceptanceLimits, metrics: Measured): JobMetrics["acceptance"] {
  const checks = (Object.keys(RULES) as (keyof AcceptanceLimits)[]).flatMap((name) => {
    const limit = limits[name];
    if (limit === undefined) return [];
    const { bound, value: measure } = RULES[name];
    const value = measure(metrics);
    const ok = value !== null && (bound === "min" ? value >= limit : value <= limit);
    return [{ name, limit, value: Number.isFinite(value) ? value : null, ok }];
  });
  const nonFinite = metrics.fidelity.outputs.reduce((sum, output) => sum + output.non_finite, 0);
  return nonFinite === 0 ? checks : [...checks, { name: "max_non_finite", limit: 0, value: nonFinite, ok: false }];
}
