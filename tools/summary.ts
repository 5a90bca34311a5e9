import type { JobMetrics } from "../src/core/contract.ts";
import { bytes, decibels, duration, percent, ratio } from "../src/report/parts.ts";
import { table } from "./terminal.ts";

/** What a job has come to. */
export interface Outcome {
  readonly accepted: boolean;
  readonly metrics: JobMetrics;
  /** Where its files are. */
  readonly directory: string;
  readonly files: readonly string[];
}

/** The numbers of a result as a table, then its limits and what should be known. */
export function summaryOf({ accepted, metrics, directory, files }: Outcome): string {
  const { models } = metrics;
  const measured = models && models.length > 1 ? models.slice(1) : [{ model_id: "", ...metrics }];
  const parts = measured.flatMap(({ model_id, ...one }) => [
    ...(model_id === "" ? [] : [model_id]),
    table(numbersOf(one)),
  ]);
  if (metrics.auto) parts.push(...foundBy(metrics.auto));
  const limits = metrics.acceptance.map(({ name, limit, value, ok }) => [
    `${ok ? "ok    " : "MISSED"} ${name}`,
    `limit ${limit}`,
    `is ${value === null ? "not known" : Number(value.toPrecision(4))}`,
  ]);
  if (limits.length > 0) parts.push(`${accepted ? "Accepted" : "Not accepted"}\n${table(limits)}`);
  const warnings = metrics.warnings.map(({ message }) => `! ${message}`);
  if (warnings.length > 0) parts.push(warnings.join("\n"));
  parts.push(`${directory}: ${files.join(", ")}`);
  return parts.join("\n\n");
}

/** The models that a search has found worth having, and which of them to take, for each target. */
function foundBy({ candidates, targets }: NonNullable<JobMetrics["auto"]>): string[] {
  const front = candidates.flatMap(({ name, on_front, recommended, measured }) => {
    if (!on_front || !measured) return [];
    const { size, latency, accuracy, fidelity } = measured;
    const decibelsOf = fidelity.outputs.map(({ sqnr_db }) => sqnr_db).filter((it) => it !== null);
    return [
      [
        `${recommended ? "* " : "  "}${name}`,
        `${bytes(size.after_bytes)} (${percent(size.ratio)})`,
        `${ratio(latency.speedup)} as fast`,
        ...(accuracy ? [`${accuracy.metric} ${accuracy.after.toPrecision(4)}`] : []),
        decibels(decibelsOf.length === 0 ? null : Math.min(...decibelsOf)),
      ],
    ];
  });
  return [`Worth having\n${table(front)}`, ...targets.map(({ recommendation }) => recommendation.why)];
}

type Measured = Pick<JobMetrics, "size" | "latency" | "memory" | "accuracy" | "fidelity"> & {
  readonly training?: JobMetrics["training"];
};

function numbersOf({ size, latency, memory, accuracy, fidelity, training }: Measured): string[][] {
  const rows = [
    ["", "before", "after", ""],
    ["size", bytes(size.before_bytes), bytes(size.after_bytes), `${ratio(1 / size.ratio)} smaller`],
    [
      "latency (median)",
      duration(latency.before.p50_ms),
      duration(latency.after.p50_ms),
      `${ratio(latency.speedup)} faster`,
    ],
    ["peak memory", bytes(memory.before_peak_bytes), bytes(memory.after_peak_bytes), ""],
  ];
  if (accuracy) {
    const { metric, before, after, samples } = accuracy;
    rows.push([metric, before.toPrecision(4), after.toPrecision(4), `${samples} samples`]);
  }
  if (training?.metric) {
    const { metric, student_before_metric: before, student_metric: after, metric_samples } = training;
    const text = (value: number | null) => (value === null ? "" : value.toPrecision(4));
    rows.push([`${metric} (trained)`, text(before), text(after), `${metric_samples} samples`]);
  }
  for (const { name, sqnr_db, top1_agreement } of fidelity.outputs) {
    const agreement = top1_agreement === null ? "" : `same answer ${percent(top1_agreement)}`;
    rows.push([`fidelity of ${name}`, "", decibels(sqnr_db), agreement]);
  }
  if (fidelity.data === "synthetic") rows.push(["", "", "", "on random inputs: give data to judge by"]);
  return rows;
}
