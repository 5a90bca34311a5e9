/** What models are judged by: a dataset, or synthetic input. */
import { drawnSamples } from "../data/dataset.ts";
import { checkDatasetFits } from "../data/fit.ts";
import { CoreError } from "../errors.ts";
import type { Session } from "../runtime/session.ts";
import type { Inputs } from "./comparison.ts";
import type { EvaluateOptions } from "./evaluate.ts";
import { findSyntheticInputs } from "./synthetic.ts";

/** Unless a number is asked for: so many samples at most, */
export const MAX_EVALUATED_SAMPLES = 10_000;

/** Runs on synthetic input: each is another draw of the same noise, so a few say as much as many. */
const MAX_SYNTHETIC_RUNS = 16;

/**
 * The inputs that a model is judged by: the dataset's, or synthetic ones. Throws `invalid_dataset` when the data cannot feed the original,
 * `invalid_params` when a metric has no labels or no synthetic input is found.
 */
export async function evaluationInputs(
  options: Pick<EvaluateOptions, "data" | "spec" | "seed" | "signal">,
  original: Session,
): Promise<Inputs> {
  const { data, spec, seed, signal } = options;
  const { batch_size: wanted } = spec.latency;
  if (spec.metric !== null && !data?.dataset.facts.has_labels) {
    throw new CoreError("invalid_params", `The metric ${spec.metric} needs a dataset with labels.`, "metric");
  }
  if (data) {
    const { dataset, kind } = data;
    const fit = checkDatasetFits(dataset.facts, original.inputs);
    const batchSize = fit.batchSize ?? Math.min(wanted, dataset.facts.samples);
    const available = Math.min(spec.samples ?? MAX_EVALUATED_SAMPLES, dataset.facts.samples);
    // A model that takes exactly k samples gets whole batches only, and at least one.
    const samples = fit.batchSize === null ? available : Math.max(1, Math.floor(available / batchSize)) * batchSize;
    const drawn = drawnSamples(dataset, samples);
    return { kind, batchSize, samples, batches: () => drawn.batches({ batchSize, signal }) };
  }
  const synthetic = await findSyntheticInputs(original, { dims: spec.dims, seed, signal });
  const batchSize = synthetic.batchSize ?? wanted;
  const runs = Math.min(MAX_SYNTHETIC_RUNS, Math.ceil((spec.samples ?? MAX_EVALUATED_SAMPLES) / batchSize));
  return {
    kind: "synthetic",
    batchSize,
    samples: runs * batchSize,
    async *batches() {
      for (let run = 0; run < runs; run++) yield { feeds: synthetic.feeds(run, batchSize), count: batchSize };
    },
  };
}
