import { CoreError, checkCancelled } from "../errors.ts";
import type { DatasetFacts } from "../facts.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { ByteSource } from "./byte-source.ts";
import { isNpy, readNpy } from "./npy.ts";
import { isNpz, readNpz } from "./npz.ts";
import { isSafetensors, readSafetensors } from "./safetensors.ts";
import { SampleArray, type StoredArray } from "./sample-array.ts";

/** The array that holds the labels, in every format. */
const LABELS = "labels";

/** Samples that go through the model together. */
export interface Batch {
  /** Arrays by name, stacked over samples: [count, ...]. */
  readonly feeds: Readonly<Record<string, Tensor>>;
  /** [count, ...]; present when the dataset has labels. */
  readonly labels?: Tensor;
  readonly count: number;
}

export interface BatchOptions {
  /** The last batch may be smaller. */
  readonly batchSize: number;
  /** At most this many samples: the first ones, or the first of the shuffled order. */
  readonly limit?: number | undefined;
  /** Shuffles the samples; the same seed gives the same order. */
  readonly shuffleSeed?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Samples of named arrays, read from their file as they are asked for. */
export interface Dataset {
  readonly facts: DatasetFacts;
  batches(options: BatchOptions): AsyncIterable<Batch>;
  /** Any samples, in any order, read now. */
  gather(indices: ArrayLike<number>): Batch;
}

/** Some of the samples of a dataset, renumbered. */
export function datasetView(dataset: Dataset, indices: Uint32Array): Dataset {
  return {
    facts: { ...dataset.facts, samples: indices.length },
    gather: (own) => dataset.gather(Uint32Array.from(own, (i) => indices[i]!)),
    batches(options) {
      return batchesOf(this, options);
    },
  };
}

export interface DatasetOptions {
  /** The model input that a .npy file feeds: unlike the other formats it names nothing. */
  readonly input?: string | undefined;
  /** Also check what costs a pass over the data (checksums of members read in place): once, when the file arrives. */
  readonly verify?: boolean | undefined;
}

/**
 * Opens a .npy, .npz or .safetensors file, told apart by their first bytes. Reads headers, unpacks what is compressed, and checks that all
 * arrays have the same number of samples. Throws `invalid_dataset` with the array at fault, or `limit_exceeded`.
 */
export async function openDataset(source: ByteSource, options: DatasetOptions = {}): Promise<Dataset> {
  return datasetOf(await readArrays(source, options));
}

async function readArrays(source: ByteSource, { input, verify }: DatasetOptions): Promise<readonly StoredArray[]> {
  if (isNpy(source)) {
    if (input === undefined) {
      throw new CoreError("invalid_dataset", "A .npy file names no input: say which one it feeds (`input`).");
    }
    return [readNpy(source, input)];
  }
  if (isNpz(source)) return readNpz(source, verify ?? false);
  if (isSafetensors(source)) return readSafetensors(source);
  throw new CoreError("invalid_dataset", "The file is none of the formats that can be read: .npz, .npy, .safetensors.");
}

/** A dataset of stored arrays, one of which may be the labels. */
export function datasetOf(stored: readonly StoredArray[]): Dataset {
  const fields = stored.filter(({ name }) => name !== LABELS);
  const labels = stored.find(({ name }) => name === LABELS);
  if (fields.length === 0) throw new CoreError("invalid_dataset", "The dataset has no arrays.");
  const samples = countSamples(stored);
  if (labels?.dims.length === 0) {
    throw new CoreError("invalid_dataset", "The labels have no sample axis.", LABELS);
  }
  return new ArrayDataset(
    samples,
    fields.map((array) => new SampleArray(array)),
    labels && new SampleArray(labels),
  );
}

/** The first axis of every array, which must be the same one; arrays without axes hold for all samples. */
function countSamples(arrays: readonly StoredArray[]): number {
  const first = arrays.find(({ dims }) => dims.length > 0);
  if (!first) throw new CoreError("invalid_dataset", "No array of the dataset has a sample axis.");
  const samples = first.dims[0]!;
  if (samples === 0) throw new CoreError("invalid_dataset", `"${first.name}" has no samples.`, first.name);
  for (const { name, dims } of arrays) {
    if (dims.length > 0 && dims[0] !== samples) {
      throw new CoreError(
        "invalid_dataset",
        `"${name}" has ${dims[0]} samples and "${first.name}" has ${samples}: the first axis of every array counts the samples.`,
        name,
      );
    }
  }
  return samples;
}

class ArrayDataset implements Dataset {
  readonly facts: DatasetFacts;
  readonly #fields: readonly SampleArray[];
  readonly #labels: SampleArray | undefined;

  constructor(samples: number, fields: readonly SampleArray[], labels: SampleArray | undefined) {
    this.#fields = fields;
    this.#labels = labels;
    this.facts = {
      samples,
      fields: fields.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
      has_labels: labels !== undefined,
      classes: null,
    };
  }

  batches(options: BatchOptions): AsyncIterable<Batch> {
    return batchesOf(this, options);
  }

  gather(indices: ArrayLike<number>): Batch {
    return {
      feeds: Object.fromEntries(this.#fields.map((field) => [field.name, field.gather(indices)])),
      ...(this.#labels && { labels: this.#labels.gather(indices) }),
      count: indices.length,
    };
  }
}

async function* batchesOf(
  dataset: Dataset,
  { batchSize, limit = Infinity, shuffleSeed, signal }: BatchOptions,
): AsyncGenerator<Batch> {
  const { samples } = dataset.facts;
  const order = shuffleSeed === undefined ? undefined : new Random(shuffleSeed, "shuffle").permutation(samples);
  const end = Math.min(samples, limit);
  for (let start = 0; start < end; start += batchSize) {
    checkCancelled(signal);
    const count = Math.min(batchSize, end - start);
    yield dataset.gather(order?.subarray(start, start + count) ?? Array.from({ length: count }, (_, i) => start + i));
  }
}
