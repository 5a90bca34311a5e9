import {
  type AutoCandidate,
  type AutoMetrics,
  auditedCoverage,
  checkAcceptance,
  type Dataset,
  datasetView,
  evaluateContest,
  inspectModel,
  type JobMetrics,
  type Standing,
} from "../../../../core/index.ts";
import { renderReport } from "../../../../report/html.ts";
import { buildReport } from "../../../../report/report.ts";
import type { AutoPlan, JobInputs, JobOutcome, JobRequest } from "../../../../tasks/protocol.ts";
import { metricOf } from "../../evaluation.ts";
import { dataWarnings, labelUse, withLabelUse } from "../../label-use.ts";
import { QuantizeParams } from "../../quantize/params.ts";
import { openSamples } from "../../quantize/run/calibration-samples.ts";
import type { QuantizeSpec, StaticSpec } from "../../quantize/spec.ts";
import { requestOf } from "../../requests.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { JobRun } from "../../run/job-run.ts";
import { createJobSteps, type JobContext, type JobSteps } from "../../run/job-steps.ts";
import { AUTO, type AutoSpec, labelTaskOf } from "../spec.ts";
import { candidatesOf } from "./candidates.ts";
import { finalistsOf } from "./finalists.ts";
import { axesFor, checkConstraints, choose, frontOf } from "./front.ts";
import { predictionOf, Search, type Tried } from "./search.ts";

export const AUTO_RUN: JobRun<AutoSpec> = { plan: planAutoJob, run: runAutoJob };

/** The candidates, in the order in which they would be tried. */
async function planAutoJob(
  { spec, models }: JobInputs<AutoSpec>,
  { openSession }: JobEnvironment,
  _context: JobContext,
): Promise<AutoPlan> {
  const session = await openSession({ path: models[spec.model_id]!.files[0]!.path });
  await session.close();
  const candidates = candidatesOf(spec).map(({ name, spec }) => ({ name, spec: { ...requestOf(spec) } }));
  return { type: "auto", candidates };
}

/** The checkpoint of a search. */
const STATE = "search";

/** What later attempts begin with. */
interface State {
  /** How long earlier attempts have worked. */
  readonly seconds: number;
  readonly tried: readonly Tried[];
  /** The original, then each finalist by name, when they are measured. */
  readonly measured: {
    readonly original: Standing;
    readonly finalists: readonly (readonly [string, Standing | null])[];
  } | null;
}

const STARTS = { load: 0, try: 0.02, measure: 0.6, report: 0.96 } as const;
type Step = keyof typeof STARTS;

/** Trials take no more than this share of the budget; what is left is for measuring the finalists. */
const TRIAL_SHARE = 0.6;
/** Seconds of the budget that are kept for what comes before and after: files that are fetched, the report, models that are stored. */
const RESERVE_S = 5;
/** Where that is much of the budget, no more than this share. */
const MAX_RESERVE_SHARE = 0.2;
/** Of the time for measuring, what loading all finalists may take, by how long each took in its trial. */
const LOADING_SHARE = 0.4;

/**
 * Looks for the models worth having: makes candidates, tries each on few samples, measures the best of them in full, and recommends one. Goes on
 * from the request's checkpoint: what was tried and measured is not done again.
 */
async function runAutoJob(
  request: JobRequest<AutoSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const steps = createJobSteps<Step>(STARTS, context);
  const clock = startClock(request, environment);
  const data = await steps.run("load", "Reading the data", () => openData(request, environment));
  const search = new Search({ request, environment, context, data: data.trial });
  try {
    const tried = await steps.run("try", "Trying candidates", () =>
      tryAll(search, request, environment, context, steps, clock),
    );
    const finalists = finalistsOf(tried, request.spec.params, LOADING_SHARE * clock.left());
    const measured = await steps.run("measure", "Measuring the finalists", () =>
      measureAll(search, finalists.chosen, tried, request, environment, context, steps, clock, data),
    );
    return await steps.run("report", "Writing the report", () =>
      conclude(
        search,
        { tried, outranked: finalists.outranked, measured },
        request,
        environment,
        context,
        steps,
        clock,
        data,
      ),
    );
  } finally {
    await search.close();
  }
}

interface Clock {
  readonly state: State;
  /** Since the first attempt began to work. */
  seconds(): number;
  /** Until the budget is used up, in ms; never negative. */
  left(share?: number): number;
}

