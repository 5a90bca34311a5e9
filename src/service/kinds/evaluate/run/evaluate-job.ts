import {
  auditedCoverage,
  BrokenModel,
  CoreError,
  checkAcceptance,
  completeNotes,
  type EvaluatedModel,
  evaluateContest,
  type JobMetrics,
  type Load,
  type ModelFacts,
  modelWarnings,
  pairOutputs,
  type Standing,
} from "../../../../core/index.ts";
import { renderReport } from "../../../../report/html.ts";
import { buildReport } from "../../../../report/report.ts";
import type { EvaluatePlan, JobInputs, JobOutcome, JobRequest } from "../../../../tasks/protocol.ts";
import { metricOf } from "../../evaluation.ts";
import { dataWarnings, labelUse, withLabelUse } from "../../label-use.ts";
import { requestOf } from "../../requests.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import { writeRoundedForm } from "../../run/job-result.ts";
import type { JobRun } from "../../run/job-run.ts";
import { createJobSteps, type JobContext } from "../../run/job-steps.ts";
import { nextSteps } from "../../run/next-steps.ts";
import { EVALUATE, type EvaluateSpec, labelTaskOf } from "../spec.ts";
import { afterEvaluation } from "./next-steps.ts";

export const EVALUATE_RUN: JobRun<EvaluateSpec> = { plan: planEvaluateJob, run: runEvaluateJob };

/** What would be measured. Models are loaded, so that one that does not load is found now. */
async function planEvaluateJob(
  { spec, models }: JobInputs<EvaluateSpec>,
  { files, openSession }: JobEnvironment,
  { signal }: JobContext,
): Promise<EvaluatePlan> {
  for (const id of spec.params.model_ids) {
    signal.throwIfAborted();
    const session = await loading(id, () => openSession({ path: models[id]!.files[0]!.path }));
    await session.close();
  }
  return {
    type: "evaluate",
    models: spec.params.model_ids.map((id) => {
      const { files: own, facts } = models[id]!;
      return { model_id: id, size_bytes: files.sizeOf(own), parameters: facts.parameters };
    }),
    loads: loadsOf(spec),
  };
}

/** Measures the models of the job, the first by itself and the others against it, and writes a report. No model is made. */
async function runEvaluateJob(
  request: JobRequest<EvaluateSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec, scratch, threads } = request;
  const { files, host, openSession, measurePeak } = environment;
  const { signal } = context;
  const steps = createJobSteps({ load: 0, evaluate: 0.02, report: 0.98 }, context);
  const ids = spec.params.model_ids;
  const models = ids.map((id) => request.models[id]!);
  const contenders = await steps.run("load", "Reading the models", () =>
    Promise.all(
      models.map(async ({ files: own, facts }, i) => ({
        path: own[0]!.path,
        bytes: files.sizeOf(own),
        // The reference is what it is; of the others it shows what float16 really loses, which this processor may not compute.
        roundedPath:
          i === 0
            ? undefined
            : await writeRoundedForm(files.openModel(own), scratch, `rounded-${i}.onnx`, environment, signal),
        pairs: pairsOf(models[0]!.facts, facts),
      })),
    ),
  );
  const judged = await judgedBy(request, environment);
  const [reference, ...challengers] = contenders;
  const contest = await steps.run("evaluate", "Measuring the models", () =>
    evaluateContest({
      reference: { ...reference!, outputs: models[0]!.facts.outputs },
      challengers,
      data: judged.data,
      spec: { ...spec.evaluation, metric: metricOf(spec.evaluation) },
      loads: loadsOf(spec),
      ...{ seed: spec.params.seed, threads, cpu: host.cpu, openSession, measurePeak, signal },
      onFailure: (i, error) => ofModel(ids[i + 1]!, error),
      onProgress: (fraction, message) => steps.progress("evaluate", fraction, message),
    }),
  );
  const standings = [contest.reference, ...contest.challengers.map((standing) => standing!)];
  const evaluated = standings.map((standing, i) => entryOf(spec, ids[i]!, models[i]!, standing));
  // What a job's metrics say of its result, they say here of the first model that is held against the reference.
  const main = evaluated[1] ?? evaluated[0]!;
  const { size, fidelity, accuracy, latency, memory } = main;
  const metrics: JobMetrics = {
    ...{ size, fidelity, accuracy, latency, memory },
    coverage: await coverageOf(request, ids[1] ?? ids[0]!, environment, signal),
    ...{ training: null, exits: null, deployment: null, auto: null },
    models: evaluated,
    acceptance: evaluated.flatMap(({ acceptance }) => acceptance),
    warnings: [
      ...models.flatMap(({ facts }) => modelWarnings(facts)),
      ...judged.warnings,
      ...evaluated.flatMap(({ warnings }) => warnings),
    ],
    environment: {
      ...{ onnxruntime: host.onnxruntime, cpu: host.cpu, isa: host.isa },
      ...{ threads: latency.threads, seed: spec.params.seed, versions: host.versions },
    },
  };
  const accepted = metrics.acceptance.every(({ ok }) => ok);
  return steps.run("report", "Writing the report", async () => {
    const [before, after] = contest.latencySamplesMs;
    const report = buildReport({
      createdAt: new Date(),
      job: { id: request.job_id, ...spec },
      title: EVALUATE.title(spec),
      heldAgainst: EVALUATE.heldAgainst(),
      request: requestOf(spec),
      next: nextSteps(spec, { metrics, layerErrors: null, facts: models[0]!.facts }, afterEvaluation(spec)),
      origins: {
        before: { id: ids[0]!, name: models[0]!.name ?? null, sha256: models[0]!.sha256 ?? null },
        after: null,
      },
      evaluation: {
        ...{ metrics, accepted, inputShapes: contest.inputShapes, layerErrors: null, optimizedOperators: {} },
        latencySamplesMs: { before: before!, after: after ?? before! },
        timingsMs: {},
      },
      models: { before: models[0]!.facts, after: (models[1] ?? models[0]!).facts },
      notes: [],
      timingsMs: steps.timingsMs,
    });
    return {
      model: [],
      reports: [
        await files.writeText(scratch, "report.json", "application/json", `${JSON.stringify(report, null, 2)}\n`),
        await files.writeText(scratch, "report.html", "text/html; charset=utf-8", await renderReport(report)),
      ],
      facts: models[0]!.facts,
      metrics,
      accepted,
    };
  });
}

