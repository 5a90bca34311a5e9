/**
 * Runs a training step: in one session with so many threads, or, where that is the same and faster, in parts. A part is an equal share of the
 * batch, computed by a session of one thread, each thread with a session of its own; losses and gradients are the means of those of the parts.
 * Threads then meet once or twice in a step and not in every operator, elementwise work is divided as well, and what parts compute fits into caches.
 */
import { CoreError } from "../errors.ts";
import { byteLengthOf } from "../onnx/dtype.ts";
import { elementCount, floatsOf, type Tensor, tensor, tensorOf } from "../onnx/tensor.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import { addGradients } from "./parameter-kernels.ts";
import type { SampleBatch } from "./samples.ts";
import { batchFeeds, type StepGraph } from "./step-graph.ts";

type Named = Readonly<Record<string, Tensor>>;

export interface StepRunner {
  /** Outputs of the step graph. They may be overwritten by the next run. */
  run(feeds: Named): Promise<Named>;
  close(): Promise<void>;
}

export interface StepRunnerOptions {
  readonly threads: number;
  readonly openSession: OpenSession;
  /** The batch that the graph was built for: what parts compute is held against what the whole does. */
  readonly batch: SampleBatch;
  /** Builds the graph of the same step for a batch of other size, and sessions of so many threads. */
  readonly rebuild: (batch: SampleBatch, threads: number) => Promise<StepGraph>;
}

/** A part has at least so many samples: smaller products are slow. */
const MIN_SAMPLES = 8;

/** Of the largest value that a part computes: operators one after the other then find in the cache what the one before has made. */
const MAX_VALUE_BYTES = 2 ** 23;

/** So many values must be computed for each parameter: gradients of parts are summed, and parameters copied to each (`bench/train-parts.ts`). */
const MIN_VALUES_PER_PARAMETER = 4;

/** Throws as `openSession` does. Which way a step runs depends on the graph and the first batch, not on time. */
export async function openStep(graph: StepGraph, options: StepRunnerOptions): Promise<StepRunner> {
  const { threads, openSession, batch } = options;
  const whole = await openSession({ bytes: graph.model }, { threads, transientOutputs: true });
  const count = isDivisible(graph, batch) ? countOfParts(graph, batch, threads) : 1;
  if (count === 1) return whole;
  const parts = await openParts(graph, count, options);
  if (parts === undefined) return whole;
  const feeds = { ...graph.feeds, ...batchFeeds(batch) };
  const [expected, actual] = [await whole.run(feeds), await parts.run(feeds)];
  if (isSameStep(graph, expected, actual)) {
    await whole.close();
    return parts;
  }
  await parts.close();
  return whole;
}

/** Whether the loss is the mean of the losses of parts, and whether parts are worth it. */
function isDivisible({ parts, terms, lossParameters, values, parameters }: StepGraph, batch: SampleBatch): boolean {
  const samples = samplesOf(batch);
  const arrays = [...Object.values(batch.feeds), ...Object.values(batch.targets)];
  if (arrays.some(({ dims }) => dims[0] !== samples) || lossParameters.length > 0) return false;
  // Statistics of a batch are not those of its parts, and masks are drawn for the whole.
  if (parts.some(({ outputs, feeds }) => outputs.length > 0 || feeds !== undefined)) return false;
  const trained = parameters.reduce((sum, { parameter }) => sum + parameter.data.length, 0);
  return terms.every(({ overSamples }) => overSamples) && values >= MIN_VALUES_PER_PARAMETER * trained;
}

function samplesOf({ feeds, targets }: SampleBatch): number {
  return [...Object.values(feeds), ...Object.values(targets)][0]?.dims[0] ?? 0;
}

/** A part for each thread; several where the largest value of a part would be too large. */
function countOfParts({ largest }: StepGraph, batch: SampleBatch, threads: number): number {
  const samples = samplesOf(batch);
  const fits = (count: number) => samples % count === 0 && samples / count >= MIN_SAMPLES;
  let count = fits(threads) ? threads : 1;
  if (count < threads) return 1;
  while ((4 * largest) / count > MAX_VALUE_BYTES && fits(2 * count)) count *= 2;
  return count;
}

/** The samples of one of `count` equal parts. */
function partOf(tensors: Named, part: number, count: number): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(tensors).map(
      ([
        name,
        {
          dtype,
          dims: [samples = 0, ...rest],
          bytes,
        },
      ]) => {
        const size = byteLengthOf(dtype, (samples / count) * elementCount(rest));
        return [name, tensor(dtype, [samples / count, ...rest], bytes.subarray(part * size, (part + 1) * size))];
      },
    ),
  );
}

