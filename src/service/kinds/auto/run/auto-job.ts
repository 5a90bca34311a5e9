import { type Dataset, type DroppedCode, datasetView, evaluateContest, Random } from "../../../../core/index.ts";
import type { AutoPlan, JobInputs, JobOutcome, JobRequest } from "../../../../tasks/protocol.ts";
import { metricOf } from "../../evaluation.ts";
import { dataWarnings, labelUse, withLabelUse } from "../../label-use.ts";
import { openSamples } from "../../quantize/run/calibration-samples.ts";
import type { AnyTarget } from "../../quantize/targets.ts";
import { requestOf } from "../../requests.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { JobRun } from "../../run/job-run.ts";
import { createJobSteps, type JobContext } from "../../run/job-steps.ts";
import { type Candidate, candidatesOf, isFirst, isVariation } from "../candidates.ts";
import { plainStatic } from "../plain-static.ts";
import { type AutoSpec, labelTaskOf, searchesOf } from "../spec.ts";
import { finalMs, finalsMs, measuringLimits, startClock, trialShare } from "./clock.ts";
import { conclude, type Found, type SearchResult } from "./conclude.ts";
import { finalistsOf, MAX_FINALISTS } from "./finalists.ts";
import { Findings } from "./findings.ts";
import { axesFor, frontOf } from "./front.ts";
import { whyUnpromising } from "./hopes.ts";
import { isTimedThere, measuredInTarget } from "./in-target.ts";
import type { Made } from "./make.ts";
import { tryMixed } from "./mixed.ts";
import { careMayDo, keepsToLimits } from "./order.ts";
import { predictionOf, Search, type Tried } from "./search.ts";
import { type MeasuredModels, type SearchData, type SearchRun, STARTS, type State, type Step } from "./search-run.ts";

export const AUTO_RUN: JobRun<AutoSpec> = { plan: planAutoJob, run: runAutoJob };

/** The candidates, in the order in which they would be tried. */
async function planAutoJob(
  { spec, models }: JobInputs<AutoSpec>,
  { openSession }: JobEnvironment,
  _context: JobContext,
): Promise<AutoPlan> {
  const session = await openSession({ path: models[spec.model_id]!.files[0]!.path });
  await session.close();
  const candidates = searchesOf(spec)
    .flatMap(candidatesOf)
    .map(({ name, spec }) => ({ name, spec: { ...requestOf(spec) } }));
  return { type: "auto", candidates };
}

/** The checkpoint of the search for a target. */
const stateName = (target: AnyTarget) => `search-${target}`;

/**
 * Looks for the models worth having, for one target after the other: makes candidates, tries each on few samples, measures the best of them in full, and
 * recommends one. Goes on from the request's checkpoints: what was tried and measured is not done again. What the searches before have left of the budget
 * is divided evenly among those that are still to come.
 */
async function runAutoJob(
  request: JobRequest<AutoSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec } = request;
  const searches = searchesOf(spec);
  const findings = new Findings(request, environment, context);
  const results: SearchResult[] = [];
  let seconds = 0;
  for (const [i, target] of searches.entries()) {
    const own = within(context, i, searches.length);
    const steps = createJobSteps<Step>(STARTS, own);
    const state = stateOf(request, environment, target.target);
    const clock = startClock((spec.params.budget.seconds - seconds) / (searches.length - i), state);
    const asked = { ...request, spec: target.spec };
    const data =
      results[0]?.run.data ?? (await steps.run("load", "Reading the data", () => openData(asked, environment)));
    const call = { request: asked, environment, context: own, findings, target: target.target, data: data.trial };
    const search = new Search(call);
    const run: SearchRun = { target, request: asked, environment, context: own, steps, clock, data, search };
    try {
      results.push({ run, found: await searchFor(run) });
      seconds += clock.seconds();
    } finally {
      await search.close();
    }
  }
  const last = results.at(-1)!.run;
  const before = seconds - last.clock.seconds();
  return last.steps.run("report", "Writing the report", () =>
    conclude(request, results, () => before + last.clock.seconds()),
  );
}

/** The context of one of several searches: what it tells of its progress is that of the job. */
function within({ signal, news }: JobContext, index: number, of: number): JobContext {
  return {
    signal,
    news(it) {
      if (it.kind !== "progress") return news(it);
      const { progress } = it;
      news({ ...it, progress: { ...progress, fraction: (index + progress.fraction) / of } });
    },
  };
}

async function searchFor(run: SearchRun): Promise<Found> {
  const { steps, request, clock, search } = run;
  const tried = await steps.run("try", "Trying candidates", () => tryAll(run));
  const { chosen, outranked } = finalistsOf(tried, request.spec.params, finalsMs(clock), (it) => search.finalMs(it));
  const measured = await steps.run("measure", "Measuring the finalists", () => measureAll(run, chosen, tried));
  return { tried, outranked, measured };
}

