/**
 * Runs a training step: in one session with so many threads, or, where that is the same and faster, in parts. A part is an equal share of the
 * batch, computed by a session of one thread on a thread of its own; losses and gradients are the means of those of the parts. Threads then meet
 * once in a step and not once in every operator, and elementwise work is divided as well.
 */
import { CoreError } from "../errors.ts";
import { byteLengthOf } from "../onnx/dtype.ts";
import { elementCount, floatsOf, type Tensor, tensor, tensorOf } from "../onnx/tensor.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
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
  /** Builds the graph of the same step for a batch of other size. */
  readonly rebuild: (batch: SampleBatch) => Promise<StepGraph>;
}

/** A part has at least so many samples: smaller products are slow. */
const MIN_SAMPLES = 8;

/** So many values must be computed for each parameter: gradients of parts are summed, and parameters copied to each (`bench/train-parts.ts`). */
const MIN_VALUES_PER_PARAMETER = 4;

/** Throws as `openSession` does. Which way a step runs depends on the graph and the first batch, not on time. */
export async function openStep(graph: StepGraph, options: StepRunnerOptions): Promise<StepRunner> {
  const { threads, openSession, batch } = options;
  const whole = await openSession({ bytes: graph.model }, { threads });
  if (!isDivisible(graph, batch, threads)) return whole;
  const parts = await openParts(graph, options);
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
function isDivisible(
  { parts, terms, lossParameters, values, parameters }: StepGraph,
  batch: SampleBatch,
  threads: number,
) {
  const arrays = [...Object.values(batch.feeds), ...Object.values(batch.targets)];
  const samples = arrays[0]?.dims[0] ?? 0;
  if (threads < 2 || samples % threads !== 0 || samples / threads < MIN_SAMPLES) return false;
  if (arrays.some(({ dims }) => dims[0] !== samples) || lossParameters.length > 0) return false;
  // Statistics of a batch are not those of its parts, and masks are drawn for the whole.
  if (parts.some(({ outputs, feeds }) => outputs.length > 0 || feeds !== undefined)) return false;
  const trained = parameters.reduce((sum, { parameter }) => sum + parameter.data.length, 0);
  return terms.every(({ overSamples }) => overSamples) && values >= MIN_VALUES_PER_PARAMETER * trained;
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
  { threads, openSession, batch, rebuild }: StepRunnerOptions,
): Promise<StepRunner | undefined> {
  let part: StepGraph;
  try {
    part = await rebuild({ feeds: partOf(batch.feeds, 0, threads), targets: partOf(batch.targets, 0, threads) });
  } catch (error) {
    if (error instanceof CoreError) return undefined;
    throw error;
  }
  const model = { bytes: part.model };
  const sessions: Session[] = [];
  try {
    for (let i = 1; i < threads; i++) sessions.push(await openSession(model, { threads: 1, ownThread: true }));
    // The last computes here, when the others have begun.
    sessions.push(await openSession(model, { threads: 1 }));
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
      const runs = sessions.map((session, i) => session.run({ ...shared, ...partOf(divided, i, threads) }));
      return meanOf(graph, part, await Promise.all(runs));
    },
    async close() {
      await Promise.all(sessions.map((session) => session.close()));
    },
  };
}

/** Losses and gradients of a step, by the names that they have in `graph`, from what the graph of a part made; Σ g² is of the means. */
function meanOf(graph: StepGraph, part: StepGraph, results: readonly Named[]): Named {
  const means: Record<string, Tensor> = {};
  const scalars = (step: StepGraph) => [step.loss, ...step.terms.map(({ output }) => output)];
  scalars(graph).forEach((name, i) => {
    const from = scalars(part)[i]!;
    const sum = results.reduce((total, result) => total + floatsOf(result[from]!)[0]!, 0);
    means[name] = tensorOf("float32", [], [sum / results.length]);
  });
  const squares: number[] = [];
  graph.parameters.forEach(({ gradient }, i) => {
    if (gradient === undefined) return;
    const [own, ...others] = results.map((result) => result[part.parameters[i]!.gradient!]!) as [Tensor, ...Tensor[]];
    // Nobody else has seen what this run made.
    squares.push(toMean(floatsOf(own), others.map(floatsOf)));
    means[gradient] = own;
  });
  means[graph.squares] = tensorOf("float32", [squares.length], squares);
  return means;
}

/** Makes `own` the mean of itself and others, and answers the sum of its squares. */
function toMean(own: Float32Array, others: readonly Float32Array[]): number {
  const share = 1 / (others.length + 1);
  const [first, ...more] = others;
  for (const other of more) for (let i = 0; i < own.length; i++) own[i]! += other[i]!;
  let squares = 0;
  for (let i = 0; i < own.length; i++) {
    const mean = (own[i]! + first![i]!) * share;
    own[i] = mean;
    squares += mean * mean;
  }
  return squares;
}

/** What rounding alone changes, of the largest element of a gradient: a network that mixes samples changes more. */
const TOLERANCE = 1e-3;
/** The same, of the largest element of all: there are gradients that are nothing but what rounding left over. */
const TOLERANCE_OF_ALL = 1e-6;

function isSameStep({ loss, terms, parameters }: StepGraph, expected: Named, actual: Named): boolean {
  const compare = (name: string) => {
    const [a, b] = [floatsOf(expected[name]!), floatsOf(actual[name]!)];
    let [difference, largest] = [0, 0];
    for (let i = 0; i < a.length; i++) {
      difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
      largest = Math.max(largest, Math.abs(a[i]!));
    }
    return { difference, largest };
  };
  const losses = [loss, ...terms.map(({ output }) => output)].map(compare);
  const gradients = parameters.flatMap(({ gradient }) => gradient ?? []).map(compare);
  const all = Math.max(...gradients.map(({ largest }) => largest));
  return (
    losses.every(({ difference, largest }) => difference <= TOLERANCE * largest) &&
    gradients.every(({ difference, largest }) => difference <= TOLERANCE * largest + TOLERANCE_OF_ALL * all)
  );
}
