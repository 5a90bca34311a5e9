import {
  type CandidatePrediction,
  type Contender,
  CoreError,
  checkCancelled,
  type DroppedCode,
  openTrials,
  structureKey,
  type Trials,
} from "../../../../core/index.ts";

import { TaskError } from "../../../../tasks/protocol.ts";
import type { ProblemCode } from "../../../errors.ts";
import { metricOf } from "../../evaluation.ts";
import type { AnyTarget } from "../../quantize/targets.ts";
import type { Candidate } from "../candidates.ts";
import type { SearchedSpec } from "../trained.ts";
import { finalMs } from "./clock.ts";
import { type Measured, sqnrOf } from "./front.ts";
import { checkedFor, latencyThere, triedIn } from "./in-target.ts";
import { type Made, Maker, type MakerCall, type StaticBase } from "./make.ts";
import { isOpen } from "./order.ts";

/** Makes candidates and tries each on few samples. */

/** A candidate and what is known of it: all that a later attempt needs. */
export interface Tried {
  readonly name: string;
  readonly spec: SearchedSpec;
  readonly sha256: string | null;
  /** Equal for candidates that are the same model, whatever they were made by. */
  readonly content: string | null;
  /** Equal for candidates that differ in numbers alone, and so take the same time. */
  readonly structure: string | null;
  readonly stage: "planned" | "made" | "tried";
  readonly trial: Measured | null;
  /** How long it took to be made and tried, and to be loaded; null when it was not. */
  readonly ms: number;
  readonly loadMs: number | null;
  readonly dropped: {
    readonly stage: "planned" | "made" | "tried";
    readonly code: DroppedCode | ProblemCode;
    readonly message: string;
  } | null;
}

/** What it takes to load and run a model. */
interface Costs extends Pick<Measured, "latency" | "memory"> {
  readonly loadMs: number;
  /** Why the runtime of the target does not run it. */
  readonly failure: string | null;
}

/** Samples and timed rounds of a trial. */
const TRIAL_SAMPLES = 24;
const TRIAL_ROUNDS = 7;
/** In another runtime no round begins after this many milliseconds. */
const TRIAL_MS = 1500;
/** An output with more noise than that, relative to its power, is no answer. */
const HOPELESS_DB = 3;

export interface SearchCall extends MakerCall {
  readonly target: AnyTarget;
  readonly data: Parameters<typeof openTrials>[0]["data"];
}

export class Search {
  readonly #call: SearchCall;
  readonly #maker: Maker;
  readonly #made = new Map<string, Made>();
  readonly #byContent = new Map<string, string>();
  readonly #costs = new Map<string, Costs>();
  #trials: Trials | undefined;

  constructor(call: SearchCall) {
    this.#call = call;
    this.#maker = new Maker(call);
  }

  async close(): Promise<void> {
    await this.#trials?.close();
  }

  /** What an earlier attempt has tried. */
  recall(tried: Tried): void {
    const { content, name } = tried;
    if (content !== null) this.#byContent.set(content, name);
    this.#remember(tried);
  }

  /** What it costs to run a candidate, for those that cost the same. */
  #remember({ structure, trial, loadMs, dropped }: Tried): void {
    if (structure === null || trial === null || loadMs === null) return;
    if (dropped?.code === "target_does_not_run" || this.#costs.has(structure)) return;
    const { latency, memory } = trial;
    this.#costs.set(structure, { latency, memory, loadMs, failure: null });
  }