function startClock({ spec, checkpoints }: JobRequest<AutoSpec>, { files }: JobEnvironment): Clock {
  const start = performance.now();
  const stored = checkpoints[STATE];
  const state: State = stored
    ? (JSON.parse(new TextDecoder().decode(files.readBytes(stored))) as State)
    : { seconds: 0, tried: [], measured: null };
  const budget = spec.params.budget.seconds;
  const usable = budget - Math.min(RESERVE_S, budget * MAX_RESERVE_SHARE);
  const seconds = () => state.seconds + (performance.now() - start) / 1000;
  return { state, seconds, left: (share = 1) => Math.max(0, 1000 * (usable * share - seconds())) };
}

interface SearchData {
  readonly trial: { readonly dataset: Dataset; readonly kind: "calibration" } | undefined;
  readonly final: { readonly dataset: Dataset; readonly kind: "evaluation" | "calibration" } | undefined;
  readonly warnings: JobMetrics["warnings"];
}

/** Samples of the dataset that trials may see; the rest judges, where the job has no data for that. */
const TRIED_SAMPLES = 64;
const MIN_JUDGING = 30;

async function openData(
  { spec, models, datasets }: JobRequest<AutoSpec>,
  environment: JobEnvironment,
): Promise<SearchData> {
  const { model_id, params, evaluation } = spec;
  const { facts } = models[model_id]!;
  const task = labelTaskOf(spec);
  // As a static job would divide it: what calibrates is not tried on.
  const asStatic: StaticSpec = {
    ...{ type: "quantize", model_id, evaluation, acceptance: {} },
    params: QuantizeParams.parse({
      method: "static",
      dataset_id: params.dataset_id,
      seed: params.seed,
    }) as StaticSpec["params"],
  };
  const { unseen, scored } = await openSamples({ spec: asStatic, models, datasets }, facts, environment);
  const free = unseen ?? scored;
  const total = free.facts.samples;
  const isDivided = evaluation.dataset_id === null && total >= TRIED_SAMPLES + MIN_JUDGING;
  const end = isDivided ? TRIED_SAMPLES : total;
  const trial = { dataset: part(free, 0, end), kind: "calibration" as const };
  if (evaluation.dataset_id === null) {
    const stored = datasets[params.dataset_id]!;
    const use = labelUse(stored.facts, facts.outputs, task);
    const final = { dataset: isDivided ? part(free, end, total) : free, kind: "calibration" as const };
    return { trial, final, warnings: dataWarnings(stored.facts, use, evaluation.ignore_label) };
  }
  const stored = datasets[evaluation.dataset_id]!;
  const use = labelUse(stored.facts, facts.outputs, task);
  const dataset = withLabelUse(
    await environment.files.openDataset(stored.file, stored.spec),
    use,
    evaluation.ignore_label,
  );
  return {
    ...{ trial, final: { dataset, kind: "evaluation" } },
    warnings: dataWarnings(stored.facts, use, evaluation.ignore_label),
  };
}

function part(dataset: Dataset, start: number, end: number): Dataset {
  return datasetView(
    dataset,
    Uint32Array.from({ length: end - start }, (_, i) => start + i),
  );
}

/** Tries every candidate that was not tried before, while there is time. */
async function tryAll(
  search: Search,
  request: JobRequest<AutoSpec>,
  environment: JobEnvironment,
  context: JobContext,
  steps: JobSteps<Step>,
  clock: Clock,
): Promise<readonly Tried[]> {
  const candidates = candidatesOf(request.spec);
  const tried: Tried[] = [...clock.state.tried];
  for (const earlier of tried) search.recall(earlier);
  for (const [i, candidate] of candidates.entries()) {
    if (tried.some(({ name }) => name === candidate.name)) continue;
    steps.progress("try", i / candidates.length, `${candidate.name} (${i + 1} of ${candidates.length})`);
    const left = clock.left(TRIAL_SHARE);
    const result =
      left > 0 || tried.length === 0
        ? await search.try(
            candidate,
            AbortSignal.any([context.signal, AbortSignal.timeout(Math.ceil(Math.max(left, 1000)))]),
          )
        : untried(candidate);
    tried.push(result);
    tell(result, tried, request.spec.params, context);
    await keep(request, environment, context, { seconds: clock.seconds(), tried, measured: null });
  }
  return tried;
}

function untried({ name, spec }: { readonly name: string; readonly spec: QuantizeSpec }): Tried {
  const message = "The time for trials was over before its turn.";
  return {
    name,
    spec,
    sha256: null,
    stage: "planned",
    trial: null,
    ms: 0,
    dropped: { stage: "planned", code: "budget", message },
  };
}

/** Tells what a candidate is like, and what the front is so far. */
function tell(
  { name, stage, trial, dropped }: Tried,
  tried: readonly Tried[],
  params: AutoSpec["params"],
  { news }: JobContext,
): void {
  const standing = tried.flatMap(({ name, trial, dropped }) => (trial && !dropped ? [{ name, measured: trial }] : []));
  const front = frontOf(standing, axesFor(params)).front.map(({ name }) => name);
  news({ kind: "metric", data: { candidate: name, stage, predicted: predictionOf(trial), dropped, front } });
}

