import type { Dataset } from "../data/dataset.ts";
import { feedsFor } from "../data/fit.ts";
import { checkCancelled } from "../errors.ts";
import type { JobMetrics, OutputFacts } from "../facts.ts";
import { type Contestant, speedupInterval, timeInTurns, timingOf } from "../runtime/latency.ts";
import type { OpenSession, Session } from "../runtime/session.ts";
import {
  type Comparison,
  type Comparisons,
  compareAll,
  type Feeds,
  type Inputs,
  type OutputPair,
} from "./comparison.ts";
import { Field } from "./contest-field.ts";
import { type EvaluationSpec, MAX_COMPARED_MS, type MeasurePeak, type PeakMemory } from "./evaluate.ts";
import { evaluationInputs } from "./evaluation-inputs.ts";
import { comparisonWarnings, costWarnings } from "./warnings.ts";

/** Several models held against one: on the same inputs, and in the same rounds of timing. */

export interface Contender {
  readonly path: string;
  readonly bytes: number;
  /** The same model in the form that really rounds to float16, if it has one: what it answers is judged by that, its cost by `path`. */
  readonly roundedPath?: string | undefined;
  /** Its outputs and those of the reference that mean the same; all, by their names, unless given. */
  readonly pairs?: readonly OutputPair[] | undefined;
  /** What it needs at the first load, where that was measured before. */
  readonly peak?: PeakMemory | undefined;
}

/** What latency is measured at. */
export interface Load {
  readonly batch_size: number;
  readonly threads: number;
}

export interface ContestOptions {
  /** `outputs`: what is recorded of them, and so what their numbers are. */
  readonly reference: Contender & { readonly outputs?: readonly OutputFacts[] };
  readonly challengers: readonly Contender[];
  readonly data?:
    | { readonly dataset: Dataset; readonly kind: Exclude<JobMetrics["fidelity"]["data"], "synthetic"> }
    | undefined;
  readonly spec: EvaluationSpec;
  /** At least one; memory is measured at the first, as is what `latency` of a result says. */
  readonly loads: readonly Load[];
  readonly seed: number;
  /** Intra-operator threads, except while latency is measured. */
  readonly threads: number;
  readonly cpu: string;
  /** How long outputs are compared, and how long latency is measured at each load, by the clock; asked when that begins. */
  readonly limits?: { readonly compareMs: () => number; readonly latencyMs: () => number };
  /**
   * What this thread computes, in milliseconds: where it is given, loads of one thread are timed by it, several short runs as one. What else a machine does is then not
   * taken for the time of whichever model runs.
   */
  readonly threadClock?: (() => number) | undefined;
  readonly openSession: OpenSession;
  readonly measurePeak: MeasurePeak;
  /**
   * What an error means that comes of loading or running the challenger of that index. What is answered is thrown; undefined leaves the
   * challenger out. `cancelled` does not come here.
   */
  readonly onFailure: (index: number, error: unknown) => unknown;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (fraction: number, message: string) => void;
}

/** What was measured of one model against the reference. */
export interface Standing
  extends Pick<JobMetrics, "size" | "fidelity" | "accuracy" | "latency" | "memory" | "warnings"> {
  /** At each load, in their order; the first is `latency`. */
  readonly latencies: readonly JobMetrics["latency"][];
}

export interface Contest {
  readonly reference: Standing;
  /** Undefined for challengers that were left out. */
  readonly challengers: readonly (Standing | undefined)[];
  /** Of one run at the first load. */
  readonly inputShapes: Readonly<Record<string, readonly number[]>>;
  /** Of each model every measured run at the first load, in order, the reference first. */
  readonly latencySamplesMs: readonly (readonly number[])[];
}

/** Models of so many bytes are loaded side by side; more are measured in groups, each with the reference. */
const MAX_GROUP_BYTES = 2 ** 31;
const PEAK_RUNS = 2;

/** Where each phase of a group ends, as a fraction of the whole. */
const PROGRESS = { memory: 0.1, compare: 0.6, latency: 1 } as const;

/**
 * Measures all models. Throws `invalid_dataset` when the data cannot feed the reference, `invalid_params` when a metric has no labels or no
 * synthetic input is found, and what `onFailure` answers.
 */
