/** What the values of a dataset are like: found once, when it arrives, in one pass that holds a few megabytes. */
import type { DatasetFacts, DatasetWarning, FieldContent, LabelFacts, LabelValue, NonFinite } from "../facts.ts";
import { byteLengthOf, DTYPES, type DType } from "../onnx/dtype.ts";
import { arrayOf, elementCount, floatsOf, hasArray, isFloat, type Tensor } from "../onnx/tensor.ts";
import type { SampleArray } from "./sample-array.ts";

/** Samples are read in runs of about this many bytes. */
const RUN_BYTES = 4 * 2 ** 20;

/** Distinct labels that are told apart; of more than that only the outermost are known. */
const MAX_DISTINCT = 4096;
/** Labels at either end of their range that the facts have. */
const OUTERMOST = 16;

/** The facts of a dataset with what its values are like. `fields` are those that can be read now; `labels` are null without any. */
export function describeContent(
  facts: DatasetFacts,
  fields: readonly SampleArray[],
  labels: SampleArray | undefined,
): DatasetFacts {
  const contents = new Map(fields.map((field) => [field.name, contentOf(field, facts.samples)]));
  const described = facts.fields.map((field) => ({ ...field, content: contents.get(field.name) ?? null }));
  const labelFacts = labels ? labelFactsOf(labels, facts.samples) : null;
  return {
    ...facts,
    fields: described,
    labels: labelFacts,
    warnings: [...described.flatMap(fieldWarnings), ...labelWarnings(labelFacts)],
  };
}

/** Minimum, maximum and what is not finite, over values that come in runs of samples. */
class RangeMeter {
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;
  #nonFinite = 0;
  #first: FieldContent["first_non_finite"] = null;

