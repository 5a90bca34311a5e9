import {
  type AutoCandidate,
  type AutoMetrics,
  type AutoTarget,
  auditedCoverage,
  checkAcceptance,
  inspectModel,
  type JobMetrics,
  type ModelFacts,
  modelWarnings,
  type Standing,
} from "../../../../core/index.ts";
import { renderReport } from "../../../../report/html.ts";
import { buildReport } from "../../../../report/report.ts";
import type { JobOutcome, JobRequest, ProducedFile } from "../../../../tasks/protocol.ts";
import { requestOf } from "../../requests.ts";
import { nextSteps } from "../../run/next-steps.ts";
import { artifactName } from "../model-ids.ts";
import { AUTO, type AutoSpec } from "../spec.ts";
import { axesFor, checkConstraints, choose, frontOf } from "./front.ts";
import type { Made } from "./make.ts";
import { afterSearch } from "./next-steps.ts";
import { predictionOf, type Tried } from "./search.ts";
import { type MeasuredModels, ORIGINAL, type SearchRun } from "./search-run.ts";

/** What comes out of a search: the models worth having, and the report. */

/** What a search for one target has found. */
export interface Found {
  readonly tried: readonly Tried[];
  /** Why candidates that were tried were not measured. */
  readonly outranked: ReadonlyMap<string, string>;
  readonly measured: MeasuredModels;
}

export interface SearchResult {
  readonly run: SearchRun;
  readonly found: Found;
}

type Dropped = NonNullable<AutoCandidate["dropped"]>;

/** What is worth having of what was measured for a target, and which is to be had. */
function verdictOf({ run, found }: SearchResult) {
  const { target, request } = run;
  const { tried, outranked, measured } = found;
  const { params } = request.spec;
  const original = target.named(ORIGINAL);
  const standings = new Map(measured.finalists);
  const deployed = new Map(measured.deployed);
  const staysFinite = ({ fidelity }: Standing) => fidelity.outputs.every(({ non_finite }) => non_finite === 0);
  const isFit = (name: string) => deployed.get(name)?.acceptance.every(({ ok }) => ok) ?? true;
  const finalists = measured.finalists.flatMap(([name, standing]) =>
    standing && staysFinite(standing) && isFit(name) ? [{ name, measured: standing }] : [],
  );
  // Where the original is not what the runtime wants, it is there for want of anything else.
  const isNeeded = finalists.length === 0 || isFit(ORIGINAL);
  const contestants = [...(isNeeded ? [{ name: original, measured: measured.original }] : []), ...finalists];
  const { front, beaten } = frontOf(contestants, axesFor(params));
  const choice = choose(front, params.objective, params.constraints);
  const isOnFront = (name: string) => front.some((it) => it.name === name);
  const lossOf = (name: string, key = name): Dropped | null => {
    const winner = [...beaten].find(([loser]) => loser.name === name)?.[1];
    if (winner) {
      return {
        stage: "measured",
        code: "beaten",
        message: `${winner.name} is in nothing worse, and in something better.`,
      };
    }
    const judged = deployed.get(key);
    if (!judged || isFit(key)) return null;
    const code = judged.facts.failure === null ? "target_rules_broken" : "target_does_not_run";
    return { stage: "measured", code, message: judged.warnings.find((it) => it.code === code)!.message };
  };
  const dropped = ({ name, dropped }: Tried): Dropped | null => {
    const reason = outranked.get(name);
    if (dropped || isOnFront(name)) return dropped;
    if (reason !== undefined) return { stage: "tried", code: "outranked", message: reason };
    const message = "It does not run, or is not finite, on all samples.";
    return lossOf(name) ?? { stage: "measured", code: "does_not_run", message };
  };
  const own = (name: string, key = name) => ({
    ...{ name, target: target.target, model_id: null, on_front: isOnFront(name) },
    ...{ recommended: name === choice.recommended.name, deployment: deployed.get(key)?.facts ?? null },
  });
  const ofOriginal: AutoCandidate = {
    ...own(original, ORIGINAL),
    ...{ spec: null, sha256: null, stage: "measured", predicted: null, measured: axesOf(measured.original) },
    dropped: isOnFront(original) ? null : lossOf(original, ORIGINAL),
  };
  const candidates = tried.map((it): AutoCandidate => {
    const standing = standings.get(it.name);
    return {
      ...own(it.name),
      ...{ spec: { ...requestOf(it.spec) }, sha256: it.sha256 },
      stage: standing ? "measured" : it.stage,
      predicted: predictionOf(it.trial),
      measured: standing ? axesOf(standing) : null,
      dropped: dropped(it),
    };
  });
  const { name } = choice.recommended;
  return {
    ...choice,
    candidates: [ofOriginal, ...candidates],
    isOnFront,
    deployed: deployed.get(name === original ? ORIGINAL : name),
  };
}

/** The result of the search for one target. */
async function resultFor(result: SearchResult) {
  const { run, found } = result;
  const { spec } = run.request;
  const { recommended, accepted, why, nextBetter, candidates, isOnFront, deployed } = verdictOf(result);
  const front = await frontModels(
    run,
    found.tried.filter(({ name }) => isOnFront(name)),
  );
  const acceptance = [...checkAcceptance(spec.acceptance, recommended.measured), ...(deployed?.acceptance ?? [])];
  const constraints = checkConstraints(spec.params.constraints, recommended.measured);
  const told: AutoTarget = {
    target: run.target.target,
    accepted: accepted && acceptance.every(({ ok }) => ok),
    recommendation: { candidate: recommended.name, model_id: spec.model_id, why, next_better: nextBetter },
    constraints,
  };
  const best = front.find(({ name }) => name === recommended.name);
  return { run, told, candidates, front, best, standing: recommended.measured, deployed, acceptance };
}

