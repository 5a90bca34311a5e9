import {
  checkDatasetFits,
  type Dataset,
  datasetView,
  type Feeds,
  feedsFor,
  type ModelFacts,
  Random,
} from "../../core/index.ts";
import type { JobInputs } from "../../tasks/protocol.ts";
import type { JobEnvironment } from "./job-environment.ts";
import { type LabelTask, labelUse, withLabelUse } from "./label-use.ts";
import type { QuantizeSpec } from "./spec.ts";

type Params<M extends QuantizeSpec["params"]["method"]> = Extract<QuantizeSpec["params"], { method: M }>;

export type StaticParams = Params<"static">;
export type StaticSpec = QuantizeSpec & { readonly params: StaticParams };

export type RoundedParams = Params<"weight_only"> & { readonly dataset_id: string };
export type RoundedSpec = QuantizeSpec & { readonly params: RoundedParams };

/** Jobs that look at samples of what the model will see. */
export type CalibratedSpec = StaticSpec | RoundedSpec;

export function isStatic(spec: QuantizeSpec): spec is StaticSpec {
  return spec.params.method === "static";
}

/** Whether a job rounds weights for what samples show, rather than each to the nearest value. */
export function isRounded(spec: QuantizeSpec): spec is RoundedSpec {
  return spec.params.method === "weight_only" && spec.params.rounding !== "nearest";
}

/** With fewer labelled samples than this besides those for calibration, candidates are scored on all there are. */
const MIN_SCORED_SAMPLES = 100;

/** Candidates of accuracy control are scored on so many samples unless the job says how many: there may be dozens of them. */
const MAX_SCORED_SAMPLES = 256;

/** Places in the shuffled order of a dataset: from the first to before the second. */
type Span = readonly [number, number];

/**
 * Which of `total` samples serve what: calibration, then candidates of accuracy control, then the judgement of the result. A model that
 * takes `batchSize` samples at a time gets no fewer.
 */
export function splitSamples(
  spec: CalibratedSpec,
  total: number,
  batchSize: number,
): { readonly calibrating: Span; readonly scored: Span; readonly unseen: Span } {
  const { params, evaluation } = spec;
  const whole = (count: number) => count - (count % batchSize);
  const calibrated = whole(Math.min(params.samples + batchSize - 1, total));
  const left = total - calibrated;
  const wanted = whole((evaluation.samples ?? MAX_SCORED_SAMPLES) + batchSize - 1);
  const from = left < MIN_SCORED_SAMPLES ? 0 : calibrated;
  const scored = whole(Math.min(wanted, total - from));
  const isScored = isStatic(spec) && (spec.params.max_metric_drop !== null || spec.params.min_sqnr_db !== null);
  return {
    calibrating: [0, calibrated],
    scored: [from, from + scored],
    unseen: [isScored ? Math.max(calibrated, from + scored) : calibrated, total],
  };
}

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

/** What labels are to do in a quantization. */
export function labelTaskOf({ params, evaluation, acceptance }: QuantizeSpec): LabelTask {
  const isHeld = params.method === "static" && params.max_metric_drop !== null;
  const needed = evaluation.metric !== null || acceptance.max_metric_drop !== undefined || isHeld;
  return { metric: evaluation.metric, ignoreLabel: evaluation.ignore_label, needed };
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