  /** Makes a candidate and tries it; `signal` ends it when the time for trials is over. Throws `cancelled` when the job was stopped. */
  async try(candidate: Candidate, signal: AbortSignal): Promise<Tried> {
    const { context } = this.#call;
    let { spec } = candidate;
    const { name } = candidate;
    const start = performance.now();
    const took = () => Math.round(performance.now() - start);
    let stage: Tried["stage"] = "planned";
    let sha256: string | null = null;
    let content: string | null = null;
    let structure: string | null = null;
    let trial: Measured | null = null;
    let loadMs: number | null = null;
    const dropped = (code: DroppedCode | ProblemCode, message: string): Tried => ({
      ...{ name, spec, sha256, content, structure, stage, trial, ms: took(), loadMs },
      dropped: { stage, code, message },
    });
    try {
      const found = await this.#make(name, spec, signal);
      spec = found.spec;
      const { made } = found;
      stage = "made";
      const model = this.#call.environment.files.openWrittenModel(made.files[0]!.path);
      structure = structureKey(model);
      sha256 = await this.#call.environment.files.sha256Of(made.files);
      content = this.#call.environment.files.contentSha256Of(made.files);
      const same = this.#byContent.get(content);
      if (same !== undefined) return dropped("same_as", `It is the same model as ${same}.`);
      if (content === this.#originalContent()) return dropped("unchanged", "It is the same model as the original.");
      this.#byContent.set(content, name);
      const unfit = checkedFor(this.#call.target, model)?.warnings[0];
      if (unfit) return dropped("target_rules_broken", unfit.message);
      const measured = await this.#measure(made, this.#costs.get(structure), signal);
      ({ trial, loadMs } = measured);
      stage = "tried";
      if (measured.failure !== null) return dropped("target_does_not_run", measured.failure);
    } catch (error) {
      if (context.signal.aborted || !(error instanceof CoreError || error instanceof TaskError)) throw error;
      if (error.code === "cancelled") return dropped("budget", "The time for trials was over before it was done.");
      return dropped(error.code, error.message);
    }
    const hopeless = whyHopeless(trial);
    const tried: Tried = hopeless
      ? dropped(hopeless.code, hopeless.message)
      : { name, spec, sha256, content, structure, stage, trial, ms: took(), loadMs, dropped: null };
    this.#remember(tried);
    return tried;
  }

  /** The files of a candidate: made anew when an earlier attempt has made them. */
  async filesOf({ name, spec }: Pick<Tried, "name" | "spec">): Promise<Made> {
    return this.#made.get(name) ?? (await this.#make(name, spec, this.#call.context.signal)).made;
  }

  /** What models are timed on. */
  async feeds(): Promise<Trials["feeds"]> {
    return (await this.#opened()).feeds;
  }

  /** What it takes to have a candidate in the final, in milliseconds, apart from running it. */
  finalMs({ name, ms, loadMs }: Tried): number {
    return finalMs(loadMs ?? ms, this.#made.has(name) ? 0 : ms);
  }

  /** What plain static quantization was made of; `plain` is its candidate, which is made again where an earlier attempt has made it. */
  async staticBase(plain: Candidate, signal: AbortSignal): Promise<StaticBase | undefined> {
    if (!this.#maker.base) await this.#make(plain.name, plain.spec, signal);
    return this.#maker.base;
  }

  async #make(name: string, spec: SearchedSpec, signal: AbortSignal) {
    const found = await this.#maker.make(name, spec, signal);
    this.#made.set(name, found.made);
    return found;
  }

  #originalContent(): string {
    const { request, environment } = this.#call;
    this.#original ??= environment.files.contentSha256Of(request.models[request.spec.model_id]!.files);
    return this.#original;
  }
  #original: string | undefined;

  /** `known`: what it costs to run a model that differs from it in numbers alone. */
  async #measure(
    made: Made,
    known: Costs | undefined,
    signal: AbortSignal,
  ): Promise<Pick<Costs, "loadMs" | "failure"> & { readonly trial: Measured }> {
    const { files: written, roundedPath } = made;
    const { reference } = this.#reference();
    const trials = await this.#opened();
    checkCancelled(signal);
    const bytes = this.#call.environment.files.sizeOf(written);
    const contender = { path: written[0]!.path, bytes, roundedPath };
    // First, because that is in a process of its own.
    const { latency, memory, loadMs, failure } = known ?? (await this.#costsOf(written, contender, signal));
    const size = { before_bytes: reference.bytes, after_bytes: bytes, ratio: bytes / reference.bytes };
    const { constraints } = this.#call.request.spec.params;
    const judgement = await trials.judge(contender, (it) => isOpen(it, constraints));
    return { trial: { size, latency, memory, ...judgement }, loadMs, failure };
  }

  async #costsOf(written: Made["files"], contender: Contender, signal: AbortSignal): Promise<Costs> {
    const { request, environment, target } = this.#call;
    const trials = await this.#opened();
    const { p50Ms, speedup, speedupInterval, rounds, peak, loadMs } = await trials.cost(contender);
    const there = await triedIn(
      {
        ...{ target, before: this.#reference().source, after: written, feeds: trials.feeds },
        ...{ runs: TRIAL_ROUNDS, maxMs: TRIAL_MS },
      },
      environment,
      signal,
    );
    const timing = (ms: number) => ({ p50_ms: ms, p90_ms: ms, mean_ms: ms });
    const { batch_size, threads } = request.spec.evaluation.latency;
    const latency = {
      ...{ before: timing(trials.referenceMs), after: timing(p50Ms), speedup, speedup_interval: speedupInterval },
      ...{ batch_size, threads, runs: rounds, cpu: environment.host.cpu },
    };
    return {
      latency: (there && latencyThere(there, latency)) ?? latency,
      memory: { before_peak_bytes: 0, after_peak_bytes: peak.peakBytes, baseline_bytes: peak.baselineBytes },
      ...{ loadMs, failure: there?.facts.failure ?? null },
    };
  }

  #reference() {
    const { request, environment } = this.#call;
    const source = request.models[request.spec.model_id]!.files;
    return { source, reference: { path: source[0]!.path, bytes: environment.files.sizeOf(source) } };
  }

  async #opened(): Promise<Trials> {
    const { request, environment, context, data } = this.#call;
    const { evaluation, params } = request.spec;
    const { openSession, measurePeak, threadClock } = environment;
    this.#trials ??= await openTrials({
      ...{ reference: this.#reference().reference, data, samples: TRIAL_SAMPLES, rounds: TRIAL_ROUNDS },
      spec: { ...evaluation, metric: data ? metricOf(evaluation) : null },
      ...{ seed: params.seed, openSession, measurePeak, threadClock, signal: context.signal },
    });
    return this.#trials;
  }
}