export async function evaluateContest(options: ContestOptions): Promise<Contest> {
  const { challengers, onProgress } = options;
  const groups = groupsOf(options);
  const standings: (Standing | undefined)[] = challengers.map(() => undefined);
  let first: GroupResult | undefined;
  const samplesMs: (readonly number[])[] = challengers.map(() => []);
  for (const [i, group] of groups.entries()) {
    const result = await evaluateGroup(options, group, (fraction, message) =>
      onProgress?.((i + fraction) / groups.length, message),
    );
    first ??= result;
    for (const [place, index] of group.entries()) {
      standings[index] = result.challengers[place];
      samplesMs[index] = result.samplesMs[place + 1] ?? [];
    }
  }
  const { reference, inputShapes } = first!;
  return {
    reference,
    challengers: standings,
    inputShapes,
    latencySamplesMs: [first!.samplesMs[0]!, ...samplesMs],
  };
}

/** Indices of challengers that are measured together: at least one group, which may be empty. */
function groupsOf({ reference, challengers }: ContestOptions): readonly (readonly number[])[] {
  const groups: number[][] = [[]];
  let bytes = reference.bytes;
  for (const [index, challenger] of challengers.entries()) {
    if (bytes + challenger.bytes > MAX_GROUP_BYTES && groups.at(-1)!.length > 0) {
      groups.push([]);
      bytes = reference.bytes;
    }
    groups.at(-1)!.push(index);
    bytes += challenger.bytes;
  }
  return groups;
}

interface GroupResult {
  readonly reference: Standing;
  readonly challengers: readonly (Standing | undefined)[];
  readonly inputShapes: Contest["inputShapes"];
  /** At the first load: of the reference, then of each challenger; none of one that was left out. */
  readonly samplesMs: readonly (readonly number[] | undefined)[];
}

/** The reference and the challengers of these indices. */
async function evaluateGroup(
  options: ContestOptions,
  group: readonly number[],
  progress: (fraction: number, message: string) => void,
): Promise<GroupResult> {
  const { spec, openSession, threads, limits, signal } = options;
  const [main] = options.loads as [Load];
  const reference = await openSession({ path: options.reference.path }, { threads });
  const field = new Field(options, group);
  let inputs: Inputs;
  let compared: Comparisons;
  const peaks: PeakMemory[] = [];
  try {
    inputs = await inputsAt(options, main, reference);
    const peak = async (path: string) => {
      for await (const { feeds } of inputs.batches()) {
        return options.measurePeak({ modelPath: path, feeds, runs: PEAK_RUNS, threads: main.threads }, signal);
      }
      throw new Error("There is no batch.");
    };
    progress(0, "peak memory");
    peaks.push(await peak(options.reference.path));
    for (const [place, index] of group.entries()) {
      // In a process of its own: what crashes there does not crash here.
      const { path, peak: known } = options.challengers[index]!;
      const found = known ?? (await field.trying(place, () => peak(path)));
      if (found) peaks[place + 1] = found;
      progress(PROGRESS.memory * ((place + 1) / group.length), "peak memory");
    }
    await field.open(threads, true);
    compared = await compareAll(reference, field.challengers(), inputs, {
      outputs: options.reference.outputs,
      metric: spec.metric,
      ignoreLabel: spec.ignore_label ?? null,
      maxMs: spec.samples === null ? MAX_COMPARED_MS : undefined,
      totalMs: limits?.compareMs(),
      signal,
      onSamples: (samples) =>
        progress(
          PROGRESS.memory + (PROGRESS.compare - PROGRESS.memory) * (samples / inputs.samples),
          `fidelity: ${samples} of ${inputs.samples} samples`,
        ),
    });
  } finally {
    await reference.close();
    await field.close();
  }
  const times = await timeLoads(options, field, (fraction, message) =>
    progress(PROGRESS.compare + (PROGRESS.latency - PROGRESS.compare) * fraction, message),
  );
  const standing = (place: number, comparison: Comparison | undefined) =>
    standingOf(options, { place, index: group[place - 1], comparison, compared, inputs, times, peaks, reference });
  return {
    reference: standing(0, undefined),
    challengers: field
      .compared(compared)
      .map((comparison, i) => (comparison && !field.isOut(i) ? standing(i + 1, comparison) : undefined)),
    inputShapes: Object.fromEntries(Object.entries(times[0]!.feeds).map(([name, { dims }]) => [name, dims])),
    samplesMs: times[0]!.samplesMs,
  };
}

function inputsAt(options: ContestOptions, load: Load, reference: Session): Promise<Inputs> {
  const { spec } = options;
  const latency = { ...spec.latency, ...load };
  return evaluationInputs({ ...options, spec: { ...spec, latency } }, reference);
}

