/** Numbers as people read them. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value) {
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.max(value, 1)) / 3), 0), UNITS.length - 1);
  return `${Number((value / 1000 ** power).toPrecision(3))} ${UNITS[power]}`;
}

export const count = (value) => value.toLocaleString("en-US");

export const percent = (share) => `${Number((100 * share).toFixed(2))} %`;

export const milliseconds = (ms) =>
  ms >= 1000
    ? `${Number((ms / 1000).toPrecision(3))} s`
    : ms >= 1
      ? `${Number(ms.toPrecision(3))} ms`
      : `${Number((1000 * ms).toPrecision(3))} µs`;

export const shape = (dims) => (dims === null ? "any shape" : `[${dims.map((dim) => dim ?? "?").join(", ")}]`);

/** A date and time of the reader's own place. */
export const time = (text) => new Date(text).toLocaleString();

/** `weight_only` as `weight only`. */
export const words = (name) => name.replaceAll("_", " ");

/** How many times as small or fast, in words. */
export function compared(ratio, better, worse, same) {
  if (Math.abs(ratio - 1) < 0.02) return same;
  const times = ratio > 1 ? ratio : 1 / ratio;
  return `${times < 1.1 ? times.toFixed(2) : times.toFixed(1)}× ${ratio > 1 ? better : worse}`;
}

/** SQNR of the worst output; null when all are identical. */
export function worstSqnr(metrics) {
  const values = metrics.fidelity.outputs.map((output) => output.sqnr_db).filter((value) => value !== null);
  return values.length === 0 ? null : Math.min(...values);
}

/** Smaller, faster, still right: one line for each. */
export function answers(metrics) {
  const { size, latency, accuracy, fidelity } = metrics;
  const agreements = fidelity.outputs.map((output) => output.top1_agreement).filter((value) => value !== null);
  const sqnr = worstSqnr(metrics);
  const error = sqnr === null ? "identical outputs" : `SQNR ${sqnr.toFixed(1)} dB`;
  return [
    `${compared(1 / size.ratio, "smaller", "larger", "as large")}: ${bytes(size.before_bytes)} → ${bytes(size.after_bytes)}`,
    `${compared(latency.speedup, "faster", "slower", "as fast")}: ${milliseconds(latency.before.p50_ms)} → ${milliseconds(latency.after.p50_ms)}`,
    accuracy
      ? `${accuracy.metric} ${Number(accuracy.before.toPrecision(4))} → ${Number(accuracy.after.toPrecision(4))} on ${count(accuracy.samples)} samples`
      : fidelity.data === "synthetic"
        ? `${error} on random inputs: not judged on data`
        : agreements.length > 0
          ? `same answer on ${percent(Math.min(...agreements))} of ${count(fidelity.samples)} samples`
          : `${error} on ${count(fidelity.samples)} samples`,
  ];
}
