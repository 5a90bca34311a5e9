import type { Batch } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import { CoreError, checkCancelled } from "../errors.ts";
import type { Meter } from "../meter.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { measureLatency } from "../runtime/latency.ts";
import type { Session } from "../runtime/session.ts";
import type { Feeds } from "./comparison.ts";
import { FidelityMeter, isComparable } from "./fidelity.ts";
import { countedValue, defaultMetric, METRICS, type MetricName, outputFor } from "./metrics.ts";

/**
 * The metric of a model over labelled batches; labels of `ignoreLabel` do not count. Without a name it is the one that the labels are for: `top1` for classes, `mse` for numbers.
 * Throws `invalid_dataset` when there are no labels, or no output fits them.
 */
export async function scoreModel(
  session: Session,
  batches: AsyncIterable<Batch>,
  asked: MetricName | null,
  ignoreLabel: number | null,
  signal?: AbortSignal,
): Promise<{ readonly metric: MetricName; readonly value: number }> {
  let metric: MetricName | undefined;
  let meter: Meter<[Tensor, Tensor]> | undefined;
  let output: string | undefined;
  for await (const { feeds, labels } of batches) {
    checkCancelled(signal);
    if (!labels) throw new CoreError("invalid_dataset", "The dataset has no labels.", "labels");
    const outputs = await session.run(feedsFor(session.inputs, feeds), undefined, signal);
    metric ??= asked ?? defaultMetric(labels, Object.values(outputs));
    output ??= outputFor(metric, outputs, labels);
    if (output === undefined) {
      const wants = `the metric ${metric} wants ${METRICS[metric].wants}`;
      throw new CoreError(
        "invalid_dataset",
        `The labels, ${labels.dtype} [${labels.dims}], fit no output: ${wants}.`,
        "labels",
      );
    }
    meter ??= METRICS[metric].start(ignoreLabel);
    meter.add(outputs[output]!, labels);
  }
  if (!metric || !meter) throw new CoreError("invalid_dataset", "There are no samples.");
  return { metric, value: countedValue(meter) };
}

/** What is said of outputs that are exactly the same, in dB. */
const EXACT_DB = 200;

/** The signal to noise ratio of the output that is worst, in dB, 200 at the most; outputs are compared over all batches. */
export async function scoreFidelity(
  before: Session,
  after: Session,
  batches: AsyncIterable<Batch>,
  signal?: AbortSignal,
): Promise<number> {
  const outputs = before.outputs.filter(isComparable);
  const meters = outputs.map((output) => new FidelityMeter(output, outputs.length === 1));
  for await (const { feeds } of batches) {
    checkCancelled(signal);
    const expected = await before.run(feedsFor(before.inputs, feeds), undefined, signal);
    const actual = await after.run(feedsFor(after.inputs, feeds), undefined, signal);
    for (const [i, { name }] of outputs.entries()) meters[i]!.add(expected[name]!, actual[name]!);
  }
  return Math.min(EXACT_DB, ...meters.map((meter) => meter.result().sqnr_db ?? EXACT_DB));
}

/** Measured runs of each model: enough to tell twice as fast from as fast. */
const SPEEDUP_RUNS = 5;

/** The median latency of one model over that of another that takes the same input, over a few runs in turn. */
export async function measureSpeedup(
  before: Session,
  after: Session,
  feeds: Feeds,
  signal?: AbortSignal,
): Promise<number> {
  const contestants = { before: { session: before, feeds }, after: { session: after, feeds } };
  return (await measureLatency({ ...contestants, runs: SPEEDUP_RUNS, signal })).speedup;
}
