import { CoreError, checkCancelled } from "../errors.ts";
import type { Meter, Resampled } from "../meter.ts";
import { modelToBytes } from "../onnx/save.ts";
import { type Tensor, tensorOf } from "../onnx/tensor.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import { liveTensor } from "./parameters.ts";
import { gatherRows, type Samples } from "./samples.ts";
import type { TrainableModel, TrainedValues } from "./trainable.ts";

type Named = Readonly<Record<string, Tensor>>;

/** Counts outputs against targets; of some metrics, intervals can be found. */
export type ValidationMeter = Meter<[outputs: Named, targets: Named]> & Partial<Resampled>;

/** A number that says how good the model's outputs are. */
export interface ValidationMetric {
  readonly name: string;
  readonly better: "higher" | "lower";
  /** Whether it needs the targets that are computed from a batch (a teacher's outputs), which costs a run of the teacher. */
  readonly readsComputedTargets?: boolean;
  /** Begins to count, for one model. */
  start(): ValidationMeter;
}

/** Runs the model as it is now on samples it does not learn from. */
export interface Validator {
  evaluate(values: TrainedValues, samples: Samples, signal?: AbortSignal): Promise<number>;
  /** The same with all that the metric's meter can do. */
  measure(values: TrainedValues, samples: Samples, signal?: AbortSignal): Promise<ValidationMeter>;
  close(): Promise<void>;
}

export interface ValidatorOptions {
  readonly metric: ValidationMetric;
  /** Samples of one run; fewer samples are repeated to fill it. */
  readonly batchSize: number;
  readonly threads: number;
  readonly openSession: OpenSession;
  /** Targets of a batch that do not come with the samples: a teacher's outputs. */
  readonly moreTargets?: ((feeds: Named) => Promise<Named>) | undefined;
}

/**
 * Inference with parameters and statistics as inputs, so that one session serves all epochs. `outputs` are those of the user's model, not
 * the inner values that losses read.
 */
export async function createValidator(trainable: TrainableModel, options: ValidatorOptions): Promise<Validator> {
  const { metric, batchSize } = options;
  const model = trainable.graph.clone();
  const outputs = trainable.source.graph.outputs.map(({ name }) => name);
  for (const value of [...model.graph.outputs]) {
    if (outputs.includes(value.name)) value.retype(value.dtype, undefined);
    else model.graph.removeOutput(value);
  }
  const fed = new Set(Object.keys(trainable.feeds));
  for (const value of model.graph.inputs) {
    if (!fed.has(value.name) && value.shape) value.retype(value.dtype, [null, ...value.shape.slice(1)]);
  }
  const session: Session = await options.openSession({ bytes: modelToBytes(model) }, { threads: options.threads });
  const measure: Validator["measure"] = async (values, samples, signal) => {
    const feeds = valueFeeds(trainable, values);
    const meter = metric.start();
    for (let start = 0; start < samples.count; start += batchSize) {
      checkCancelled(signal);
      const rows = Math.min(batchSize, samples.count - start);
      const indices = Uint32Array.from({ length: batchSize }, (_, i) => start + (i % rows));
      const batch = samples.gather(indices);
      const more = metric.readsComputedTargets ? await options.moreTargets?.(batch.feeds) : undefined;
      const results = await session.run({ ...feeds, ...batch.feeds }, outputs);
      meter.add(firstRows(results, rows), firstRows({ ...batch.targets, ...more }, rows));
    }
    if (meter.positions === 0) {
      throw new CoreError("invalid_dataset", `None of the ${samples.count} held-out samples has a label that counts.`);
    }
    return meter;
  };
  return {
    measure,
    evaluate: async (...all) => (await measure(...all)).value,
    close: () => session.close(),
  };
}

/** Parameters and statistics as feeds; what `values` lacks (loss parameters aside) keeps its own memory. */
function valueFeeds(trainable: TrainableModel, values: TrainedValues): Named {
  const feeds: Record<string, Tensor> = { ...trainable.feeds };
  for (const { name, data } of values.parameters) {
    const own = feeds[name];
    if (own) feeds[name] = liveTensor({ dims: own.dims, data });
  }
  for (const { meanName, varianceName, mean, variance } of values.statistics) {
    feeds[meanName] = tensorOf("float32", [mean.length], mean);
    feeds[varianceName] = tensorOf("float32", [variance.length], variance);
  }
  return feeds;
}

function firstRows(tensors: Named, rows: number): Named {
  const indices = Uint32Array.from({ length: rows }, (_, i) => i);
  return Object.fromEntries(
    Object.entries(tensors).map(([name, value]) => [name, value.dims[0] === rows ? value : gatherRows(value, indices)]),
  );
}