/** Stores the state, unless the last one is still on its way: the next one has what this one has. */
async function keep(
  { scratch }: JobRequest<AutoSpec>,
  { files }: JobEnvironment,
  { news }: JobContext,
  state: State,
): Promise<void> {
  const path = await files.writeCheckpoint(scratch, STATE, new TextEncoder().encode(JSON.stringify(state)));
  if (path !== undefined) news({ kind: "checkpoint", name: STATE, path });
}

type MeasuredModels = NonNullable<State["measured"]>;

/** Measures the original and the finalists in full, all in turns. */
async function measureAll(
  search: Search,
  finalists: readonly Tried[],
  tried: readonly Tried[],
  request: JobRequest<AutoSpec>,
  environment: JobEnvironment,
  context: JobContext,
  steps: JobSteps<Step>,
  clock: Clock,
  data: SearchData,
): Promise<MeasuredModels> {
  if (clock.state.measured) return clock.state.measured;
  const { spec, models, threads } = request;
  const { files, host, openSession, measurePeak } = environment;
  const source = models[spec.model_id]!.files;
  const made = [];
  for (const finalist of finalists) made.push(await search.filesOf(finalist));
  const left = clock.left();
  const { latency } = spec.evaluation;
  const contest = await evaluateContest({
    reference: { path: source[0]!.path, bytes: files.sizeOf(source) },
    challengers: made.map(({ files: written, roundedPath }, i) => ({
      peak: peakOf(finalists[i]!),
      ...{ path: written[0]!.path, bytes: files.sizeOf(written), roundedPath },
    })),
    data: data.final,
    spec: { ...spec.evaluation, metric: metricOf(spec.evaluation) },
    loads: [{ batch_size: latency.batch_size, threads: latency.threads }],
    ...{ seed: spec.params.seed, threads, cpu: host.cpu, openSession, measurePeak, signal: context.signal },
    limits: { compareMs: left * 0.5, latencyMs: left * 0.3 },
    // It ran in its trial; what does not run on all samples is not worth having.
    onFailure: () => undefined,
    onProgress: (fraction, message) => steps.progress("measure", fraction, message),
  });
  const measured: MeasuredModels = {
    original: contest.reference,
    finalists: finalists.map(({ name }, i) => [name, contest.challengers[i] ?? null] as const),
  };
  await keep(request, environment, context, { seconds: clock.seconds(), tried, measured });
  return measured;
}

/** What its trial has measured. */
function peakOf({ trial }: Tried) {
  return trial ? { peakBytes: trial.memory.after_peak_bytes, baselineBytes: trial.memory.baseline_bytes } : undefined;
}

const ORIGINAL = "original";

interface Found {
  readonly tried: readonly Tried[];
  /** Why candidates that were tried were not measured. */
  readonly outranked: ReadonlyMap<string, string>;
  readonly measured: MeasuredModels;
}

