import type { Batch } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import { CoreError } from "../errors.ts";
import type { JobMetrics, OutputFacts, OutputFidelity, ValueFacts } from "../facts.ts";
import { bootstrap, differenceOf, type Interval, independentTrials, wilson } from "../intervals.ts";
import { type Tensor, tensor, withoutUnitAxes } from "../onnx/tensor.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import { type Faults, FidelityMeter, isComparable } from "./fidelity.ts";
import {
  countedValue,
  defaultMetric,
  METRICS,
  type MetricName,
  outputFor,
  type SampledMeter,
  scoreOf,
} from "./metrics.ts";

export type Feeds = Readonly<Record<string, Tensor>>;

/** The original and the compressed model, both loaded. */
export interface Pair {
  readonly before: Session;
  readonly after: Session;
  /** May be called twice. */
  close(): Promise<void>;
}

/**
 * Loads both models, or the compressed one beside an original that is `loaded`. In the form that `rounds` the compressed one is not fused:
 * onnxruntime 1.30 does not survive all fusions across Casts. Throws `BrokenModel` when the compressed one does not load.
 */
export async function openPair(
  openSession: OpenSession,
  paths: { readonly before: string; readonly after: string },
  threads: number,
  loaded?: Session,
  rounds = false,
): Promise<Pair> {
  const original = loaded ?? (await openSession({ path: paths.before }, { threads }));
  let compressed: Session;
  try {
    compressed = await openSession({ path: paths.after }, { threads, ...(rounds && { optimization: "basic" }) });
  } catch (error) {
    await original.close();
    throw brokenModel(error);
  }
  let isOpen = true;
  return {
    before: original,
    after: compressed,
    async close() {
      if (!isOpen) return;
      isOpen = false;
      await original.close();
      await compressed.close();
    },
  };
}

/**
 * What a method has made does not load, does not run, or ends the process that it runs in. That is a defect of the method, whatever
 * onnxruntime blames.
 */
export class BrokenModel extends CoreError {
  /** What onnxruntime says of it. */
  readonly reason: string;
  /** Arrays of the batch that it was run on. */
  readonly feeds: Feeds | undefined;

  /** `subject`: the node at fault, where it is known. */
  constructor(reason: string, subject?: string, options: ErrorOptions & { readonly feeds?: Feeds } = {}) {
    const message = `The compressed model does not run. That is a fault of the compression, not of the model. ${reason}`;
    super("internal", message, subject, options);
    this.reason = reason;
    this.feeds = options.feeds;
  }
}

/** What an error means that came of loading or running a compressed model. */
export function brokenModel(error: unknown, feeds?: Feeds): unknown {
  if (!(error instanceof CoreError) || error.code === "cancelled" || error.code === "limit_exceeded") return error;
  const reason = error instanceof BrokenModel ? error.reason : error.message;
  return new BrokenModel(reason, error.subject, { cause: error, ...(feeds && { feeds }) });
}

/** Where the inputs of all runs come from. */
export interface Inputs {
  readonly kind: JobMetrics["fidelity"]["data"];
  readonly batchSize: number;
  /** Samples that will be run. */
  readonly samples: number;
  batches(): AsyncIterable<Batch>;
}

/** What the runs of both models have shown. */
export interface Comparison {
  /** Samples that were run: fewer than there are when time ran out. */
  readonly samples: number;
  readonly outputs: readonly OutputFidelity[];
  /** By the names of outputs. */
  readonly faults: ReadonlyMap<string, Faults>;
  readonly accuracy: JobMetrics["accuracy"];
  /** What each model was fed in the first run: a whole batch. */
  readonly firstFeeds: { readonly before: Feeds; readonly after: Feeds };
}

/** An output of the original and the one that it is compared with. */
export interface OutputPair {
  readonly before: string;
  readonly after: string;
}

