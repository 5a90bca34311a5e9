import {
  CALIBRATION_METHODS,
  type Calibration,
  type CandidatePrediction,
  CoreError,
  calibrationFromBytes,
  checkCancelled,
  type DroppedCode,
  type KernelFacts,
  type LayerPrecision,
  type Model,
  type Note,
  openTrials,
  type StaticEvidence,
  type Trials,
} from "../../../../core/index.ts";
import type { JobRequest, LocalFile, ProducedFile } from "../../../../tasks/protocol.ts";
import { TaskError } from "../../../../tasks/protocol.ts";
import type { ProblemCode } from "../../../errors.ts";
import { metricOf } from "../../evaluation.ts";
import { cacheKeysOf } from "../../kinds.ts";
import { CALIBRATION } from "../../quantize/cache-keys.ts";
import { makeQuantizedModel } from "../../quantize/run/quantize-job.ts";
import type { QuantizeSpec } from "../../quantize/spec.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import { writeRoundedForm } from "../../run/job-result.ts";
import type { JobContext } from "../../run/job-steps.ts";
import { withOrigin } from "../../run/origin.ts";
import type { AutoSpec } from "../spec.ts";
import type { Candidate } from "./candidates.ts";
import { finalMs } from "./clock.ts";
import { type Measured, sqnrOf } from "./front.ts";

/** Makes candidates and tries each on few samples. What one finds out that others need as well is handed on. */

/** A candidate and what is known of it: all that a later attempt needs. */
export interface Tried {
  readonly name: string;
  readonly spec: QuantizeSpec;
  readonly sha256: string | null;
  /** Equal for candidates that are the same model, whatever they were made by. */
  readonly content: string | null;
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

/** The files of a candidate that was made here. */
export interface Made {
  readonly files: readonly ProducedFile[];
  readonly roundedPath: string | undefined;
  readonly notes: readonly Note[];
}

/** Samples and timed rounds of a trial. */
const TRIAL_SAMPLES = 24;
const TRIAL_ROUNDS = 7;
/** An output with more noise than that, relative to its power, is no answer. */
const HOPELESS_DB = 3;

/** A model that static quantization was made of, and what was found about it. */
export interface StaticBase {
  readonly float: Model;
  readonly calibration: Calibration;
  /** Microseconds by layer; empty where they were not measured. */
  readonly layers: KernelFacts["layers"];
}

export interface SearchCall {
  readonly request: JobRequest<AutoSpec>;
  readonly environment: JobEnvironment;
  readonly context: JobContext;
  readonly data: Parameters<typeof openTrials>[0]["data"];
}

export class Search {
  readonly #call: SearchCall;
  /** What candidates have found out that others need as well, by the keys under which jobs keep it. */
  readonly #found = new Map<string, LocalFile>();
  /** The keys of those that jobs outside of this search have use for, by name. */
  readonly #ownKeys: Readonly<Record<string, string>>;
  readonly #made = new Map<string, Made>();
  readonly #byContent = new Map<string, string>();
  #base: StaticBase | undefined;
  #trials: Trials | undefined;

  constructor(call: SearchCall) {
    this.#call = call;
    const { request, environment } = call;
    this.#ownKeys = cacheKeysOf(request.spec, environment.host);
    for (const [name, file] of Object.entries(request.cached)) {
      const key = this.#ownKeys[name];
      if (key !== undefined) this.#found.set(key, file);
    }
  }

  async close(): Promise<void> {
    await this.#trials?.close();
  }

