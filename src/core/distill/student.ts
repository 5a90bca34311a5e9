import { CoreError } from "../errors.ts";
import type { Model } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";
import { findParameters } from "../train/parameters.ts";
import type { Samples } from "../train/samples.ts";
import { estimateStatistics } from "../train/statistics.ts";
import { type BlockRun, dropLayers } from "./drop-layers.ts";
import { type FactorizedLayer, type FactorizeOptions, factorizeLayers } from "./factorize.ts";
import { type ChannelFamily, slimWidth } from "./slim.ts";

/** How a student is made from its teacher. Each number is the share that is kept. */
export type Derivation = { readonly keepLayers: number } | { readonly width: number } | { readonly rank: number };

/** A student, and what was done to make it. */
export interface DerivedStudent {
  readonly model: Model;
  readonly parameters: { readonly teacher: number; readonly student: number };
  /** For `keepLayers`. */
  readonly runs?: readonly BlockRun[];
  /** For `width`. */
  readonly families?: readonly ChannelFamily[];
  /** For `rank`. */
  readonly layers?: readonly FactorizedLayer[];
}

export interface DeriveOptions extends Pick<FactorizeOptions, "openSession" | "threads" | "signal"> {
  /** Samples to see shapes and statistics by, and to judge layers by; some hundreds are enough. */
  readonly samples: Samples;
  /** Only sizes, names and shapes of the student are wanted, as for a plan: its weights may mean nothing. */
  readonly structureOnly?: boolean | undefined;
}

const CALIBRATION_SAMPLES = 512;
const CALIBRATION_BATCH = 32;

/**
 * Makes a smaller model that starts from the teacher's weights, with the statistics of its own activations. Throws `invalid_params` for a share outside (0, 1), `unsupported` where the
 * teacher has nothing of the kind.
 */
export async function deriveStudent(
  teacher: Model,
  derivation: Derivation,
  options: DeriveOptions,
): Promise<DerivedStudent> {
  const [kind, share] = Object.entries(derivation)[0]!;
  if (!(share > 0 && share < 1)) {
    throw new CoreError(
      "invalid_params",
      `The share that a student keeps must be between 0 and 1, not ${share}.`,
      kind,
    );
  }
  const derived = await derive(teacher, derivation, options);
  const model = options.structureOnly
    ? derived.model
    : await estimateStatistics(derived.model, calibrationBatches(options.samples), options);
  return { ...derived, model, parameters: { teacher: parameterCount(teacher), student: parameterCount(model) } };
}

async function derive(teacher: Model, derivation: Derivation, options: DeriveOptions) {
  if ("keepLayers" in derivation) return dropLayers(teacher, derivation.keepLayers);
  if ("width" in derivation) {
    const feeds = options.samples.gather([0, Math.min(1, options.samples.count - 1)]).feeds;
    const { openSession, structureOnly } = options;
    return slimWidth(teacher, { fraction: derivation.width, feeds, openSession, structureOnly });
  }
  return factorizeLayers(teacher, {
    ...options,
    fraction: derivation.rank,
    ...(!options.structureOnly && { batches: calibrationBatches(options.samples) }),
  });
}

function calibrationBatches(samples: Samples) {
  const count = Math.min(samples.count, CALIBRATION_SAMPLES);
  // Of about one size: what is taken from a last batch of one sample is no statistic.
  const parts = Math.ceil(count / CALIBRATION_BATCH);
  const batches = [];
  for (let part = 0; part < parts; part++) {
    const start = Math.floor((part * count) / parts);
    const rows = Math.floor(((part + 1) * count) / parts) - start;
    // Spread over the dataset, which may be sorted by class.
    const indices = Uint32Array.from({ length: rows }, (_, i) => Math.floor(((start + i) * samples.count) / count));
    batches.push(samples.gather(indices).feeds);
  }
  return batches;
}

/** Elements of everything that training would change. */
export function parameterCount(model: Model): number {
  return findParameters(model).reduce((sum, { value }) => sum + elementCount(value.constant!.dims), 0);
}
