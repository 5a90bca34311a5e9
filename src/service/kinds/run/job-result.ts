import {
  type ExitFacts,
  evaluateModels,
  inspectModel,
  type JobMetrics,
  labelsByName,
  type Model,
  type ModelFacts,
  modelWarnings,
  type Note,
  type QuantizationPlan,
  roundedForm,
  type StaticEvidence,
  simulationWarnings,
  type TrainingMetrics,
  valueFacts,
  weightFacts,
} from "../../../core/index.ts";
import { renderReport } from "../../../report/html.ts";
import { buildReport } from "../../../report/report.ts";
import type { JobOutcome, JobRequest, LocalFile, ProducedFile } from "../../../tasks/protocol.ts";
import { toldOf } from "../../jobs/job.ts";
import { metricOf } from "../evaluation.ts";
import { kindOf } from "../kinds.ts";
import { requestOf } from "../requests.ts";
import type { JobEnvironment } from "./job-environment.ts";
import type { JobContext, JobSteps } from "./job-steps.ts";
import { type Continuations, nextSteps } from "./next-steps.ts";
import type { Remedy } from "./remedies.ts";

type Evaluation = Awaited<ReturnType<typeof evaluateModels>>;

type Judgement = Parameters<typeof evaluateModels>[0];

/** What a job has made, and what it is to be held against. */
export interface MadeModel {
  readonly original: { readonly files: readonly LocalFile[]; readonly facts: ModelFacts };
  readonly model: Model;
  readonly written: readonly ProducedFile[];
  /** What was said of nodes: the coverage, and what was done before. */
  readonly notes: readonly Note[];
  readonly simplified: readonly Note[];
  readonly data?: Judgement["data"];
  /** The label of what has none, in `data`. */
  readonly ignoreLabel: number | null;
  /** What users have to know besides what is measured. */
  readonly warnings?: JobMetrics["warnings"] | undefined;
  readonly pairs?: Judgement["pairs"];
  readonly layerReference?: Judgement["layerReference"];
  readonly plan?: QuantizationPlan;
  readonly evidence?: StaticEvidence | undefined;
  readonly remedies?: readonly Remedy[];
  readonly next: Continuations;
  readonly training?: TrainingMetrics;
  readonly exits?: readonly ExitFacts[] | null;
  /** Further files that become artifacts. */
  readonly more?: readonly ProducedFile[];
  /** What its target makes of it, where that is another runtime than this one. */
  readonly deployed?: ((measured: Evaluation) => Promise<JobMetrics>) | undefined;
}

/** The last two steps of every job: `evaluate`, with this message, and `report`. */
export async function judgeResult(
  request: JobRequest,
  made: MadeModel,
  message: string,
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<"evaluate" | "report">,
): Promise<JobOutcome> {
  const { spec, scratch, threads } = request;
  const { files, host, openSession, measurePeak } = environment;
  const { original, model, written } = made;
  const roundedPath = await writeRounded(made, scratch, environment, signal);
  const measured = await steps.run("evaluate", message, () =>
    evaluateModels({
      before: { path: original.files[0]!.path, bytes: files.sizeOf(original.files), outputs: original.facts.outputs },
      after: { path: written[0]!.path, bytes: files.sizeOf(written), roundedPath },
      data: made.data,
      pairs: made.pairs,
      warnings: [...modelWarnings(original.facts), ...(made.warnings ?? [])],
      spec: { ...spec.evaluation, metric: metricOf(spec.evaluation), ignore_label: made.ignoreLabel },
      acceptance: spec.acceptance,
      notes: made.notes,
      remedies: made.remedies?.map(({ text }) => text),
      labels: labelsByName(model),
      seed: kindOf(spec).seedOf(spec),
      threads,
      host,
      openSession,
      measurePeak,
      layerReference: made.layerReference,
      readModel: files.openWrittenModel,
      scratchPath: `${scratch}/optimized.onnx`,
      signal,
      onProgress: (done, message) => steps.progress("evaluate", done, message),
    }),
  );
  const own = made.deployed ? await made.deployed(measured) : measured.metrics;
  const accepted = measured.accepted && own.acceptance.every(({ ok }) => ok);
  return steps.run("report", "Writing the report", async () => {
    const after = await inspectModel(model, { openSession, source: { path: written[0]!.path }, dims: {}, signal });
    const kind = kindOf(spec);
    const { training = null, exits = null } = made;
    const { accuracy, warnings } = own;
    // What a job trains that is no distillation is a simulation of what it makes.
    const simulated = kind.heldAgainst(spec) === "original" && training ? simulationWarnings(training, accuracy) : [];
    const metrics = { ...own, training, exits, warnings: [...warnings, ...simulated] };
    const compared = kind.comparedModelId(spec);
    const source = request.models[compared];
    const report = buildReport({
      createdAt: new Date(),
      job: { id: request.job_id, ...spec },
      title: kind.title(spec),
      heldAgainst: kind.heldAgainst(spec),
      origins: {
        before: { id: compared, name: source?.name ?? null, sha256: source?.sha256 ?? null },
        after: { id: null, name: written[0]!.name, sha256: await files.sha256Of(written) },
      },
      request: requestOf(spec),
      next: nextSteps(spec, { metrics, layerErrors: measured.layerErrors, facts: original.facts }, made.next),
      evaluation: { ...measured, metrics, accepted },
      models: { before: original.facts, after },
      notes: [...made.simplified, ...made.notes],
      quantization: made.evidence,
      plan: made.plan && { weights: weightFacts(made.plan), values: valueFacts(made.plan) },
      steps: request.steps.map(toldOf),
      timingsMs: steps.timingsMs,
    });
    return {
      model: written,
      reports: [
        ...(made.more ?? []),
        await files.writeText(scratch, "report.json", "application/json", `${JSON.stringify(report, null, 2)}\n`),
        await files.writeText(scratch, "report.html", "text/html; charset=utf-8", await renderReport(report)),
      ],
      facts: after,
      metrics,
      accepted,
    };
  });
}

/** There is no form that rounds where the original computes in float16: that would have to be rounded too. */
async function writeRounded(
  { written, original }: Pick<MadeModel, "written" | "original">,
  scratch: string,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { files } = environment;
  if (roundedForm(files.openModel(original.files))) return undefined;
  const model = files.openWrittenModel(written[0]!.path);
  return writeRoundedForm(model, scratch, "rounded.onnx", environment, signal);
}

/** Writes the form of a model that really rounds to float16, and answers where it is; undefined for a model without float16. */
export async function writeRoundedForm(
  model: Model,
  scratch: string,
  name: string,
  { files }: JobEnvironment,
  signal: AbortSignal,
): Promise<string | undefined> {
  const rounded = roundedForm(model);
  if (!rounded) return undefined;
  const [main] = await files.writeModel(rounded, scratch, name, { signal });
  return main!.path;
}
