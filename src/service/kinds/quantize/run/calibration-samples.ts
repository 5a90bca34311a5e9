import {
  CoreError,
  checkDatasetFits,
  type Dataset,
  datasetView,
  type Feeds,
  feedsFor,
  type ModelFacts,
  Random,
  runOriginal,
} from "../../../../core/index.ts";
import type { JobInputs } from "../../../../tasks/protocol.ts";
import { labelUse, withLabelUse } from "../../label-use.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext } from "../../run/job-steps.ts";
import { type Span, splitSamples } from "../sample-split.ts";
import { type CalibratedSpec, labelTaskOf } from "../spec.ts";

export interface CalibrationSamples {
  /** How many samples there are to calibrate with, and how many runs of the model that is. */
  readonly calibrated: number;
  readonly runs: number;
  /** Of each run: 1, or as many as the model takes at a time. */
  readonly batchSize: number;
  /** Inputs of the first `runs` of them. */
  feeds(runs: number): AsyncGenerator<Feeds>;
  /** Those of the first run. */
  first(): Promise<Feeds>;
  /** For candidates of accuracy control. */
  readonly scored: Dataset;
  /** Those that nothing is chosen by, if any are left. */
  readonly unseen: Dataset | undefined;
}

/** Opens the dataset of a job, in the order of its seed. Throws `invalid_dataset` when it does not fit the model. */
export async function openSamples(
  { spec, datasets }: JobInputs<CalibratedSpec>,
  { inputs, outputs }: ModelFacts,
  { files }: JobEnvironment,
): Promise<CalibrationSamples> {
  const { file, spec: reading, facts } = datasets[spec.params.dataset_id]!;
  const { evaluation } = spec;
  const use = labelUse(facts, outputs, labelTaskOf(spec));
  const dataset = withLabelUse(await files.openDataset(file, reading), use, evaluation.ignore_label);
  const batchSize = checkDatasetFits(dataset.facts, inputs).batchSize ?? 1;
  const total = dataset.facts.samples;
  const order = new Random(spec.params.seed, "calibration").permutation(total);
  const spans = splitSamples(spec, total, batchSize);
  const view = ([start, end]: Span) => datasetView(dataset, order.subarray(start, end));
  const calibrating = view(spans.calibrating);
  async function* feeds(runs: number): AsyncGenerator<Feeds> {
    for await (const batch of calibrating.batches({ batchSize, limit: runs * batchSize })) {
      yield feedsFor(inputs, batch.feeds);
    }
  }
  const calibrated = calibrating.facts.samples;
  const [start, end] = spans.unseen;
  return {
    calibrated,
    runs: calibrated / batchSize,
    batchSize,
    feeds,
    first: async () => (await feeds(1).next()).value!,
    scored: view(spans.scored),
    unseen: end - start < batchSize ? undefined : view(spans.unseen),
  };
}

/**
 * Does what looks at the samples of a job. Where that fails at a node, it is the data that are at fault if the model as it was uploaded does not run
 * on them: throws `invalid_dataset` then, and says so.
 */
export async function lookingAtSamples<T>(
  request: JobInputs<CalibratedSpec>,
  environment: JobEnvironment,
  { signal }: Pick<JobContext, "signal">,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof CoreError) || error.code !== "invalid_model") throw error;
    const { files, facts } = request.models[request.spec.model_id]!;
    const samples = await openSamples(request, facts, environment);
    const session = await environment.openSession({ path: files[0]!.path });
    try {
      for await (const feeds of samples.feeds(samples.runs)) await runOriginal(session, feeds, "calibration", signal);
    } finally {
      await session.close();
    }
    throw error;
  }
}