function stateOf({ checkpoints }: JobRequest<AutoSpec>, { files }: JobEnvironment, target: AnyTarget): State {
  const stored = checkpoints[stateName(target)];
  return stored
    ? (JSON.parse(new TextDecoder().decode(files.readBytes(stored))) as State)
    : { seconds: 0, tried: [], measured: null };
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
  const { unseen, scored } = await openSamples({ spec: plainStatic(spec), models, datasets }, facts, environment);
  const free = unseen ?? scored;
  const total = free.facts.samples;
  const isDivided = evaluation.dataset_id === null && total >= TRIED_SAMPLES + MIN_JUDGING;
  const end = isDivided ? TRIED_SAMPLES : total;
  const trial = { dataset: part(free, 0, end), kind: "calibration" as const };
  if (evaluation.dataset_id === null) {
    const stored = datasets[params.dataset_id]!;
    const use = labelUse(stored.facts, facts.outputs, task);
    const final = { dataset: isDivided ? part(free, end, total) : free, kind: "calibration" as const };
    return { trial, final, warnings: dataWarnings(stored.facts, use, evaluation.ignore_label, models) };
  }
  const stored = datasets[evaluation.dataset_id]!;
  const use = labelUse(stored.facts, facts.outputs, task);
  const dataset = withLabelUse(
    await environment.files.openDataset(stored.file, stored.spec),
    use,
    evaluation.ignore_label,
  );
  // There may not be time for all of them: those that there is time for shall be like the others.
  const order = new Random(params.seed, "judgement").permutation(dataset.facts.samples);
  return {
    ...{ trial, final: { dataset: datasetView(dataset, order), kind: "evaluation" } },
    warnings: dataWarnings(stored.facts, use, evaluation.ignore_label, models),
  };
}

function part(dataset: Dataset, start: number, end: number): Dataset {
  return datasetView(
    dataset,
    Uint32Array.from({ length: end - start }, (_, i) => start + i),
  );
}

/** Tries every candidate that was not tried before, while there is time; those of mixed precision when the main ones are known. */
async function tryAll(run: SearchRun): Promise<readonly Tried[]> {
  const { target, search, request, context, steps, clock } = run;
  const { params } = request.spec;
  const candidates = candidatesOf(target);
  const tried: Tried[] = [...clock.state.tried];
  for (const earlier of tried) search.recall(earlier);
  const left = () => clock.left(trialShare(params.budget.seconds, measuringMs(run, tried)));
  // What was not worth a trial has cost none.
  const trials = () => tried.filter(({ dropped }) => dropped?.code !== "unpromising").length;
  const leftToTry = () => (trials() < params.budget.candidates ? left() : 0);
  const tryOne = async (candidate: Candidate): Promise<Tried> => {
    const known = tried.find(({ name }) => name === candidate.name);
    if (known) return known;
    steps.progress("try", Math.min(1, tried.length / candidates.length), `${candidate.name} (${tried.length + 1})`);
    const ms = left();
    const end = AbortSignal.timeout(Math.ceil(Math.max(ms, 1000)));
    const unpromising = isFirst(candidate) ? undefined : whyUnpromising(candidate, tried, params);
    const result =
      unpromising !== undefined
        ? untried(candidate, "unpromising", unpromising)
        : ms > 0 || tried.length === 0
          ? await search.try(candidate, AbortSignal.any([context.signal, end]))
          : untried(candidate, "budget", "The time for trials was over before its turn.");
    tried.push(result);
    tell(result, tried, params, context);
    await keep(run, { seconds: clock.seconds(), tried, measured: null });
    return result;
  };
  const isKnown = ({ name }: Candidate) => tried.some((it) => it.name === name);
  const tryThose = async (which: (candidate: Candidate) => boolean) => {
    for (const candidate of candidates) {
      if (which(candidate) && !isKnown(candidate) && trials() < params.budget.candidates) await tryOne(candidate);
    }
  };
  const triedAs = (role: Candidate["role"]) => {
    const candidate = candidates.find((it) => it.role === role);
    return tried.find(({ name }) => name === candidate?.name);
  };
  const plain = candidates.find(({ role }) => role === "plain");
  if (plain) await tryOne(plain);
  const plainTried = triedAs("plain");
  const needsLayers = plainTried !== undefined && !keepsToLimits(plainTried, params);
  const isMain = (it: Candidate) => !isVariation(it) && it.role !== "held";
  // Where plain int8 misses a limit of quality, what leaves out those layers that it loses most by is more likely to be good than what comes later: first what measures
  // as many groups of layers as there is time for, then accuracy control, which takes as long as it takes.
  await tryThose((it) => (needsLayers ? isFirst(it) : isMain(it)));
  if (needsLayers && careMayDo(plainTried, triedAs("weights"), params, leftToTry())) {
    await tryThose(({ role }) => role === "careful");
  }
  // Where others were tried behind them by an earlier attempt, mixed ones had their turn.
  const isBehind = (it: Candidate) => (needsLayers ? !isFirst(it) && it.role !== "careful" : isVariation(it));
  const isPast = candidates.some((it) => isBehind(it) && isKnown(it));
  if (plain && plainTried && !isPast) {
    const isPromising = (it: Pick<Candidate, "role" | "spec">) => whyUnpromising(it, tried, params) === undefined;
    await tryMixed(run, { candidate: plain, tried: plainTried }, { leftMs: leftToTry, isPromising, tryOne });
  }
  if (needsLayers) await tryThose(({ role }) => role === "held");
  await tryThose(isMain);
  await tryThose(isVariation);
  await tryThose(() => true);
  return tried;
}

