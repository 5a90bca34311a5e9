import type { JobMetrics, Warning } from "../../core/contract.ts";

/** Of one list in a job's record; `report.json` has all of it. */
const MAX_ITEMS = 1000;

/**
 * What the record of a job keeps of what was measured: lists that grow with the model (nodes, outputs) are cut, with a warning for each, so
 * that neither the record nor an answer grows with it.
 */
export function recordedMetrics(metrics: JobMetrics): JobMetrics {
  const warnings: Warning[] = [];
  const cut = (value: unknown, path: string): unknown => {
    if (value === null || typeof value !== "object") return value;
    if (!Array.isArray(value)) {
      return Object.fromEntries(Object.entries(value).map(([name, own]) => [name, cut(own, `${path}.${name}`)]));
    }
    if (value.length > MAX_ITEMS) {
      const message = `${path} has ${value.length} entries, of which the first ${MAX_ITEMS} are here: report.json has all.`;
      warnings.push({ code: "list_shortened", message, value: value.length });
    }
    return value.slice(0, MAX_ITEMS).map((item) => cut(item, path));
  };
  const short = cut(metrics, "metrics") as JobMetrics;
  return warnings.length === 0 ? short : { ...short, warnings: [...short.warnings, ...warnings] };
}

/** The signal to noise ratio, in dB, of the output that differs most from the original's; null where all are identical. */
export function worstSqnrDb({ fidelity }: Pick<JobMetrics, "fidelity">): number | null {
  const noise = fidelity.outputs.flatMap(({ sqnr_db }) => (sqnr_db === null ? [] : [sqnr_db]));
  return noise.length === 0 ? null : Math.min(...noise);
}