  /** What an earlier attempt has tried. */
  recall({ content, name }: Tried): void {
    if (content !== null) this.#byContent.set(content, name);
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
    let trial: Measured | null = null;
    let loadMs: number | null = null;
    const dropped = (code: DroppedCode | ProblemCode, message: string): Tried => ({
      ...{ name, spec, sha256, content, stage, trial, ms: took(), loadMs },
      dropped: { stage, code, message },
    });
    try {
      const found = await this.#make(name, spec, signal);
      spec = found.spec;
      const { made } = found;
      stage = "made";
      sha256 = await this.#call.environment.files.sha256Of(made.files);
      content = this.#call.environment.files.contentSha256Of(made.files);
      const same = this.#byContent.get(content);
      if (same !== undefined) return dropped("same_as", `It is the same model as ${same}.`);
      if (content === this.#originalContent()) return dropped("unchanged", "It is the same model as the original.");
      this.#byContent.set(content, name);
      ({ trial, loadMs } = await this.#measure(made, signal));
      stage = "tried";
    } catch (error) {
      if (context.signal.aborted || !(error instanceof CoreError || error instanceof TaskError)) throw error;
      if (error.code === "cancelled") return dropped("budget", "The time for trials was over before it was done.");
      return dropped(error.code, error.message);
    }
    const hopeless = whyHopeless(trial);
    return hopeless
      ? dropped(hopeless.code, hopeless.message)
      : { name, spec, sha256, content, stage, trial, ms: took(), loadMs, dropped: null };
  }

  /** The files of a candidate: made anew when an earlier attempt has made them. */
  async filesOf({ name, spec }: Pick<Tried, "name" | "spec">): Promise<Made> {
    return this.#made.get(name) ?? (await this.#make(name, spec, this.#call.context.signal)).made;
  }

  /** What it takes to have a candidate in the final, in milliseconds, apart from running it. */
  finalMs({ name, ms, loadMs }: Tried): number {
    return finalMs(loadMs ?? ms, this.#made.has(name) ? 0 : ms);
  }

  /** What plain static quantization was made of; `plain` is its candidate, which is made again where an earlier attempt has made it. */
  async staticBase(plain: Candidate, signal: AbortSignal): Promise<StaticBase | undefined> {
    if (!this.#base) await this.#make(plain.name, plain.spec, signal);
    return this.#base;
  }

  #originalContent(): string {
    const { request, environment } = this.#call;
    this.#original ??= environment.files.contentSha256Of(request.models[request.spec.model_id]!.files);
    return this.#original;
  }
  #original: string | undefined;

  /**
   * Makes a candidate. Where it was measured which layers stay in float, for speed or for accuracy, the spec becomes one that names these layers, and so
   * makes the same bytes every time, on every machine.
   */
  async #make(
    name: string,
    spec: QuantizeSpec,
    signal: AbortSignal,
    isResolved = false,
  ): Promise<{ spec: QuantizeSpec; made: Made }> {
    const { request, environment, context } = this.#call;
    const scratch = await environment.files.makeDirectory(`${request.scratch}/candidates/${name}`);
    const keys = cacheKeysOf(spec, environment.host);
    const known = Object.entries(keys).flatMap(([found, key]) => {
      const file = this.#found.get(key);
      return file ? [[found, file] as const] : [];
    });
    const own: JobRequest<QuantizeSpec> = {
      ...request,
      spec,
      scratch,
      checkpoints: {},
      cached: Object.fromEntries(known),
    };
    const found: (readonly [key: string, file: LocalFile])[] = [];
    const { written, notes, compressed } = await makeQuantizedModel(own, environment, {
      signal,
      news: (it) => {
        const key = it.kind === "cache" ? keys[it.name] : undefined;
        if (it.kind === "cache" && key !== undefined) found.push([key, { name: it.name, path: it.path }]);
        if (it.kind === "log") context.news(it);
      },
    });
    for (const [key, file] of found) await this.#keep(key, file);
    const { evidence } = compressed;
    if (evidence) this.#base ??= this.#baseOf(compressed.reference, evidence, keys[CALIBRATION]);
    const exact = evidence ? withLayers(spec, evidence) : spec;
    // Biases are corrected around layers that are known to be in float from the beginning: it is another model.
    if (evidence?.control && !isResolved) return this.#make(name, exact, signal, true);
    const model = environment.files.openWrittenModel(written[0]!.path);
    const files = exact === spec ? written : await this.#saying(model, { ...own, spec: exact }, signal);
    const roundedPath = await writeRoundedForm(model, scratch, "rounded.onnx", environment, signal);
    const made = { files, roundedPath, notes };
    this.#made.set(name, made);
    return { spec: exact, made };
  }

  /** Keeps what a candidate has found for others, and tells of it where later jobs have use for it: of a copy, which is taken away. */
  async #keep(key: string, file: LocalFile): Promise<void> {
    const { request, environment, context } = this.#call;
    this.#found.set(key, file);
    if (this.#ownKeys[file.name] !== key) return;
    const bytes = environment.files.readBytes(file);
    const path = await environment.files.writeBytes(request.scratch, `${file.name}-${this.#kept++}.cache`, bytes);
    context.news({ kind: "cache", name: file.name, path });
  }
  #kept = 0;

  /** Files of the same model that say what makes it again: other parameters than it was made by. */
  async #saying(model: Model, own: JobRequest<QuantizeSpec>, signal: AbortSignal) {
    const { environment } = this.#call;
    const directory = await environment.files.makeDirectory(`${own.scratch}/named`);
    return environment.files.writeModel(await withOrigin(model, own, environment), directory, "model.onnx", { signal });
  }

  #baseOf(float: Model, { kernels }: StaticEvidence, key: string | undefined): StaticBase | undefined {
    const file = key === undefined ? undefined : this.#found.get(key);
    if (!file) return undefined;
    const calibration = calibrationFromBytes(this.#call.environment.files.readBytes(file));
    return { float, calibration, layers: kernels?.layers ?? [] };
  }

  async #measure(
    { files: written, roundedPath }: Made,
    signal: AbortSignal,
  ): Promise<{ readonly trial: Measured; readonly loadMs: number }> {
    const { request, environment, data } = this.#call;
    const { spec, models } = request;
    const { files, openSession, measurePeak, host } = environment;
    const source = models[spec.model_id]!.files;
    const reference = { path: source[0]!.path, bytes: files.sizeOf(source) };
    const evaluation = { ...spec.evaluation, metric: data ? metricOf(spec.evaluation) : null };
    this.#trials ??= await openTrials({
      ...{ reference, data, spec: evaluation, samples: TRIAL_SAMPLES, rounds: TRIAL_ROUNDS },
      ...{ seed: spec.params.seed, openSession, measurePeak, signal: this.#call.context.signal },
    });
    checkCancelled(signal);
    const bytes = files.sizeOf(written);
    const { fidelity, accuracy, p50Ms, speedup, speedupInterval, peak, loadMs } = await this.#trials.run({
      ...{ path: written[0]!.path, bytes, roundedPath },
    });
    const timing = (ms: number) => ({ p50_ms: ms, p90_ms: ms, mean_ms: ms });
    const { batch_size, threads } = spec.evaluation.latency;
    const trial: Measured = {
      size: { before_bytes: reference.bytes, after_bytes: bytes, ratio: bytes / reference.bytes },
      ...{ fidelity, accuracy },
      latency: {
        ...{
          before: timing(this.#trials.referenceMs),
          after: timing(p50Ms),
          speedup,
          speedup_interval: speedupInterval,
        },
        ...{ batch_size, threads, runs: TRIAL_ROUNDS, cpu: host.cpu },
      },
      memory: { before_peak_bytes: 0, after_peak_bytes: peak.peakBytes, baseline_bytes: peak.baselineBytes },
    };
    return { trial, loadMs };
  }
}

/** The same, with the layers named that were found to stay in float instead of looked for, and the way of calibration that was found with them. */
function withLayers(spec: QuantizeSpec, { kernels, control, calibration }: StaticEvidence): QuantizeSpec {
  const { params } = spec;
  if (params.method !== "static" || (!kernels && !control)) return spec;
  const kept = control?.trials.find(({ chosen }) => chosen)?.float_nodes ?? [];
  const named = (nodes: readonly string[], precision: LayerPrecision) =>
    nodes.map((node) => [node, precision] as const);
  const layers = Object.fromEntries([
    ...named(kernels?.nodes ?? [], "int8_weights"),
    ...named(kept, "float32"),
    ...named(control?.stored_nodes ?? [], "int8_weights"),
    ...Object.entries(params.layers),
  ]);
  const method = CALIBRATION_METHODS.find((known) => known === calibration.method) ?? params.calibration;
  const settled = control ? { calibration: method, max_metric_drop: null, min_sqnr_db: null } : {};
  return { ...spec, params: { ...params, ...settled, layers, ...(kernels && { float_where_slower: false }) } };
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
