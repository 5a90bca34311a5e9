import { CoreError, checkCancelled } from "../errors.ts";
import type { DatasetFacts } from "../facts.ts";
import { elementCount, type Tensor } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import { type ByteSource, memoryScratch, type ScratchBytes } from "./byte-source.ts";
import { describeContent } from "./content.ts";
import { readCsv } from "./csv.ts";
import { type ImageDecoder, readImages } from "./images.ts";
import { LIMITS } from "./limits.ts";
import { isNpy, readNpy } from "./npy.ts";
import { readNpz } from "./npz.ts";
import { ROW_FORMATS } from "./row-formats.ts";
import { isSafetensors, readSafetensors } from "./safetensors.ts";
import { type Contents, SampleArray, type StoredArray } from "./sample-array.ts";
import type { ArraySpec, DatasetSpec } from "./spec.ts";
import { isZip } from "./zip.ts";

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
  /** Makes samples ready for `gather`: what has to be decoded is decoded now, and once. Throws `invalid_dataset` for one that is damaged. */
  prepare(indices: ArrayLike<number>, signal?: AbortSignal): Promise<void>;
  /** Any samples that are ready, in any order, read now. */
  gather(indices: ArrayLike<number>): Batch;
}

/** Some of the samples of a dataset, renumbered. */
export function datasetView(dataset: Dataset, indices: Uint32Array): Dataset {
  return {
    facts: { ...dataset.facts, samples: indices.length },
    prepare: (own, signal) =>
      dataset.prepare(
        Uint32Array.from(own, (i) => indices[i]!),
        signal,
      ),
    gather: (own) => dataset.gather(Uint32Array.from(own, (i) => indices[i]!)),
    batches(options) {
      return batchesOf(this, options);
    },
  };
}

/**
 * `count` samples of a dataset, or all that it has, in an order of chance: data are often sorted (by class, by time), and what a number or a limit of
 * time leaves must be like the rest. Every job draws the same ones, and more of them begin with fewer, so that results can be compared.
 */
export function drawnSamples(dataset: Dataset, count: number): Dataset {
  const order = new Random(0, "drawn samples").permutation(dataset.facts.samples);
  return datasetView(dataset, order.subarray(0, count));
}

export interface DatasetOptions {
  /** What the file does not say itself: which formats it is, too, unless it is of arrays. */
  readonly spec?: DatasetSpec | undefined;
  /** Also check what costs a pass over the data (checksums of members read in place, images): once, when the file arrives. */
  readonly verify?: boolean | undefined;
  /** Needed for images. */
  readonly imageDecoder?: ImageDecoder | undefined;
  /** Where decoded samples are kept; in memory unless given. */
  readonly openScratch?: (() => ScratchBytes) | undefined;
}

/**
 * Opens a file of arrays (.npy, .npz or .safetensors, told apart by their first bytes), of images (.zip) or of rows (.csv, and `ROW_FORMATS`), as
 * `spec.kind` says. Reads headers, unpacks what is compressed, reads tables once, and checks that all arrays have the same number of samples.
 * Throws `invalid_dataset` with the array, file or column at fault, or `limit_exceeded`.
 */
export async function openDataset(source: ByteSource, options: DatasetOptions = {}): Promise<Dataset> {
  return new ArrayDataset(partsOf(await readContents(source, options)));
}

/** The facts of a dataset, checked (`verify`) and with what its values are like, which takes a pass over them. Throws as `openDataset` does. */
export async function inspectDataset(source: ByteSource, options: DatasetOptions = {}): Promise<DatasetFacts> {
  const contents = await readContents(source, { ...options, verify: true });
  const { facts, fields, labels } = partsOf(contents);
  // What has to be decoded first is images: their values are finite because their spec is.
  return describeContent(facts, contents.prepare ? [] : fields, labels);
}

