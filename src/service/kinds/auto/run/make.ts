import {
  CALIBRATION_METHODS,
  type Calibration,
  calibrationFromBytes,
  inspectModel,
  type KernelFacts,
  type LayerPrecision,
  type Model,
  type Note,
  type StaticEvidence,
} from "../../../../core/index.ts";
import type { JobInputs, JobRequest, ProducedFile } from "../../../../tasks/protocol.ts";
import { canonicalJson } from "../../../identity.ts";
import { makeStudent } from "../../distill/run/distill-job.ts";
import type { DistillSpec } from "../../distill/spec.ts";
import { type PipelineSpec, stepSpec } from "../../pipeline/spec.ts";
import type { SingleSpec } from "../../pipeline/steps.ts";
import { CALIBRATION } from "../../quantize/cache-keys.ts";
import { makeQuantizedModel } from "../../quantize/run/quantize-job.ts";
import type { QuantizeSpec } from "../../quantize/spec.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import { writeRoundedForm } from "../../run/job-result.ts";
import type { JobContext } from "../../run/job-steps.ts";
import { withOrigin } from "../../run/origin.ts";
import type { AutoSpec } from "../spec.ts";
import type { SearchedSpec } from "../trained.ts";
import type { Findings } from "./findings.ts";

/** Makes the candidates of a search, each to the bytes that its job makes. What one finds out that others need as well is handed on. */

/** The files of a candidate that was made here. */
export interface Made {
  readonly files: readonly ProducedFile[];
  readonly roundedPath: string | undefined;
  readonly notes: readonly Note[];
}

/** A model that static quantization was made of, and what was found about it. */
export interface StaticBase {
  readonly float: Model;
  readonly calibration: Calibration;
  /** Microseconds by layer; empty where they were not measured. */
  readonly layers: KernelFacts["layers"];
}

export interface MakerCall {
  readonly request: JobRequest<AutoSpec>;
  readonly environment: JobEnvironment;
  readonly context: JobContext;
  readonly findings: Findings;
}

/** What was made, and the job that makes the same bytes again. */
interface Found<S extends SearchedSpec> {
  readonly spec: S;
  readonly made: Made;
}

export class Maker {
  readonly #call: MakerCall;
  #base: StaticBase | undefined;

  constructor(call: MakerCall) {
    this.#call = call;
  }

  /** What static quantization was made of, once there was one of the original. */
  get base(): StaticBase | undefined {
    return this.#base;
  }

  /** Makes a candidate. Its spec becomes one that makes the same bytes every time, on every machine. */
  async make(name: string, spec: SearchedSpec, signal: AbortSignal): Promise<Found<SearchedSpec>> {
    const { models } = this.#call.request;
    return spec.type === "pipeline"
      ? this.#makeInSteps(name, spec, signal)
      : this.#makeSingle(name, spec, models, signal);
  }

  #makeSingle(name: string, spec: SingleSpec, models: JobInputs["models"], signal: AbortSignal) {
    return spec.type === "quantize"
      ? this.#quantize(name, spec, models, signal)
      : this.#train(name, spec, models, signal);
  }

  /** Each step works on what the one before has made. */
  async #makeInSteps(name: string, spec: PipelineSpec, signal: AbortSignal): Promise<Found<PipelineSpec>> {
    const { files, openSession } = this.#call.environment;
    let models = this.#call.request.models;
    let fed = spec.model_id;
    let made: Made | undefined;
    const steps: PipelineSpec["params"]["steps"] = [];
    for (const [i, step] of spec.params.steps.entries()) {
      if (made) {
        const [{ path }] = made.files as [ProducedFile];
        const source = { path };
        const facts = await inspectModel(files.openWrittenModel(path), { openSession, source, dims: {}, signal });
        fed = await files.sha256Of(made.files);
        models = { ...models, [fed]: { files: made.files, facts } };
      }
      const own = await this.#makeSingle(`${name}/${step.name}`, stepSpec(spec, i, fed), models, signal);
      made = own.made;
      steps.push(own.spec.type === "quantize" ? ({ ...step, params: own.spec.params } as typeof step) : step);
    }
    return { spec: { ...spec, params: { steps } }, made: made! };
  }

  /** Trains a student, once for all candidates that are it or begin with it. */
  async #train(
    name: string,
    spec: DistillSpec,
    models: JobInputs["models"],
    signal: AbortSignal,
  ): Promise<Found<DistillSpec>> {
    const key = canonicalJson(spec.params);
    const known = this.#call.findings.students.get(key);
    if (known) return { spec, made: known };
    const { request, environment } = this.#call;
    const scratch = await environment.files.makeDirectory(`${request.scratch}/candidates/${name}`);
    const shared = this.#call.findings.sharedWith(spec);
    const own: JobRequest<DistillSpec> = { ...request, spec, models, scratch, checkpoints: {}, cached: shared.cached };
    const files = await makeStudent(own, environment, { signal, news: shared.news });
    await shared.keep();
    const model = environment.files.openWrittenModel(files[0]!.path);
    const roundedPath = await writeRoundedForm(model, scratch, "rounded.onnx", environment, signal);
    const made = { files, roundedPath, notes: [] };
    this.#call.findings.students.set(key, made);
    return { spec, made };
  }

  /**
   * Quantizes. Where it was measured which layers stay in float, for speed or for accuracy, the spec becomes one that names these layers, and so
   * makes the same bytes every time, on every machine.
   */
  async #quantize(
    name: string,
    spec: QuantizeSpec,
    models: JobInputs["models"],
    signal: AbortSignal,
    isResolved = false,
  ): Promise<Found<QuantizeSpec>> {
    const { request, environment } = this.#call;
    const scratch = await environment.files.makeDirectory(`${request.scratch}/candidates/${name}`);
    const shared = this.#call.findings.sharedWith(spec);
    const own: JobRequest<QuantizeSpec> = {
      ...request,
      ...{ spec, models, scratch, checkpoints: {} },
      cached: shared.cached,
    };
    const { written, notes, compressed } = await makeQuantizedModel(own, environment, { signal, news: shared.news });
    await shared.keep();
    const { evidence } = compressed;
    if (evidence && spec.model_id === request.spec.model_id)
      this.#base ??= this.#baseOf(compressed.reference, evidence, shared.keys[CALIBRATION]);
    const exact = evidence ? withLayers(spec, evidence) : spec;
    // Biases are corrected around layers that are known to be in float from the beginning: it is another model.
    if (evidence?.control && !isResolved) return this.#quantize(name, exact, models, signal, true);
    const model = environment.files.openWrittenModel(written[0]!.path);
    const files = exact === spec ? written : await this.#saying(model, { ...own, spec: exact }, signal);
    const roundedPath = await writeRoundedForm(model, scratch, "rounded.onnx", environment, signal);
    return { spec: exact, made: { files, roundedPath, notes } };
  }

  /** Files of the same model that say what makes it again: other parameters than it was made by. */
  async #saying(model: Model, own: JobRequest<QuantizeSpec>, signal: AbortSignal) {
    const { environment } = this.#call;
    const directory = await environment.files.makeDirectory(`${own.scratch}/named`);
    return environment.files.writeModel(await withOrigin(model, own, environment), directory, "model.onnx", { signal });
  }

  #baseOf(float: Model, { kernels }: StaticEvidence, key: string | undefined): StaticBase | undefined {
    const file = key === undefined ? undefined : this.#call.findings.get(key);
    if (!file) return undefined;
    const calibration = calibrationFromBytes(this.#call.environment.files.readBytes(file));
    return { float, calibration, layers: kernels?.layers ?? [] };
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
