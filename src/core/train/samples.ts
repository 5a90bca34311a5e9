import { CoreError } from "../errors.ts";
import { byteLengthOf } from "../onnx/dtype.ts";
import { elementCount, type Tensor, tensor } from "../onnx/tensor.ts";
import { Random } from "../random.ts";

type Named = Readonly<Record<string, Tensor>>;

/** Samples stacked along the first axis: what the model's inputs take, and what its outputs are held against. */
export interface SampleBatch {
  readonly feeds: Named;
  readonly targets: Named;
}

/** What training needs of a dataset: any of its samples, in any order. */
export interface Samples {
  readonly count: number;
  gather(indices: ArrayLike<number>): SampleBatch;
}

/** Samples that are whole tensors in memory, the first axis counting them. */
export function samplesOf(feeds: Named, targets: Named = {}): Samples {
  const arrays = [...Object.values(feeds), ...Object.values(targets)];
  const count = arrays[0]?.dims[0] ?? 0;
  if (count === 0 || arrays.some(({ dims }) => dims[0] !== count)) {
    throw new CoreError("invalid_dataset", "All arrays must have the same number of samples, and at least one.");
  }
  const gather = (all: Named, indices: ArrayLike<number>): Named =>
    Object.fromEntries(Object.entries(all).map(([name, value]) => [name, gatherRows(value, indices)]));
  return { count, gather: (indices) => ({ feeds: gather(feeds, indices), targets: gather(targets, indices) }) };
}

/** Rows of the first axis, in the order of `indices`. */
export function gatherRows(source: Tensor, indices: ArrayLike<number>): Tensor {
  const shape = source.dims.slice(1);
  const rowBytes = byteLengthOf(source.dtype, elementCount(shape));
  const { bytes } = source;
  const rows = new Uint8Array(rowBytes * indices.length);
  for (let i = 0; i < indices.length; i++) {
    const from = indices[i]! * rowBytes;
    rows.set(bytes.subarray(from, from + rowBytes), i * rowBytes);
  }
  return tensor(source.dtype, [indices.length, ...shape], rows);
}

/** Some of the samples, renumbered. */
function subset(samples: Samples, indices: Uint32Array): Samples {
  return {
    count: indices.length,
    gather: (own) => samples.gather(Uint32Array.from(own as ArrayLike<number>, (i) => indices[i]!)),
  };
}

/** How many of `count` samples are held out for validation: at least one, unless the fraction is 0. */
export function heldOutCount(count: number, fraction: number): number {
  return fraction === 0 ? 0 : Math.max(1, Math.round(count * fraction));
}

/** Which of `count` samples are held out for validation, and which are not, each in ascending order; at least one of either. */
export function splitIndices(
  count: number,
  fraction: number,
  seed: number,
): { readonly training: Uint32Array; readonly validation: Uint32Array } {
  const held = heldOutCount(count, fraction);
  if (held >= count) {
    throw new CoreError("invalid_params", `Of ${count} samples, ${held} cannot be held out for validation.`);
  }
  const order = new Random(seed, "validation split").permutation(count);
  return { validation: order.subarray(0, held).toSorted(), training: order.subarray(held).toSorted() };
}

/** Holds out a random part of the samples for validation. */
export function splitSamples(
  samples: Samples,
  fraction: number,
  seed: number,
): { readonly training: Samples; readonly validation: Samples | undefined } {
  if (fraction === 0) return { training: samples, validation: undefined };
  const { training, validation } = splitIndices(samples.count, fraction, seed);
  return { training: subset(samples, training), validation: subset(samples, validation) };
}