/** What measuring the original and as many finalists as there may be will take, once it is known how fast the original is. */
function measuringMs({ data, request }: SearchRun, tried: readonly Tried[]): number | undefined {
  const { evaluation } = request.spec;
  const known = tried.find(({ trial }) => trial !== null);
  if (!known || !data.final) return undefined;
  const { samples } = data.final.dataset.facts;
  const runs = Math.min(samples, evaluation.samples ?? samples) + evaluation.latency.runs;
  const finalists = Math.min(MAX_FINALISTS, tried.filter(({ dropped }) => dropped === null).length + 1);
  return (finalists + 1) * (runs * known.trial!.latency.before.p50_ms + finalMs(known.loadMs ?? 0, 0));
}

function untried({ name, spec }: Candidate, code: DroppedCode, message: string): Tried {
  return {
    name,
    spec,
    sha256: null,
    content: null,
    structure: null,
    stage: "planned",
    trial: null,
    ms: 0,
    loadMs: null,
    dropped: { stage: "planned", code, message },
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
  { target, request: { scratch }, environment: { files }, context: { news } }: SearchRun,
  state: State,
): Promise<void> {
  const name = stateName(target.target);
  const path = await files.writeCheckpoint(scratch, name, new TextEncoder().encode(JSON.stringify(state)));
  if (path !== undefined) news({ kind: "checkpoint", name, path });
}

/** Measures the original and the finalists in full, all in turns. */
async function measureAll(
  run: SearchRun,
  finalists: readonly Tried[],
  tried: readonly Tried[],
): Promise<MeasuredModels> {
  const { target, search, request, environment, context, steps, clock, data } = run;
  if (clock.state.measured) return clock.state.measured;
  const { spec, models, threads } = request;
  const { files, host, openSession, measurePeak } = environment;
  const { files: source, facts } = models[spec.model_id]!;
  const made: Made[] = [];
  for (const finalist of finalists) made.push(await search.filesOf(finalist));
  const loadMs = finalists.reduce((sum, { loadMs }) => sum + (loadMs ?? 0), 0);
  const { latency } = spec.evaluation;
  const contest = await evaluateContest({
    reference: { path: source[0]!.path, bytes: files.sizeOf(source), outputs: facts.outputs },
    challengers: made.map(({ files: written, roundedPath }, i) => ({
      peak: peakOf(finalists[i]!),
      ...{ path: written[0]!.path, bytes: files.sizeOf(written), roundedPath },
    })),
    data: data.final,
    spec: { ...spec.evaluation, metric: metricOf(spec.evaluation) },
    loads: [{ batch_size: latency.batch_size, threads: latency.threads }],
    ...{ seed: spec.params.seed, threads, cpu: host.cpu, openSession, measurePeak, signal: context.signal },
    threadClock: environment.threadClock,
    // What is timed in another runtime is not timed here as well.
    limits: { ...measuringLimits(clock, loadMs), ...(isTimedThere(target.target) && { latencyMs: () => 0 }) },
    // It ran in its trial; what does not run on all samples is not worth having.
    onFailure: () => undefined,
    onProgress: (fraction, message) => steps.progress("measure", fraction, message),
  });
  const measured = await measuredInTarget(
    run,
    finalists.map((it, i) => ({ ...it, files: made[i]!.files })),
    {
      original: contest.reference,
      finalists: finalists.map(({ name }, i) => [name, contest.challengers[i] ?? null] as const),
      deployed: [],
    },
  );
  await keep(run, { seconds: clock.seconds(), tried, measured });
  return measured;
}

/** What its trial has measured. */
function peakOf({ trial }: Tried) {
  return trial ? { peakBytes: trial.memory.after_peak_bytes, baselineBytes: trial.memory.baseline_bytes } : undefined;
}
