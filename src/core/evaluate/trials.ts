import type { Batch, Dataset } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import type { JobMetrics } from "../facts.ts";
import { speedupInterval, timeInTurns, timingOf } from "../runtime/latency.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import { brokenModel, compareAll, type Feeds, type Inputs } from "./comparison.ts";
import type { Contender } from "./contest.ts";
import type { EvaluationSpec, MeasurePeak, PeakMemory } from "./evaluate.ts";
import { evaluationInputs } from "./evaluation-inputs.ts";

/** Quick trials of many models against one, one after the other, on few samples: what the original answers on these is computed once. */

export interface TrialOptions {
  readonly reference: Contender;
  readonly data?: { readonly dataset: Dataset; readonly kind: "evaluation" | "calibration" } | undefined;
  readonly spec: EvaluationSpec;
  /** Samples of each trial, and the fewest rounds that are timed. */
  readonly samples: number;
  readonly rounds: number;
  readonly seed: number;
  readonly openSession: OpenSession;
  readonly measurePeak: MeasurePeak;
  /** What this thread computes, in milliseconds: models of one thread are timed by it where it is given, several short runs as one. */
  readonly threadClock?: (() => number) | undefined;
  readonly signal: AbortSignal;
}

/** What the answers of a model are like on few samples: an indication, not a measurement. */
export type TrialJudgement = Pick<JobMetrics, "fidelity" | "accuracy">;

/** What it takes to load and run a model: an indication, too. */
export interface TrialCost {
  readonly p50Ms: number;
  readonly speedup: number;
  readonly speedupInterval: readonly [number, number] | null;
  /** That were timed. */
  readonly rounds: number;
  readonly peak: PeakMemory;
  readonly loadMs: number;
}

export interface Trials {
  /** Median time of the original, as the last trial has measured it. */
  readonly referenceMs: number;
  /** What models are timed on: as the original takes it, and as it comes. */
  readonly feeds: { readonly before: Feeds; readonly after: Feeds };
  /** Runs a model in a process of its own first: what crashes there does not crash here. Throws `BrokenModel` for one that does not load or run. */
  cost(contender: Contender): Promise<TrialCost>;
  /** Where few samples leave it open, four times as many are taken, if there are more. Throws as `cost` does. */
  judge(contender: Contender, isOpen?: (judgement: TrialJudgement) => boolean): Promise<TrialJudgement>;
  close(): Promise<void>;
}

/** The first run allocates, the second shows whether that was all. */
const PEAK_RUNS = 2;
/** A trial's latency is measured for no longer than this. */
const MAX_LATENCY_MS = 1500;

/** Where a few rounds do not tell how fast a model is, so many times as many are made at most. */
const MORE_ROUNDS = 5;
/** Where few samples leave it open whether a limit is held, so many times as many are taken. */
const MORE_SAMPLES = 4;
/** What they tell: an interval no wider than this share of the speed. */
const TOLD_WITHIN = 0.06;

/** Whether after so many rounds, or as many again and again, the interval of the second's speed against the first is narrow. */
function isTold(rounds: number) {
  return ([own, theirs]: readonly (readonly number[])[]): boolean => {
    if (own!.length % rounds !== 0) return false;
    const [low, high] = speedupInterval(own!, theirs!) ?? [0, Number.POSITIVE_INFINITY];
    return high - low <= TOLD_WITHIN * low;
  };
}