/** Times at one load. */
interface Times extends Load {
  /** Of the reference, then of each challenger of the group; undefined for one that was left out. */
  readonly samplesMs: readonly (readonly number[] | undefined)[];
  /** What the reference was fed. */
  readonly feeds: Feeds;
}

/** Times the reference and what is left of the group at every load, in turns. */
async function timeLoads(
  options: ContestOptions,
  field: Field,
  progress: (fraction: number, message: string) => void,
): Promise<readonly Times[]> {
  const { loads, spec, openSession, limits, signal } = options;
  const times: Times[] = [];
  for (const [i, load] of loads.entries()) {
    checkCancelled(signal);
    const reference = await openSession({ path: options.reference.path }, { threads: load.threads });
    try {
      await field.open(load.threads, false);
      const inputs = await inputsAt(options, load, reference);
      const { feeds } = (await inputs.batches()[Symbol.asyncIterator]().next()).value!;
      const fed = feedsFor(reference.inputs, feeds);
      const present = field.present();
      const contestants: Contestant[] = [
        { session: reference, feeds: fed },
        ...present.map(({ session }) => ({ session, feeds: feedsFor(session.inputs, feeds) })),
      ];
      const measured = await timeInTurns(contestants, {
        runs: spec.latency.runs,
        ...(limits && { maxMs: limits.latencyMs() }),
        ...{ signal, clock: load.threads === 1 ? options.threadClock : undefined },
        onProgress: (fraction) =>
          progress(
            (i + fraction) / loads.length,
            `latency at batch ${load.batch_size} and ${load.threads} threads: ${Math.round(fraction * spec.latency.runs)} of ${spec.latency.runs} rounds`,
          ),
      });
      const samplesMs: (readonly number[] | undefined)[] = [measured[0]];
      for (const [at, { place }] of present.entries()) samplesMs[place + 1] = measured[at + 1];
      times.push({ batch_size: inputs.batchSize, threads: load.threads, samplesMs, feeds: fed });
    } finally {
      await reference.close();
      await field.close();
    }
  }
  return times;
}

interface Seen {
  /** 0: the reference; else one more than the place in the group. */
  readonly place: number;
  readonly index: number | undefined;
  readonly comparison: Comparison | undefined;
  readonly compared: Comparisons;
  readonly inputs: Inputs;
  readonly times: readonly Times[];
  readonly peaks: readonly PeakMemory[];
  readonly reference: Session;
}

function standingOf(options: ContestOptions, seen: Seen): Standing {
  const { place, index, comparison, compared, inputs, times, peaks, reference } = seen;
  const after = index === undefined ? options.reference : options.challengers[index]!;
  const size = {
    before_bytes: options.reference.bytes,
    after_bytes: after.bytes,
    ratio: after.bytes / options.reference.bytes,
  };
  const latencies = times.map(({ samplesMs, batch_size, threads }) => {
    const [own, theirs] = [samplesMs[0]!, samplesMs[place]!];
    const [before, after] = [timingOf(own), timingOf(theirs)];
    return {
      ...{ before, after, speedup: before.p50_ms / after.p50_ms },
      speedup_interval: place === 0 ? ([1, 1] as const) : speedupInterval(own, theirs),
      ...{ batch_size, threads, runs: own.length, cpu: options.cpu },
    };
  });
  const fidelity = { samples: compared.samples, data: inputs.kind, outputs: comparison?.outputs ?? [] };
  const accuracy = place === 0 ? ownAccuracy(compared) : comparison!.accuracy;
  const [latency] = latencies as [JobMetrics["latency"]];
  const [before, peak] = [peaks[0]!, peaks[place]!];
  const samplesMs = { before: times[0]!.samplesMs[0]!, after: times[0]!.samplesMs[place]! };
  return {
    size,
    fidelity,
    accuracy,
    latency,
    latencies,
    memory: {
      before_peak_bytes: before.peakBytes,
      after_peak_bytes: peak.peakBytes,
      baseline_bytes: Math.min(before.baselineBytes, peak.baselineBytes),
    },
    warnings:
      place === 0
        ? []
        : [
            ...comparisonWarnings(reference.outputs, { outputs: fidelity.outputs, accuracy }, fidelity),
            ...costWarnings({ size, latency }, samplesMs),
          ],
  };
}

/** The reference against itself. */
function ownAccuracy({ score, samples }: Comparisons): JobMetrics["accuracy"] {
  if (!score) return null;
  const { metric, value, interval } = score;
  return {
    ...{ metric, before: value, after: value, drop: 0, samples },
    ...{ interval: [0, 0], before_interval: interval, after_interval: interval },
  };
}