/** What cannot become good on more samples. */
function whyHopeless(trial: Measured): { code: DroppedCode; message: string } | undefined {
  const broken = trial.fidelity.outputs.find(({ non_finite }) => non_finite > 0);
  if (broken) {
    return {
      code: "non_finite",
      message: `The output "${broken.name}" is NaN or infinite where the original's is not.`,
    };
  }
  const sqnr = sqnrOf(trial);
  const { accuracy } = trial;
  const isLost = accuracy
    ? accuracy.drop > 0.5 * Math.abs(accuracy.before) && accuracy.samples >= 8
    : sqnr < HOPELESS_DB;
  if (isLost) {
    const drop = accuracy
      ? `${accuracy.metric} drops by ${accuracy.drop.toPrecision(3)}`
      : `its SQNR is ${sqnr.toFixed(1)} dB`;
    return { code: "hopeless", message: `On ${trial.fidelity.samples} samples ${drop}.` };
  }
  return undefined;
}

export function predictionOf(trial: Measured | null): CandidatePrediction | null {
  if (!trial) return null;
  const { size, fidelity, accuracy, latency } = trial;
  const sqnr = sqnrOf(trial);
  return {
    size_bytes: size.after_bytes,
    size_ratio: size.ratio,
    samples: fidelity.samples,
    sqnr_db: fidelity.outputs.every(({ sqnr_db }) => sqnr_db === null) ? null : sqnr,
    metric_drop: accuracy?.drop ?? null,
    speedup: latency.speedup,
  };
}