/**
 * The front and the recommendation for each target, and the report. The job's model is the one that is recommended for the first; it is accepted when all of them
 * are.
 */
export async function conclude(
  request: JobRequest<AutoSpec>,
  results: readonly SearchResult[],
  seconds: () => number,
): Promise<JobOutcome> {
  const found = [];
  for (const result of results) found.push(await resultFor(result));
  const [first] = found as [(typeof found)[number]];
  const { run, told, best, standing, deployed } = first;
  const { spec, models } = request;
  const { host } = run.environment;
  const auto: AutoMetrics = {
    candidates: found.flatMap(({ candidates }) => candidates),
    ...{ recommendation: told.recommendation, constraints: told.constraints },
    targets: found.map(({ told }) => told),
    seconds: seconds(),
  };
  const metrics: JobMetrics = {
    ...axesOf(standing),
    coverage: best ? await coverageOf(run, best) : NOTHING_CHANGED,
    ...{ training: null, exits: null, deployment: deployed?.facts ?? null, models: null, auto },
    acceptance: found.flatMap(({ told, acceptance, run }) =>
      [...told.constraints, ...acceptance].map((it) => ({ ...it, name: run.target.named(it.name) })),
    ),
    warnings: [
      ...modelWarnings(models[spec.model_id]!.facts),
      ...run.data.warnings,
      ...standing.warnings,
      ...found.flatMap(({ deployed }) => deployed?.warnings ?? []),
    ],
    environment: {
      ...{ onnxruntime: host.onnxruntime, cpu: host.cpu, isa: host.isa },
      ...{ threads: standing.latency.threads, seed: spec.params.seed, versions: host.versions },
    },
  };
  const accepted = found.every(({ told }) => told.accepted);
  return {
    model: [],
    front: found.flatMap(({ front }) =>
      front.map(({ name, files, facts, renamed }) => ({ name, files, facts, renamed })),
    ),
    reports: await writeReports(request, found, metrics, accepted),
    ...{ facts: best?.facts ?? models[spec.model_id]!.facts, metrics, accepted },
  };
}

interface FrontModel extends Made {
  readonly name: string;
  readonly facts: ModelFacts;
  readonly renamed: ProducedFile | null;
}

async function frontModels(
  { request, search, environment, context }: SearchRun,
  tried: readonly Tried[],
): Promise<FrontModel[]> {
  const { files, openSession } = environment;
  const { signal } = context;
  const front: FrontModel[] = [];
  for (const it of tried) {
    const made = await search.filesOf(it);
    const { path } = made.files[0]!;
    const facts = await inspectModel(files.openWrittenModel(path), { openSession, source: { path }, dims: {}, signal });
    const ownName = artifactName(it.name, made.files[0]!.name);
    const renamed = made.files.length === 1 ? null : await files.writeRenamed(made.files, request.scratch, ownName);
    front.push({ ...made, name: it.name, facts, renamed });
  }
  return front;
}

function coverageOf({ request, environment, context }: SearchRun, { files: written, notes }: FrontModel) {
  const { files, openSession } = environment;
  return auditedCoverage(notes, {
    ...{
      modelPath: written[0]!.path,
      modelBytes: files.sizeOf(written),
      scratchPath: `${request.scratch}/optimized.onnx`,
    },
    ...{ openSession, readModel: files.openWrittenModel, signal: context.signal },
  });
}

async function writeReports(
  request: JobRequest<AutoSpec>,
  [first, ...others]: readonly { readonly run: SearchRun; readonly best: FrontModel | undefined }[],
  metrics: JobMetrics,
  accepted: boolean,
) {
  const { spec, scratch, models } = request;
  const { run, best } = first!;
  const { files } = run.environment;
  const source = models[spec.model_id]!;
  const report = buildReport({
    createdAt: new Date(),
    job: { id: request.job_id, ...spec },
    title: AUTO.title(spec),
    heldAgainst: AUTO.heldAgainst(),
    request: requestOf(spec),
    next: nextSteps(spec, { metrics, layerErrors: null, facts: source.facts }, afterSearch(spec)),
    origins: {
      before: { id: spec.model_id, name: source.name ?? null, sha256: source.sha256 ?? null },
      after: best ? { id: null, name: null, sha256: await files.sha256Of(best.files) } : null,
    },
    evaluation: {
      ...{ metrics, accepted, inputShapes: {}, layerErrors: null, optimizedOperators: {} },
      ...{ latencySamplesMs: { before: [], after: [] }, timingsMs: {} },
    },
    models: { before: source.facts, after: best?.facts ?? source.facts },
    notes: best?.notes ?? [],
    timingsMs: totals([run, ...others.map(({ run }) => run)].map(({ steps }) => steps.timingsMs)),
  });
  return [
    await files.writeText(scratch, "report.json", "application/json", `${JSON.stringify(report, null, 2)}\n`),
    await files.writeText(scratch, "report.html", "text/html; charset=utf-8", await renderReport(report)),
  ];
}

/** Of each step, of all searches together. */
function totals(all: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [step, ms] of all.flatMap((it) => Object.entries(it))) sums[step] = (sums[step] ?? 0) + ms;
  return sums;
}

const NOTHING_CHANGED = { quantized_nodes: 0, skipped_nodes: [], fused_nodes: 0, float_islands: [] } as const;

function axesOf({ size, fidelity, accuracy, latency, memory }: Standing) {
  return { size, fidelity, accuracy, latency, memory };
}