  add(values: ArrayLike<number>, firstSample: number, perSample: number): void {
    let [min, max] = [this.#min, this.#max];
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      // NaN and infinities alone give NaN here.
      if (value - value !== 0) {
        this.#nonFinite++;
        this.#first ??= { sample: firstSample + Math.floor(i / perSample), value: nonFiniteName(value) };
        continue;
      }
      if (value < min) min = value;
      if (value > max) max = value;
    }
    [this.#min, this.#max] = [min, max];
  }

  get content(): FieldContent {
    const isEmpty = this.#min > this.#max;
    return {
      min: isEmpty ? null : this.#min,
      max: isEmpty ? null : this.#max,
      non_finite: this.#nonFinite,
      first_non_finite: this.#first,
    };
  }
}

/** What a value that is not finite is called. */
export function nonFiniteName(value: number): NonFinite {
  return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

function contentOf(array: SampleArray, samples: number): FieldContent {
  const meter = new RangeMeter();
  for (const { values, from, perSample } of runsOf(array, samples)) meter.add(values, from, perSample);
  return meter.content;
}

/** All values of an array as numbers, run by run; integers beyond 2^53 are rounded. */
function* runsOf(array: SampleArray, samples: number) {
  const perSample = elementCount(array.shape);
  if (perSample === 0) return;
  const sampleBytes = byteLengthOf(array.dtype, perSample);
  const run = Math.max(1, Math.floor(RUN_BYTES / sampleBytes));
  for (let from = 0; from < samples; from += run) {
    const count = Math.min(run, samples - from);
    yield { values: numbersOf(array.gather(Uint32Array.from({ length: count }, (_, i) => from + i))), from, perSample };
  }
}

function numbersOf(values: Tensor): ArrayLike<number> {
  const { dtype } = values;
  if (dtype === "float64") return arrayOf(values, dtype);
  if (DTYPES[dtype].kind === "float") return floatsOf(values);
  if (dtype === "int64" || dtype === "uint64") {
    const integers: BigInt64Array | BigUint64Array = arrayOf(values, dtype);
    const numbers = new Float64Array(integers.length);
    for (let i = 0; i < integers.length; i++) numbers[i] = Number(integers[i]);
    return numbers;
  }
  return hasArray(dtype) ? (arrayOf(values, dtype) as unknown as ArrayLike<number>) : [];
}

function labelFactsOf(array: SampleArray, samples: number): LabelFacts {
  const { dtype, shape } = array;
  const range = new RangeMeter();
  const values = new ValueCounter();
  let isOneHot = (shape.at(-1) ?? 0) > 1;
  for (const { values: labels, from, perSample } of runsOf(array, samples)) {
    range.add(labels, from, perSample);
    values.add(labels, from, perSample);
    isOneHot &&= areOneHot(labels, shape.at(-1)!);
  }
  return {
    dtype,
    shape,
    count: samples * elementCount(shape),
    ...range.content,
    ...values.facts,
    one_hot: isOneHot,
  };
}

function areOneHot(values: ArrayLike<number>, width: number): boolean {
  for (let start = 0; start < values.length; start += width) {
    let ones = 0;
    for (let i = start; i < start + width; i++) {
      if (values[i] === 1) ones++;
      else if (values[i] !== 0) return false;
    }
    if (ones !== 1) return false;
  }
  return true;
}

/** Counts distinct integers. Of very many only the outermost are kept, which never were in the middle of fewer. */
class ValueCounter {
  #seen = new Map<number, { count: number; first: number }>();
  #isComplete = true;
  #integers = true;

  add(values: ArrayLike<number>, firstSample: number, perSample: number): void {
    for (let i = 0; i < values.length && this.#integers; i++) {
      const value = values[i]!;
      if (!Number.isInteger(value)) {
        this.#integers = false;
        this.#seen.clear();
        return;
      }
      const known = this.#seen.get(value);
      if (known) known.count++;
      else {
        this.#seen.set(value, { count: 1, first: firstSample + Math.floor(i / perSample) });
        if (this.#seen.size > MAX_DISTINCT) this.#forgetTheMiddle();
      }
    }
  }

  #forgetTheMiddle(): void {
    const sorted = [...this.#seen].sort(([a], [b]) => a - b);
    this.#seen = new Map([...sorted.slice(0, OUTERMOST), ...sorted.slice(-OUTERMOST)]);
    this.#isComplete = false;
  }

  get facts(): Pick<LabelFacts, "integers" | "distinct" | "outermost"> {
    const sorted = [...this.#seen].sort(([a], [b]) => a - b);
    const ends = sorted.length <= 2 * OUTERMOST ? sorted : [...sorted.slice(0, OUTERMOST), ...sorted.slice(-OUTERMOST)];
    return {
      integers: this.#integers,
      distinct: this.#integers && this.#isComplete ? sorted.length : null,
      outermost: ends.map(([value, { count, first }]): LabelValue => ({ value, count, first_sample: first })),
    };
  }
}

function fieldWarnings({
  name,
  dtype,
  content,
}: {
  readonly name: string;
  readonly dtype: DType;
  readonly content: FieldContent | null;
}): DatasetWarning[] {
  if (content === null) return [];
  const quoted = JSON.stringify(name);
  const { min, max, non_finite: count, first_non_finite: first } = content;
  if (first) {
    const message = `${quoted} has ${count} ${count === 1 ? "value" : "values"} that are NaN or infinite, the first in sample ${first.sample} (${first.value}).`;
    return [{ code: "non_finite", field: name, message }];
  }
  // Masks and ids may well be all the same.
  if (!isFloat(dtype) || min === null || min !== max) return [];
  if (min === 0) return [{ code: "all_zero", field: name, message: `All values of ${quoted} are 0.` }];
  return [{ code: "constant", field: name, message: `All values of ${quoted} are ${min}.` }];
}

function labelWarnings(labels: LabelFacts | null): DatasetWarning[] {
  if (labels === null) return [];
  const { min, max, non_finite } = labels;
  if (non_finite > 0) return fieldWarnings({ name: "labels", dtype: labels.dtype, content: labels });
  if (min === null || min !== max || labels.count === 1) return [];
  return [{ code: "constant", field: "labels", message: `All labels are ${min}.` }];
}