/** Throws as `evaluateModels` does where the data do not fit. */
export async function openTrials(options: TrialOptions): Promise<Trials> {
  const { spec, openSession, measurePeak, signal } = options;
  const { threads } = spec.latency;
  const clock = threads === 1 ? options.threadClock : undefined;
  const session = await openSession({ path: options.reference.path }, { threads });
  try {
    const inputsOf = async (samples: number) => {
      const inputs = await evaluationInputs({ ...options, spec: { ...spec, samples } }, session);
      const batches: Batch[] = [];
      for await (const batch of inputs.batches()) batches.push(batch);
      return { batches, inputs: { ...inputs, batches: () => each(batches) } satisfies Inputs };
    };
    const few = await inputsOf(options.samples);
    let many: Promise<typeof few> | undefined;
    const reference = remembering(session);
    const { feeds } = few.batches[0]!;
    let referenceMs = Number.NaN;
    return {
      get referenceMs() {
        return referenceMs;
      },
      feeds: { before: feedsFor(session.inputs, feeds), after: feeds },
      async cost({ path }) {
        const peak = await measurePeak({ modelPath: path, feeds, runs: PEAK_RUNS, threads }, signal).catch((error) => {
          throw brokenModel(error, feeds);
        });
        const start = performance.now();
        const timed = await opened(openSession, path, threads, false);
        const loadMs = performance.now() - start;
        const [own, theirs] = await using(timed, () =>
          timeInTurns(
            [
              { session, feeds: feedsFor(session.inputs, feeds) },
              { session: timed, feeds: feedsFor(timed.inputs, feeds) },
            ],
            {
              runs: MORE_ROUNDS * options.rounds,
              maxMs: MAX_LATENCY_MS,
              signal,
              clock,
              isEnough: isTold(options.rounds),
            },
          ),
        );
        const [before, after] = [timingOf(own!), timingOf(theirs!)];
        referenceMs = before.p50_ms;
        const speedup = before.p50_ms / after.p50_ms;
        const interval = speedupInterval(own!, theirs!);
        return { p50Ms: after.p50_ms, speedup, speedupInterval: interval, rounds: own!.length, peak, loadMs };
      },
      async judge({ path, roundedPath, pairs }, isOpen = () => false) {
        const judged = await opened(openSession, roundedPath ?? path, threads, roundedPath !== undefined);
        const judgement = async ({ inputs }: typeof few): Promise<TrialJudgement> => {
          const compared = await compareAll(reference, [{ session: judged, pairs, onFailure: brokenModel }], inputs, {
            ...{ metric: spec.metric, ignoreLabel: spec.ignore_label ?? null, signal, onSamples: () => {} },
          });
          const { outputs, accuracy, samples } = compared.comparisons[0]!;
          return { fidelity: { samples, data: inputs.kind, outputs }, accuracy };
        };
        return using(judged, async () => {
          const first = await judgement(few);
          if (few.inputs.kind === "synthetic" || !isOpen(first)) return first;
          many ??= inputsOf(MORE_SAMPLES * options.samples);
          const more = await many;
          return more.inputs.samples > few.inputs.samples ? judgement(more) : first;
        });
      },
      close: () => session.close(),
    };
  } catch (error) {
    await session.close();
    throw error;
  }
}

async function* each(batches: readonly Batch[]): AsyncGenerator<Batch> {
  yield* batches;
}

/** A session that runs on each batch once. The same arrays are the same batch. */
function remembering(session: Session): Session {
  const answers = new Map<string, Promise<Record<string, Feeds[string]>>>();
  const ids = new Map<ArrayBufferLike, number>();
  const keyOf = (feeds: Feeds) =>
    Object.entries(feeds)
      .map(([name, { bytes }]) => {
        if (!ids.has(bytes.buffer)) ids.set(bytes.buffer, ids.size);
        return `${name}:${ids.get(bytes.buffer)}:${bytes.byteOffset}:${bytes.byteLength}`;
      })
      .join();
  return {
    inputs: session.inputs,
    outputs: session.outputs,
    run(feeds, outputs, signal) {
      const key = keyOf(feeds);
      const known = answers.get(key);
      if (known) return known;
      const answer = session.run(feeds, outputs, signal);
      answers.set(key, answer);
      return answer;
    },
    close: () => session.close(),
  };
}

async function opened(openSession: OpenSession, path: string, threads: number, rounds: boolean): Promise<Session> {
  try {
    return await openSession({ path }, { threads, ...(rounds && { optimization: "basic" }) });
  } catch (error) {
    throw brokenModel(error);
  }
}

async function using<T>(session: Session, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    await session.close();
  }
}
