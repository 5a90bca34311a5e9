import {
  byteLengthOf,
  type Dataset,
  feedsFor,
  floatsOf,
  isFloat,
  type Samples,
  samplesOf,
  type Tensor,
  tensorOf,
  type ValueFacts,
} from "../../../core/index.ts";

/** Larger datasets are read from their file, batch by batch. */
const MAX_RESIDENT_BYTES = 256 * 2 ** 20;

/**
 * Samples for training: what `inputs` take, and the target `labels` where the dataset has any. Every input must have an axis for the
 * samples of a batch. Images are all decoded now; small datasets are read and converted once.
 */
export async function trainingSamples(
  dataset: Dataset,
  inputs: readonly ValueFacts[],
  options: { readonly maxResidentBytes?: number; readonly signal?: AbortSignal } = {},
): Promise<Samples> {
  const { maxResidentBytes = MAX_RESIDENT_BYTES, signal } = options;
  const { samples: count, fields } = dataset.facts;
  const all = Uint32Array.from({ length: count }, (_, i) => i);
  await dataset.prepare(all, signal);
  const gather: Samples["gather"] = (indices) => {
    const { feeds, labels } = dataset.gather(indices);
    return { feeds: feedsFor(inputs, feeds), targets: labels ? { labels: computable(labels) } : {} };
  };
  const bytes = fields.reduce(
    (sum, { dtype, shape }) =>
      sum +
      count *
        byteLengthOf(
          dtype,
          shape.reduce((product, dim) => product * dim, 1),
        ),
    0,
  );
  if (bytes > maxResidentBytes) return { count, gather };
  const { feeds, targets } = gather(all);
  return samplesOf(feeds, targets);
}

/** Losses compute in float32. */
function computable(labels: Tensor): Tensor {
  return isFloat(labels.dtype) ? tensorOf("float32", labels.dims, new Float32Array(floatsOf(labels))) : labels;
}