/** Undefined for a network that takes no batches of that size. */
async function openParts(
  graph: StepGraph,
  count: number,
  { threads, openSession, batch, rebuild }: StepRunnerOptions,
): Promise<StepRunner | undefined> {
  let part: StepGraph;
  try {
    part = await rebuild({ feeds: partOf(batch.feeds, 0, count), targets: partOf(batch.targets, 0, count) }, 1);
  } catch (error) {
    // What is refused is the size, not the network: that was built.
    if (error instanceof CoreError && (error.code === "invalid_model" || error.code === "unsupported"))
      return undefined;
    throw error;
  }
  const model = { bytes: part.model };
  const options = { threads: 1, transientOutputs: true };
  const sessions: Session[] = [];
  try {
    for (let i = 1; i < threads; i++) sessions.push(await openSession(model, { ...options, ownThread: true }));
    // The last computes here, when the others have begun.
    sessions.push(await openSession(model, options));
  } catch (error) {
    await Promise.all(sessions.map((session) => session.close()));
    throw error;
  }
  const ofBatch = new Set(Object.keys(batchFeeds(batch)));
  return {
    async run(feeds) {
      const entries = Object.entries(feeds);
      const shared = Object.fromEntries(entries.filter(([name]) => !ofBatch.has(name)));
      const divided = Object.fromEntries(entries.filter(([name]) => ofBatch.has(name)));
      const mean = new MeanOfParts(graph, part, count);
      for (let first = 0; first < count; first += threads) {
        const runs = sessions.map((session, i) => session.run({ ...shared, ...partOf(divided, first + i, count) }));
        mean.add(await Promise.all(runs));
      }
      return mean.results();
    },
    async close() {
      await Promise.all(sessions.map((session) => session.close()));
    },
  };
}

/** Losses and gradients of a step, by the names that they have in `graph`, from what the graph of a part made; Σ g² is of the means. */
class MeanOfParts {
  readonly #graph: StepGraph;
  readonly #part: StepGraph;
  readonly #count: number;
  #added = 0;
  readonly #losses: Record<string, number> = {};
  #squares: readonly number[] = [];

  constructor(graph: StepGraph, part: StepGraph, count: number) {
    this.#graph = graph;
    this.#part = part;
    this.#count = count;
  }

  /** Adds what some parts made. */
  add(results: readonly Named[]): void {
    const own = lossesOf(this.#part);
    for (const [i, name] of lossesOf(this.#graph).entries()) {
      const sum = results.reduce((total, result) => total + floatsOf(result[own[i]!]!)[0]!, 0);
      this.#losses[name] = (this.#losses[name] ?? 0) + sum;
    }
    const fresh = this.#added === 0;
    this.#added += results.length;
    const share = this.#added === this.#count ? 1 / this.#count : 1;
    this.#squares = this.#part.parameters.flatMap(({ parameter, gradient }) => {
      if (gradient === undefined) return [];
      const gradients = results.map((result) => floatsOf(result[gradient]!));
      return addGradients(parameter.sum, gradients, { fresh, share });
    });
  }

  results(): Named {
    const scalars = Object.entries(this.#losses).map(([name, sum]) => [
      name,
      tensorOf("float32", [], [sum / this.#count]),
    ]);
    const gradients = this.#graph.parameters.flatMap(({ parameter: { dims, sum }, gradient }) =>
      gradient === undefined ? [] : [[gradient, tensorOf("float32", dims, sum)]],
    );
    const squares = tensorOf("float32", [this.#squares.length], this.#squares);
    return { ...Object.fromEntries(scalars), ...Object.fromEntries(gradients), [this.#graph.squares]: squares };
  }
}

/** The outputs with the losses of a step, each once: the sum is its only term where that has the weight 1. */
function lossesOf({ loss, terms }: StepGraph): readonly string[] {
  return [...new Set([loss, ...terms.map(({ output }) => output)])];
}

/** What rounding alone changes, of the largest element of a gradient: a network that mixes samples changes more. */
const TOLERANCE = 1e-3;
/** The same, of the largest element of all: there are gradients that are nothing but what rounding left over. */
const TOLERANCE_OF_ALL = 1e-6;

function isSameStep(graph: StepGraph, expected: Named, actual: Named): boolean {
  const compare = (name: string) => {
    const [a, b] = [floatsOf(expected[name]!), floatsOf(actual[name]!)];
    let [difference, largest] = [0, 0];
    for (let i = 0; i < a.length; i++) {
      difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
      largest = Math.max(largest, Math.abs(a[i]!));
    }
    return { difference, largest };
  };
  const losses = lossesOf(graph).map(compare);
  const gradients = graph.parameters.flatMap(({ gradient }) => gradient ?? []).map(compare);
  const all = Math.max(...gradients.map(({ largest }) => largest));
  return (
    losses.every(({ difference, largest }) => difference <= TOLERANCE * largest) &&
    gradients.every(({ difference, largest }) => difference <= TOLERANCE * largest + TOLERANCE_OF_ALL * all)
  );
}