async function readContents(source: ByteSource, options: DatasetOptions): Promise<Contents> {
  const { spec, imageDecoder, verify = false, openScratch = () => memoryScratch(LIMITS.memoryBytes) } = options;
  if (!spec) return { arrays: await readArrays(source, spec, verify) };
  switch (spec.kind) {
    case "array":
      return { arrays: await readArrays(source, spec, verify) };
    case "images":
      if (!imageDecoder) throw new CoreError("unsupported", "Images cannot be decoded here.");
      return readImages(source, spec, { decoder: imageDecoder, openScratch, verify });
    case "csv":
      return readCsv(source, spec, openScratch);
    default:
      return ROW_FORMATS[spec.kind].read(source, spec, openScratch);
  }
}

async function readArrays(
  source: ByteSource,
  spec: ArraySpec | undefined,
  verify: boolean,
): Promise<readonly StoredArray[]> {
  if (isNpy(source)) {
    if (!spec) {
      throw new CoreError("invalid_dataset", "A .npy file names no input: say which one it feeds (`input`).");
    }
    return [readNpy(source, spec.input)];
  }
  if (isZip(source)) return readNpz(source, verify);
  if (isSafetensors(source)) return readSafetensors(source);
  throw new CoreError("invalid_dataset", "The file is none of the formats that can be read: .npz, .npy, .safetensors.");
}

/** What a dataset is made of. */
interface DatasetParts extends Pick<Contents, "prepare"> {
  readonly facts: DatasetFacts;
  readonly fields: readonly SampleArray[];
  readonly labels: SampleArray | undefined;
}

/** The arrays of what a file holds; without labels of their own, the array called `labels` has them. */
function partsOf(contents: Contents): DatasetParts {
  const { arrays } = contents;
  const fields = contents.labels ? arrays : arrays.filter(({ name }) => name !== LABELS);
  const labels = contents.labels ? { name: LABELS, ...contents.labels } : arrays.find(({ name }) => name === LABELS);
  const stored = labels ? [...fields, labels] : fields;
  if (fields.length === 0) throw new CoreError("invalid_dataset", "The dataset has no arrays.");
  const samples = countSamples(stored);
  // Beside others an empty array may be meant (what a decoder has seen so far); alone it is a count that nothing stands behind.
  if (fields.every(({ dims }) => dims.length > 0 && elementCount(dims) === 0)) {
    const { name, dims } = fields[0]!;
    throw new CoreError(
      "invalid_dataset",
      `The samples of "${name}" are empty: their shape is [${dims.slice(1)}].`,
      name,
    );
  }
  if (labels?.dims.length === 0) {
    throw new CoreError("invalid_dataset", "The labels have no sample axis.", LABELS);
  }
  return {
    facts: {
      samples,
      fields: fields.map(({ name, dtype, dims }) => ({ name, dtype, shape: dims.slice(1) })),
      has_labels: labels !== undefined,
      classes: contents.classes ?? null,
    },
    fields: fields.map((array) => new SampleArray(array)),
    labels: labels && new SampleArray(labels),
    prepare: contents.prepare,
  };
}

/** The first axis of every array, which must be the same one; arrays without axes hold for all samples. */
function countSamples(arrays: readonly StoredArray[]): number {
  const first = arrays.find(({ dims }) => dims.length > 0);
  if (!first) throw new CoreError("invalid_dataset", "No array of the dataset has a sample axis.");
  const samples = first.dims[0]!;
  if (samples === 0) throw new CoreError("invalid_dataset", `"${first.name}" has no samples.`, first.name);
  if (samples > LIMITS.samples) {
    const message = `"${first.name}" has ${samples} samples; at most ${LIMITS.samples} are allowed.`;
    throw new CoreError("limit_exceeded", message, first.name);
  }
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
  readonly #prepare: Contents["prepare"];

  constructor({ facts, fields, labels, prepare }: DatasetParts) {
    this.facts = facts;
    this.#fields = fields;
    this.#labels = labels;
    this.#prepare = prepare;
  }

  batches(options: BatchOptions): AsyncIterable<Batch> {
    return batchesOf(this, options);
  }

  async prepare(indices: ArrayLike<number>, signal?: AbortSignal): Promise<void> {
    await this.#prepare?.(indices, signal);
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
    const indices = order?.subarray(start, start + count) ?? Uint32Array.from({ length: count }, (_, i) => start + i);
    await dataset.prepare(indices, signal);
    yield dataset.gather(indices);
  }
}
