import { CoreError } from "../errors.ts";
import { byteLengthOf, DTYPES, type DType } from "../onnx/dtype.ts";
import { elementCount, type Tensor, tensor } from "../onnx/tensor.ts";
import type { ByteSource } from "./byte-source.ts";

/** What every format has to say about one of its arrays: little more than where its bytes are. */
export interface StoredArray {
  readonly name: string;
  readonly dtype: DType;
  /** As stored, the sample axis first. */
  readonly dims: readonly number[];
  /** The array's bytes, row-major, nothing before or after. */
  readonly source: ByteSource;
  /** Where the bytes are not those of the dtype yet. */
  readonly encoding?: Encoding | undefined;
}

/** What a file holds, whatever its format. */
export interface Contents {
  readonly arrays: readonly StoredArray[];
  /** The labels, in the formats that do not keep them among the arrays. */
  readonly labels?: Omit<StoredArray, "name"> | undefined;
  /** What the labels are numbers of. */
  readonly classes?: readonly string[] | undefined;
  /** Makes samples ready to be read; unless given, all are. */
  readonly prepare?: ((indices: ArrayLike<number>, signal?: AbortSignal) => Promise<void>) | undefined;
}

/** How elements are stored, and how they become what their dtype says. */
export interface Encoding {
  readonly bytesPerElement: number;
  /** Elements of whole samples: the stored bytes in, those of the dtype out. */
  decode(stored: Uint8Array): Uint8Array;
}

/** Elements of more than one byte in the other byte order; undefined for those of one byte, which have none. */
export function bigEndian(dtype: DType): Encoding | undefined {
  const bytesPerElement = DTYPES[dtype].bits / 8;
  if (bytesPerElement === 1) return undefined;
  return { bytesPerElement, decode: (stored) => swapBytes(stored, bytesPerElement) };
}

/** An array cut into samples along its first axis, read when asked for. An array without axes holds for every sample. */
export class SampleArray {
  readonly name: string;
  readonly dtype: DType;
  /** Shape of one sample. */
  readonly shape: readonly number[];
  /** As stored. */
  readonly #sampleBytes: number;
  /** Bytes from one sample to the next; 0 for an array that holds for every sample. */
  readonly #stride: number;
  readonly #source: ByteSource;
  readonly #encoding: Encoding | undefined;

  constructor(array: StoredArray) {
    this.name = array.name;
    this.dtype = array.dtype;
    this.shape = array.dims.slice(1);
    const elements = elementCount(this.shape);
    this.#sampleBytes = array.encoding
      ? array.encoding.bytesPerElement * elements
      : byteLengthOf(array.dtype, elements);
    this.#stride = array.dims.length === 0 ? 0 : this.#sampleBytes;
    this.#source = array.source;
    this.#encoding = array.encoding;
  }

  /** The samples at `indices`, stacked: [indices.length, ...shape]. */
  gather(indices: ArrayLike<number>): Tensor {
    const bytes = this.#isRun(indices)
      ? this.#source.read(indices[0]! * this.#stride, indices.length * this.#sampleBytes)
      : this.#collect(indices);
    const elements = this.#encoding ? this.#encoding.decode(bytes) : bytes;
    // Anything but 0 and 1 is undefined behaviour in the C++ that computes on bools.
    if (this.dtype === "bool" && elements.some((byte) => byte > 1)) {
      throw new CoreError("invalid_dataset", `"${this.name}" holds bools that are neither 0 nor 1.`, this.name);
    }
    return tensor(this.dtype, [indices.length, ...this.shape], elements);
  }

  /** Whether the samples lie one after the other. */
  #isRun(indices: ArrayLike<number>): boolean {
    if (this.#stride === 0) return indices.length === 1;
    for (let i = 1; i < indices.length; i++) if (indices[i] !== indices[0]! + i) return false;
    return indices.length > 0;
  }

  #collect(indices: ArrayLike<number>): Uint8Array {
    const bytes = new Uint8Array(indices.length * this.#sampleBytes);
    for (let i = 0; i < indices.length; i++) {
      bytes.set(this.#source.read(indices[i]! * this.#stride, this.#sampleBytes), i * this.#sampleBytes);
    }
    return bytes;
  }
}

function swapBytes(bytes: Uint8Array, size: number): Uint8Array {
  const swapped = new Uint8Array(bytes.byteLength);
  for (let i = 0; i < bytes.byteLength; i += size) {
    for (let k = 0; k < size; k++) swapped[i + k] = bytes[i + size - 1 - k]!;
  }
  return swapped;
}
