import { CoreError } from "../errors.ts";
import type { DatasetFacts, Shape, ValueFacts } from "../facts.ts";
import { DTYPES, type DType } from "../onnx/dtype.ts";
import { type ArrayDType, arrayOf, floatsOf, isFloat, type Tensor, tensor, tensorOf } from "../onnx/tensor.ts";

/** How samples must be put together for a model. */
export interface DatasetFit {
  /** The number of samples every run takes; null when the model takes any number. */
  readonly batchSize: number | null;
}

/**
 * Checks that a dataset can feed a model. An input whose rank is that of a sample plus one takes a batch; an input whose rank is that of
 * a sample (a recurrent state, a scalar) takes one sample at a time, without the sample axis, so that the whole model then runs with one.
 *
 * Dtypes need not be equal: floats are converted to floats (rounding is what a cast does anyway) and integers to integers (values that
 * do not fit are refused when they are met). Integers never become floats: pixels 0…255 fed where a model expects normalised values run
 * without an error and mean nothing. Arrays the model does not know are ignored.
 *
 * Throws `invalid_dataset` with the input at fault.
 */
export function checkDatasetFits(facts: DatasetFacts, inputs: readonly ValueFacts[]): DatasetFit {
  let batchSize: number | null = null;
  for (const { name, dtype, shape } of inputs) {
    const refuse = (why: string): never => {
      throw new CoreError("invalid_dataset", why, name);
    };
    const field = facts.fields.find((candidate) => candidate.name === name);
    if (!field) {
      const names = facts.fields.map((candidate) => `"${candidate.name}"`).join(", ");
      return refuse(`The dataset has no array for the model's input "${name}"; it has ${names}.`);
    }
    if (dtype === null || !isConvertible(field.dtype, dtype)) {
      const hint =
        isInteger(field.dtype) && dtype?.startsWith("float") ? ": save it scaled as the model expects it" : "";
      return refuse(
        `The model's input "${name}" takes ${dtype ?? "no tensor"} and the dataset has ${field.dtype}${hint}.`,
      );
    }
    if (shape === null) continue;
    const isBatched = shape.length === field.shape.length + 1;
    if (
      (!isBatched && shape.length !== field.shape.length) ||
      !matches(field.shape, isBatched ? shape.slice(1) : shape)
    ) {
      return refuse(
        `The model's input "${name}" takes ${shapeText(shape)} and a sample of the dataset has ${shapeText(field.shape)}.`,
      );
    }
    const needed = isBatched ? shape[0] : 1;
    if (typeof needed !== "number") continue;
    if (batchSize !== null && batchSize !== needed) {
      return refuse(`The model's input "${name}" takes ${needed} samples and another input ${batchSize}.`);
    }
    batchSize = needed;
  }
  if (batchSize !== null && batchSize > facts.samples) {
    throw new CoreError(
      "invalid_dataset",
      `The model takes ${batchSize} samples at a time and the dataset has ${facts.samples}.`,
    );
  }
  return { batchSize };
}

/** What the inputs take, out of the arrays of a batch: converted, and without the sample axis where the input has none. */
export function feedsFor(
  inputs: readonly ValueFacts[],
  arrays: Readonly<Record<string, Tensor>>,
): Record<string, Tensor> {
  return Object.fromEntries(
    inputs.map(({ name, dtype, shape }) => {
      const array = arrays[name];
      if (!array || dtype === null) throw new CoreError("invalid_dataset", `Nothing feeds the input "${name}".`, name);
      const converted = convert(array, dtype, name);
      const isUnbatched = shape !== null && array.dims.length === shape.length + 1 && array.dims[0] === 1;
      return [name, isUnbatched ? tensor(dtype, array.dims.slice(1), converted.bytes) : converted];
    }),
  );
}

function matches(dims: readonly number[], shape: NonNullable<Shape>): boolean {
  return dims.every((dim, axis) => typeof shape[axis] !== "number" || shape[axis] === dim);
}

function shapeText(shape: NonNullable<Shape>): string {
  return `[${shape.map((dim) => dim ?? "?").join(", ")}]`;
}

function isInteger(dtype: DType): boolean {
  return DTYPES[dtype].kind === "int" || DTYPES[dtype].kind === "uint";
}

/** The floats that can be fed, and their arrays. */
const FLOAT_ARRAYS: Partial<Record<DType, typeof Float16Array | typeof Float32Array | typeof Float64Array>> = {
  float16: Float16Array,
  float32: Float32Array,
  float64: Float64Array,
};

function isConvertible(from: DType, to: DType): boolean {
  if (from === to) return true;
  if (isInteger(from)) return isInteger(to) && DTYPES[to].bits >= 8;
  return isFloat(from) && FLOAT_ARRAYS[to] !== undefined;
}

/** Throws `invalid_dataset` for an integer that the other dtype cannot hold. */
function convert(source: Tensor, to: DType, name: string): Tensor {
  if (source.dtype === to) return source;
  if (!isConvertible(source.dtype, to)) {
    throw new CoreError("invalid_dataset", `The input "${name}" takes ${to} and was given ${source.dtype}.`, name);
  }
  const floats = FLOAT_ARRAYS[to]?.from(floatsOf(source));
  return floats ? tensor(to, source.dims, new Uint8Array(floats.buffer)) : convertIntegers(source, to, name);
}

function convertIntegers(source: Tensor, to: DType, name: string): Tensor {
  const { bits, kind } = DTYPES[to];
  const min = kind === "int" ? -(2n ** BigInt(bits - 1)) : 0n;
  const max = min + 2n ** BigInt(bits) - 1n;
  const values = arrayOf(source, source.dtype as ArrayDType) as ArrayLike<number | bigint>;
  const integers = Array.from(values, (value) => {
    const integer = BigInt(value);
    if (integer < min || integer > max) {
      throw new CoreError("invalid_dataset", `"${name}" holds ${integer}, which is not a value of ${to}.`, name);
    }
    return integer;
  });
  if (to === "int64") return tensorOf(to, source.dims, BigInt64Array.from(integers));
  if (to === "uint64") return tensorOf(to, source.dims, BigUint64Array.from(integers));
  return tensorOf(to as ArrayDType, source.dims, integers.map(Number));
}