export interface CompareOptions {
  /** Null: `top1` for integer labels, `mse` for others, where they fit an output; else none. */
  readonly metric: MetricName | null;
  /** The label of what has none. */
  readonly ignoreLabel: number | null;
  /** All outputs, by their names, unless given. */
  readonly pairs?: readonly OutputPair[] | undefined;
  /** What is recorded of the original's outputs: what their numbers are. */
  readonly outputs?: readonly OutputFacts[] | undefined;
  /** No batch begins when one of the models has run for so long; the first one always does. */
  readonly maxMs?: number | undefined;
  /** The same for all models together, and what is between their runs. */
  readonly totalMs?: number | undefined;
  readonly onSamples: (samples: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** A model that is held against the original. */
export interface Challenger {
  readonly session: Session;
  /** All outputs, by their names, unless given. */
  readonly pairs?: readonly OutputPair[] | undefined;
  /** What an error means that comes of running it. What is answered is thrown; undefined leaves the model out from then on. */
  readonly onFailure: (error: unknown) => unknown;
}

/** Runs both models on every batch. */
export async function compare(pair: Pair, inputs: Inputs, options: CompareOptions): Promise<Comparison> {
  const challenger = { session: pair.after, pairs: options.pairs, onFailure: (error: unknown) => brokenModel(error) };
  const { comparisons } = await compareAll(pair.before, [challenger], inputs, options);
  return comparisons[0]!;
}

/** What the original is by itself, and what each challenger is against it: undefined for one that was left out on the way. */
export interface Comparisons {
  /** Samples that were run: fewer than there are when time ran out. */
  readonly samples: number;
  /** Of the original alone, with its interval at 95 %; null without labels that fit an output. */
  readonly score: { readonly metric: MetricName; readonly value: number; readonly interval: Interval | null } | null;
  /** What the original was fed in the first run. */
  readonly firstFeeds: Feeds;
  readonly comparisons: readonly (Comparison | undefined)[];
}

/** Runs the original and all challengers on every batch. */
export async function compareAll(
  original: Session,
  challengers: readonly Challenger[],
  inputs: Inputs,
  options: Omit<CompareOptions, "pairs">,
): Promise<Comparisons> {
  const { maxMs = Number.POSITIVE_INFINITY, totalMs = Number.POSITIVE_INFINITY, signal, onSamples } = options;
  const start = performance.now();
  const trials = challengers.map((challenger) => new Trial(original, challenger, options));
  const clock = new Map<Session, number>();
  const timed = async <T>(session: Session, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    clock.set(session, (clock.get(session) ?? 0) + performance.now() - start);
    return result;
  };
  let score: AccuracyMeter | undefined;
  let firstFeeds: Feeds | undefined;
  let done = 0;
  for await (const batch of inputs.batches()) {
    if (done > 0 && (Math.max(...clock.values()) >= maxMs || performance.now() - start >= totalMs)) break;
    const feeds = feedsFor(original.inputs, batch.feeds);
    const before = await timed(original, () => runOriginal(original, feeds, inputs.kind, signal));
    if (!firstFeeds) score = batch.labels && accuracyMeter(options.metric, before, batch.labels, options.ignoreLabel);
    if (score && batch.labels) score.add(before, before, batch.labels);
    firstFeeds ??= feeds;
    for (const trial of trials) {
      if (!trial.failed) await timed(trial.challenger.session, () => trial.add(batch, feeds, before, signal));
    }
    done += batch.count;
    onSamples(done);
  }
  const own = score?.result(done);
  return {
    samples: done,
    score: own ? { metric: own.metric, value: own.before, interval: own.before_interval } : null,
    firstFeeds: firstFeeds!,
    comparisons: trials.map((trial) => (trial.failed ? undefined : trial.result(done))),
  };
}

/** What one challenger has shown so far. */
class Trial {
  readonly challenger: Challenger;
  failed = false;
  readonly #options: Omit<CompareOptions, "pairs">;
  readonly #nameAfter: ReadonlyMap<string, string> | undefined;
  readonly #outputs: readonly ValueFacts[];
  readonly #meters: readonly FidelityMeter[];
  #accuracy: AccuracyMeter | undefined;
  #firstFeeds: Comparison["firstFeeds"] | undefined;

  constructor(original: Session, challenger: Challenger, options: Omit<CompareOptions, "pairs">) {
    const { pairs } = challenger;
    this.challenger = challenger;
    this.#options = options;
    this.#nameAfter = pairs && new Map(pairs.map(({ before, after }) => [before, after]));
    const isNamed = (output: ValueFacts) => this.#nameAfter?.has(output.name) ?? true;
    this.#outputs = original.outputs.filter((output) => isComparable(output) && isNamed(output));
    const meaningOf = (name: string) => options.outputs?.find((output) => output.name === name)?.meaning;
    this.#meters = this.#outputs.map((output) => {
      const meaning = meaningOf(output.name);
      return new FidelityMeter({ ...output, ...(meaning && { meaning }) }, this.#outputs.length === 1);
    });
  }

  async add(batch: Batch, fedBefore: Feeds, before: Feeds, signal: AbortSignal | undefined): Promise<void> {
    const { session, onFailure } = this.challenger;
    const fed = feedsFor(session.inputs, batch.feeds);
    let results: Feeds;
    try {
      results = await session.run(fed, undefined, signal);
    } catch (error) {
      const failure = onFailure(error);
      if (failure !== undefined) throw failure;
      this.failed = true;
      return;
    }
    const after = this.#nameAfter ? renamed(results, this.#nameAfter, before) : results;
    for (const [i, { name }] of this.#outputs.entries()) {
      const candidate = after[name];
      if (!candidate) throw new CoreError("internal", `The compressed model has lost the output "${name}".`, name);
      this.#meters[i]!.add(before[name]!, candidate);
    }
    const { metric, ignoreLabel } = this.#options;
    if (!this.#firstFeeds) this.#accuracy = batch.labels && accuracyMeter(metric, before, batch.labels, ignoreLabel);
    if (this.#accuracy && batch.labels) this.#accuracy.add(before, after, batch.labels);
    this.#firstFeeds ??= { before: fedBefore, after: fed };
  }

  /** `samples`: how many batches had, all together. */
  result(samples: number): Comparison {
    return {
      samples,
      outputs: this.#meters.map((meter) => meter.result()),
      faults: new Map(this.#outputs.map(({ name }, i) => [name, this.#meters[i]!.faults()])),
      accuracy: this.#accuracy?.result(samples) ?? null,
      firstFeeds: this.#firstFeeds!,
    };
  }
}

/** Results under the names that they have in the original, and in its shapes where only axes of one differ, as losses pair them. */
function renamed(results: Feeds, nameAfter: ReadonlyMap<string, string>, original: Feeds): Record<string, Tensor> {
  const found = [...nameAfter].flatMap(([before, after]) => {
    const [own, theirs] = [results[after], original[before]?.dims];
    if (!own) return [];
    const isSame = theirs !== undefined && `${withoutUnitAxes(own.dims)}` === `${withoutUnitAxes(theirs)}`;
    return [[before, isSame ? tensor(own.dtype, theirs, own.bytes) : own] as const];
  });
  return Object.fromEntries(found);
}

/** Throws `invalid_params` or `invalid_dataset`, by where the input is from, when the original does not run on it. */
export async function runOriginal(
  session: Session,
  feeds: Feeds,
  kind: Inputs["kind"],
  signal: AbortSignal | undefined,
): Promise<Record<string, Tensor>> {
  try {
    return await session.run(feeds, undefined, signal);
  } catch (error) {
    // The model has been loaded, and runs on other inputs: these are what it cannot take.
    if (!(error instanceof CoreError) || error.code !== "invalid_model") throw error;
    const message = `The original model cannot run on the ${kind} data. ${error.message}`;
    throw new CoreError(kind === "synthetic" ? "invalid_params" : "invalid_dataset", message, error.subject, {
      cause: error,
    });
  }
}

interface AccuracyMeter {
  add(before: Feeds, after: Feeds, labels: Tensor): void;
  result(samples: number): NonNullable<JobMetrics["accuracy"]>;
}

/** The meter of the metric asked for, or of the one that suggests itself; undefined when none does. */
function accuracyMeter(
  asked: MetricName | null,
  outputs: Feeds,
  labels: Tensor,
  ignoreLabel: number | null,
): AccuracyMeter | undefined {
  const metric = asked ?? defaultMetric(labels, Object.values(outputs));
  const output = outputFor(metric, outputs, labels);
  if (output === undefined) {
    if (asked === null) return undefined;
    throw new CoreError(
      "invalid_dataset",
      `The metric ${asked} wants ${METRICS[asked].wants}; labels of ${labels.dtype} [${labels.dims}] fit no output of the model.`,
      "labels",
    );
  }
  const before = METRICS[metric].start(ignoreLabel);
  const after = METRICS[metric].start(ignoreLabel);
  return {
    add(original, compressed, labels) {
      before.add(original[output]!, labels);
      after.add(compressed[output]!, labels);
    },
    result(samples) {
      const values = { before: countedValue(before), after: countedValue(after) };
      const drop = scoreOf(metric, values.before) - scoreOf(metric, values.after);
      return {
        metric,
        ...values,
        drop,
        samples,
        interval: dropInterval(metric, before, after) ?? null,
        before_interval: intervalOf(before) ?? null,
        after_interval: intervalOf(after) ?? null,
      };
    },
  };
}

/** Of a metric, at 95 %; undefined for a single sample whose positions depend on each other. */
function intervalOf(meter: SampledMeter): Interval | undefined {
  const trials = independentTrials(meter);
  if (trials)
    return wilson(
      trials.reduce((sum, hit) => sum + hit, 0),
      trials.length,
    );
  return bootstrap(meter.samples, (weights) => meter.resampled(weights));
}

/** Of how much lower the second scores, on the same samples. */
function dropInterval(metric: MetricName, before: SampledMeter, after: SampledMeter): Interval | undefined {
  return METRICS[metric].better === "higher" ? differenceOf(before, after) : differenceOf(after, before);
}

/**
 * Throws where the compressed model gives what no rounding explains: `non_finite` for NaN or infinity where the original gives finite
 * numbers, `internal` for an output of another shape, unless `mayVary` says that rounding may change it.
 */
export function requireSameKind(
  { faults }: Comparison,
  mayVary: (output: string, shapes: NonNullable<Faults["shapes"]>) => boolean,
): void {
  for (const [name, { elements, overflowed, shapes }] of faults) {
    if (shapes && !mayVary(name, shapes)) {
      throw new CoreError(
        "internal",
        `The compressed model gives the output "${name}" the shape [${shapes.after}] where the original gives [${shapes.before}] ` +
          `(in ${shapes.runs} runs). That is a fault of the compression, not of the model. Another method, or exclude_nodes with the ` +
          "nodes that the output is computed by, may avoid it.",
        name,
      );
    }
    if (overflowed > 0) {
      throw new CoreError(
        "non_finite",
        `The compressed model gives NaN or infinity for ${overflowed} of ${elements} elements of the output "${name}" where the ` +
          "original gives finite numbers. Values leave the range of the compressed types: exclude the nodes that compute them " +
          "(exclude_nodes, exclude_ops), or choose another method.",
        name,
      );
    }
  }
}
