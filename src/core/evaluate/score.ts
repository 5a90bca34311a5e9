import type { Batch } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import { CoreError, checkCancelled } from "../errors.ts";
import { measureLatency } from "../runtime/latency.ts";
import type { Session } from "../runtime/session.ts";
import type { Feeds } from "./comparison.ts";
import { defaultMetric, METRICS, MetricMeter, type MetricName, outputFor } from "./metrics.ts";

/**
 * The metric of a model over labelled batches. Without a name it is the one that the labels are for: `top1` for classes, `mse` for numbers.
 * Throws `invalid_dataset` when there are no labels, or no output fits them.
 */
export async function scoreModel(
  session: Session,
  batches: AsyncIterable<Batch>,
  asked: MetricName | null,
  signal?: AbortSignal,
): Promise<{ readonly metric: MetricName; readonly value: number }> {
  let metric: MetricName | undefined;
  let meter: MetricMeter | undefined;
  let output: string | undefined;
  for await (const { feeds, labels } of batches) {
    checkCancelled(signal);
    if (!labels) throw new CoreError("invalid_dataset", "The dataset has no labels.", "labels");
    const outputs = await session.run(feedsFor(session.inputs, feeds), undefined, signal);
    metric ??= asked ?? defaultMetric(labels) ?? "mse";
    output ??= outputFor(metric, outputs, labels);
    if (output === undefined) {
      const wants = `the metric ${metric} wants ${METRICS[metric].wants}`;
      throw new CoreError(
        "invalid_dataset",
        `The labels, ${labels.dtype} [${labels.dims}], fit no output: ${wants}.`,
        "labels",
      );
    }
    meter ??= new MetricMeter(metric);
    meter.add(outputs[output]!, labels);
  }
  if (!metric || !meter) throw new CoreError("invalid_dataset", "There are no samples.");
  return { metric, value: meter.value };
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