/** Every batch size with every number of threads. */
function loadsOf({ params, evaluation: { latency } }: EvaluateSpec): readonly Load[] {
  const sizes = params.batch_sizes.length > 0 ? params.batch_sizes : [latency.batch_size];
  const threads = params.threads.length > 0 ? params.threads : [latency.threads];
  return sizes.flatMap((batch_size) => threads.map((threads) => ({ batch_size, threads })));
}

function pairsOf(reference: ModelFacts, model: ModelFacts) {
  return pairOutputs(reference.outputs, model.outputs, undefined).map(({ teacher, student }) => ({
    before: teacher,
    after: student,
  }));
}

async function judgedBy({ spec, models, datasets }: JobRequest<EvaluateSpec>, { files }: JobEnvironment) {
  const { dataset_id, ignore_label } = spec.evaluation;
  if (dataset_id === null) return { data: undefined, warnings: [] };
  const stored = datasets[dataset_id]!;
  const use = labelUse(stored.facts, models[spec.params.model_ids[0]!]!.facts.outputs, labelTaskOf(spec));
  const dataset = withLabelUse(await files.openDataset(stored.file, stored.spec), use, ignore_label);
  return {
    data: { dataset, kind: "evaluation" as const },
    warnings: dataWarnings(stored.facts, use, ignore_label, models),
  };
}

/** Of the reference nothing is checked against limits: they are about what is held against it. */
function entryOf(
  spec: EvaluateSpec,
  model_id: string,
  { name, facts }: JobInputs["models"][string],
  standing: Standing,
): EvaluatedModel {
  const isReference = model_id === spec.params.model_ids[0];
  return {
    model_id,
    name: name ?? null,
    parameters: facts.parameters,
    ...standing,
    acceptance: isReference ? [] : checkAcceptance(spec.acceptance, standing),
  };
}

async function loading<T>(id: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw ofModel(id, error);
  }
}

/** What fails is a user's model, not something that was made of one. */
function ofModel(id: string, error: unknown): unknown {
  if (!(error instanceof CoreError) || error.code === "cancelled") return error;
  const reason = error instanceof BrokenModel ? error.reason : error.message;
  const code = error instanceof BrokenModel || error.code === "internal" ? "invalid_model" : error.code;
  return new CoreError(code, `${id}: ${reason}`, error.subject, { cause: error });
}

/** What of a model computes, or is stored, in few bits as it is: nothing was made of it, so nothing was skipped. */
async function coverageOf(
  { models, scratch }: JobRequest<EvaluateSpec>,
  id: string,
  { files, openSession }: JobEnvironment,
  signal: AbortSignal,
): Promise<JobMetrics["coverage"]> {
  const own = models[id]!.files;
  const model = files.openModel(own);
  const audited = await auditedCoverage([], {
    ...{ modelPath: own[0]!.path, modelBytes: files.sizeOf(own), scratchPath: `${scratch}/optimized.onnx` },
    ...{ openSession, readModel: files.openWrittenModel, signal },
  });
  const layers = completeNotes(model, model, []);
  return { ...audited, quantized_nodes: layers.filter(({ code }) => code === "already_quantized").length };
}