/** The front, the recommendation, and the report. */
async function conclude(
  search: Search,
  { tried, outranked, measured }: Found,
  request: JobRequest<AutoSpec>,
  environment: JobEnvironment,
  { signal }: JobContext,
  steps: JobSteps<Step>,
  clock: Clock,
  data: SearchData,
): Promise<JobOutcome> {
  const { spec, scratch, models } = request;
  const { params } = spec;
  const { files, host, openSession } = environment;
  const standings = new Map(measured.finalists);
  const staysFinite = ({ fidelity }: Standing) => fidelity.outputs.every(({ non_finite }) => non_finite === 0);
  const contestants = [
    { name: ORIGINAL, measured: measured.original },
    ...measured.finalists.flatMap(([name, standing]) =>
      standing && staysFinite(standing) ? [{ name, measured: standing }] : [],
    ),
  ];
  const { front, beaten } = frontOf(contestants, axesFor(params));
  const { recommended, accepted, why, nextBetter } = choose(front, params.objective, params.constraints);
  const isOnFront = (name: string) => front.some((it) => it.name === name);

  const candidates = tried.map((it): AutoCandidate => {
    const standing = standings.get(it.name);
    const winner = [...beaten].find(([loser]) => loser.name === it.name)?.[1];
    const reason = outranked.get(it.name);
    return {
      ...{ name: it.name, spec: { ...requestOf(it.spec) }, model_id: null, sha256: it.sha256 },
      stage: standing ? "measured" : it.stage,
      predicted: predictionOf(it.trial),
      measured: standing ? axesOf(standing) : null,
      ...{ on_front: isOnFront(it.name), recommended: it.name === recommended.name },
      dropped:
        it.dropped ??
        (reason !== undefined ? { stage: "tried", code: "outranked", message: reason } : null) ??
        (winner ? { stage: "measured", code: "beaten", message: beatenBy(winner.name) } : null) ??
        (isOnFront(it.name)
          ? null
          : { stage: "measured", code: "does_not_run", message: "It does not run, or is not finite, on all samples." }),
    };
  });
  const [standing, note] = [recommended.measured, nextBetter];
  const auto: AutoMetrics = {
    candidates: [
      originalOf(measured.original, isOnFront(ORIGINAL), recommended.name === ORIGINAL, beaten),
      ...candidates,
    ],
    recommendation: { candidate: recommended.name, model_id: spec.model_id, why, next_better: note },
    constraints: checkConstraints(params.constraints, standing),
    seconds: clock.seconds(),
  };
  const front_models = [];
  for (const it of tried) {
    if (!isOnFront(it.name)) continue;
    const made = await search.filesOf(it);
    const model = files.openWrittenModel(made.files[0]!.path);
    const facts = await inspectModel(model, { openSession, source: { path: made.files[0]!.path }, dims: {}, signal });
    front_models.push({ name: it.name, spec: it.spec, files: made.files, facts, made });
  }
  const best = front_models.find(({ name }) => name === recommended.name);
  const acceptance = checkAcceptance(spec.acceptance, standing);
  const metrics: JobMetrics = {
    ...axesOf(standing),
    coverage: best
      ? await auditedCoverage(best.made.notes, {
          ...{ modelPath: best.files[0]!.path, modelBytes: files.sizeOf(best.files) },
          ...{ scratchPath: `${scratch}/optimized.onnx`, openSession, readModel: files.openWrittenModel, signal },
        })
      : NOTHING_CHANGED,
    ...{ training: null, exits: null, models: null, auto },
    acceptance: [...auto.constraints, ...acceptance],
    warnings: [...data.warnings, ...standing.warnings],
    environment: {
      ...{ onnxruntime: host.onnxruntime, cpu: host.cpu, isa: host.isa },
      ...{ threads: standing.latency.threads, seed: params.seed, versions: host.versions },
    },
  };
  const before = models[spec.model_id]!.facts;
  const isAccepted = accepted && acceptance.every(({ ok }) => ok);
  const report = buildReport({
    createdAt: new Date(),
    job: { id: request.job_id, ...spec },
    title: AUTO.title(spec),
    request: requestOf(spec),
    next: [],
    origins: {
      before: {
        id: spec.model_id,
        name: models[spec.model_id]!.name ?? null,
        sha256: models[spec.model_id]!.sha256 ?? null,
      },
      after: best ? { id: null, name: null, sha256: await files.sha256Of(best.files) } : null,
    },
    evaluation: {
      ...{ metrics, accepted: isAccepted, inputShapes: {}, layerErrors: null, optimizedOperators: {} },
      ...{ latencySamplesMs: { before: [], after: [] }, timingsMs: {} },
    },
    models: { before, after: best?.facts ?? before },
    notes: best?.made.notes ?? [],
    timingsMs: steps.timingsMs,
  });
  return {
    model: [],
    front: front_models.map(({ name, spec, files, facts }) => ({ name, spec, files, facts })),
    reports: [
      await files.writeText(scratch, "report.json", "application/json", `${JSON.stringify(report, null, 2)}\n`),
      await files.writeText(scratch, "report.html", "text/html; charset=utf-8", await renderReport(report)),
    ],
    facts: best?.facts ?? before,
    metrics,
    accepted: isAccepted,
  };
}

const NOTHING_CHANGED = { quantized_nodes: 0, skipped_nodes: [], fused_nodes: 0, float_islands: [] } as const;

function beatenBy(name: string): string {
  return `${name} is in nothing worse, and in something better.`;
}

function originalOf(
  standing: Standing,
  on_front: boolean,
  recommended: boolean,
  beaten: ReadonlyMap<{ readonly name: string }, { readonly name: string }>,
): AutoCandidate {
  const winner = [...beaten].find(([loser]) => loser.name === ORIGINAL)?.[1];
  return {
    ...{ name: ORIGINAL, spec: null, model_id: null, sha256: null, stage: "measured", predicted: null },
    ...{ measured: axesOf(standing), on_front, recommended },
    dropped: winner ? { stage: "measured", code: "beaten", message: beatenBy(winner.name) } : null,
  };
}

function axesOf({ size, fidelity, accuracy, latency, memory }: Standing) {
  return { size, fidelity, accuracy, latency, memory };
}
