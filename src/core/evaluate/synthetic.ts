import { feedsFor } from "../data/fit.ts";
import { CoreError, checkCancelled } from "../errors.ts";
import type { ValueFacts } from "../facts.ts";
import { DTYPES, type DType } from "../onnx/dtype.ts";
import { type ArrayDType, elementCount, hasArray, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { Session } from "../runtime/session.ts";

/**
 * Input for models that come without data. Nothing in a model says what its symbolic sizes or its integer inputs mean, so this guesses the
 * way a person would, from names and ranks, and lets the model decide: candidates are run until one is accepted.
 */
export interface SyntheticInputs {
  /** What was given to each symbolic dimension; unnamed ones are called `input.axis`. */
  readonly dims: Readonly<Record<string, number>>;
  /** Samples in each run when the model fixes them, else null. */
  readonly batchSize: number | null;
  /** The feeds of run `index`: always the same for the same seed. `batchSize` has no effect where the model fixes it. */
  feeds(index: number, batchSize: number): Record<string, Tensor>;
}

export interface SyntheticOptions {
  /** Sizes of symbolic dimensions by name; of unnamed ones by `input.axis` ("x.3"). What is not given is guessed. */
  readonly dims: Readonly<Record<string, number>>;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/** The size of a dimension: a number, or one that follows the batch. */
type Size = number | "batch";

/** Sizes to try, in order, for a dimension that is neither given nor the batch. The most usual first; convolutions want round ones. */
const SIZES = {
  /** Height or width of an image. */
  image: [224, 320, 640, 64, 32, 28],
  /** An axis of a volume or a video. */
  volume: [16, 32, 64],
  /** Tokens of a text. */
  tokens: [128, 32, 8],
  /** Samples of a signal, or frames of one. 512 samples are what silero VAD takes at 16 kHz, 3000 frames Whisper. */
  signal: [512, 256, 1600, 16000, 3000, 80],
  /** A cache that has nothing in it yet. */
  past: [0, 16],
} as const satisfies Record<string, readonly number[]>;

/** What integer inputs are filled with: ids below each bound in turn, for tables that are smaller than usual. */
const ID_BOUNDS = [100, 10, 2, 1];

/** Integer inputs whose name says what they hold. The first that matches counts. */
const NAMED_INTEGERS: readonly { readonly pattern: RegExp; readonly values: readonly number[] | "positions" }[] = [
  { pattern: /^(sr|fs|(sampl(e|ing)_?)?rate)$/i, values: [16000, 8000] },
  { pattern: /mask/i, values: [1] },
  { pattern: /type|segment/i, values: [0] },
  { pattern: /position/i, values: "positions" },
];

/** Any other integer that stands alone: a flag, a count, a rate. */
const LONE_INTEGERS = [1, 0, 16000, 8000];

const MAX_ATTEMPTS = 48;

/** One way to fill the inputs: an index into the candidates of each choice that is open. */
type Choices = ReadonlyMap<string, number>;

/**
 * Finds sizes and integer values that the model accepts by running it. Throws `invalid_params` when there are none (the answer is to give
 * `dims`, or a dataset), `unsupported` for inputs that are not tensors of numbers.
 */
export async function findSyntheticInputs(session: Session, options: SyntheticOptions): Promise<SyntheticInputs> {
  const { inputs } = session;
  const sizes = inputs.map((input) => sizeCandidates(input, inputs, options.dims));
  const open = new Map<string, number>();
  for (const slot of sizes.flat()) if (slot.candidates.length > 1) open.set(slot.name, slot.candidates.length);
  for (const input of inputs) {
    const count = integerCandidates(input);
    if (count > 1) open.set(`values of ${input.name}`, count);
  }

  let lastError: unknown;
  for (const choices of combinations(open)) {
    checkCancelled(options.signal);
    const synthetic = new Synthetic(inputs, sizes, choices, options.seed);
    try {
      await session.run(synthetic.feeds(0, 1), undefined, options.signal);
      return synthetic;
    } catch (error) {
      if (!(error instanceof CoreError) || (error.code !== "invalid_model" && error.code !== "invalid_dataset"))
        throw error;
      lastError = error;
    }
  }
  throw new CoreError(
    "invalid_params",
    "No synthetic input was found that the model accepts: give the sizes of its symbolic dimensions (dims), or a dataset. " +
      `The last attempt ended with: ${(lastError as Error).message}`,
    undefined,
    { cause: lastError },
  );
}

/** One axis of an input and the sizes it may have. */
interface Slot {
  readonly name: string;
  readonly candidates: readonly Size[];
}

function sizeCandidates(
  input: ValueFacts,
  inputs: readonly ValueFacts[],
  given: Readonly<Record<string, number>>,
): readonly Slot[] {
  const { name, dtype, shape } = input;
  if (dtype === null || shape === null || !hasArray(dtype)) {
    throw new CoreError(
      "unsupported",
      `There is no synthetic input for "${name}", which takes ${dtype ?? "no tensor"}${shape ? "" : " of any rank"}: give a dataset.`,
      name,
    );
  }
  return shape.map((dim, axis): Slot => {
    const slot = dim === null ? `${name}.${axis}` : `${dim}`;
    if (typeof dim === "number") return { name: slot, candidates: [dim] };
    const size = given[slot] ?? given[`${name}.${axis}`];
    if (size !== undefined) return { name: slot, candidates: [size] };
    return { name: slot, candidates: isBatch(input, axis, inputs) ? ["batch"] : SIZES[kindOf(input, slot)] };
  });
}

/**
 * Whether a symbolic axis counts samples: the first axis; one called like a first axis of any input; one called batch; and the middle axis
 * of a recurrent state [layers, batch, hidden].
 */
function isBatch({ shape }: ValueFacts, axis: number, inputs: readonly ValueFacts[]): boolean {
  const dim = shape?.[axis];
  if (axis === 0) return true;
  if (typeof dim === "string") return /batch/i.test(dim) || inputs.some((other) => other.shape?.[0] === dim);
  return shape?.length === 3 && axis === 1 && typeof shape[0] === "number";
}

function kindOf({ dtype, shape }: ValueFacts, slot: string): keyof typeof SIZES {
  if (/past/i.test(slot)) return "past";
  if (shape!.length >= 5) return "volume";
  if (shape!.length === 4) return "image";
  return isInteger(dtype!) || dtype === "bool" ? "tokens" : "signal";
}

function isInteger(dtype: DType): boolean {
  return DTYPES[dtype].kind === "int" || DTYPES[dtype].kind === "uint";
}

/** In how many ways an integer input may be filled. */
function integerCandidates({ name, dtype, shape }: ValueFacts): number {
  if (!isWideInteger(dtype!)) return 1;
  const named = NAMED_INTEGERS.find(({ pattern }) => pattern.test(name));
  if (named) return named.values === "positions" ? 1 : named.values.length;
  return isLone(shape!) ? LONE_INTEGERS.length : ID_BOUNDS.length;
}

/** Integers that are ids, counts or positions; 8- and 16-bit ones are pixels and audio and are drawn from their whole range. */
function isWideInteger(dtype: DType): boolean {
  return isInteger(dtype) && DTYPES[dtype].bits >= 32;
}

function isLone(shape: readonly unknown[]): boolean {
  return shape.every((dim) => dim === 1);
}

/** Every combination of candidates, at most `MAX_ATTEMPTS`; first those that differ from the usual in one choice. */
function* combinations(open: ReadonlyMap<string, number>): Generator<Choices> {
  const names = [...open.keys()];
  const all = function* (at: number, changes: number): Generator<Map<string, number>> {
    if (at === names.length) {
      if (changes === 0) yield new Map();
      return;
    }
    for (let candidate = 0; candidate < open.get(names[at]!)!; candidate++) {
      const left = changes - (candidate === 0 ? 0 : 1);
      if (left < 0) return;
      for (const rest of all(at + 1, left)) yield rest.set(names[at]!, candidate);
    }
  };
  let attempts = 0;
  for (let changes = 0; changes <= names.length; changes++) {
    for (const choices of all(0, changes)) {
      yield choices;
      if (++attempts === MAX_ATTEMPTS) return;
    }
  }
}

class Synthetic implements SyntheticInputs {
  readonly dims: Readonly<Record<string, number>>;
  readonly batchSize: number | null;
  readonly #inputs: readonly ValueFacts[];
  readonly #sizes: readonly (readonly Size[])[];
  readonly #choices: Choices;
  readonly #seed: number;

  constructor(inputs: readonly ValueFacts[], slots: readonly (readonly Slot[])[], choices: Choices, seed: number) {
    this.#inputs = inputs;
    this.#choices = choices;
    this.#seed = seed;
    const chosen = ({ name, candidates }: Slot): Size => candidates[choices.get(name) ?? 0]!;
    this.#sizes = slots.map((axes) => axes.map(chosen));
    this.batchSize = this.#sizes.flat().includes("batch") ? null : firstSize(this.#sizes);
    const symbolic = slots.flatMap((axes, i) => axes.filter((_, axis) => typeof inputs[i]!.shape![axis] !== "number"));
    this.dims = Object.fromEntries(
      symbolic.map((slot) => {
        const size = chosen(slot);
        return [slot.name, size === "batch" ? 1 : size];
      }),
    );
  }

  feeds(index: number, batchSize: number): Record<string, Tensor> {
    return Object.fromEntries(
      this.#inputs.map((input, i) => {
        const dims = this.#sizes[i]!.map((size) => (size === "batch" ? batchSize : size));
        return [input.name, this.#fill(input, dims, new Random(this.#seed, `${input.name}#${index}`))];
      }),
    );
  }

  #fill({ name, dtype, shape }: ValueFacts, dims: readonly number[], random: Random): Tensor {
    const count = elementCount(dims);
    const make = (element: (i: number) => number) =>
      tensorOf(
        dtype as ArrayDType,
        dims,
        Array.from({ length: count }, (_, i) => element(i)),
      );
    const { kind, bits } = DTYPES[dtype!];
    if (kind === "float") {
      const values = new Float32Array(count);
      random.fillNormal(values);
      return feedsFor([{ name, dtype, shape }], { [name]: tensorOf("float32", dims, values) })[name]!;
    }
    if (kind === "bool") return make(() => 1);
    if (!isWideInteger(dtype!)) return make(() => random.integer(2 ** bits) - (kind === "int" ? 2 ** (bits - 1) : 0));
    const choice = this.#choices.get(`values of ${name}`) ?? 0;
    const named = NAMED_INTEGERS.find(({ pattern }) => pattern.test(name));
    if (named?.values === "positions") return make((i) => i % (dims.at(-1) ?? 1));
    if (named) return make(() => (named.values as readonly number[])[choice]!);
    if (isLone(shape!)) return make(() => LONE_INTEGERS[choice]!);
    return make(() => random.integer(ID_BOUNDS[choice]!));
  }
}

/** What a model without symbolic sizes takes as a batch: the first axis of its first input that has axes. */
function firstSize(sizes: readonly (readonly Size[])[]): number {
  const first = sizes.find((axes) => axes.length > 0)?.[0];
  return typeof first === "number" ? first : 1;
}
