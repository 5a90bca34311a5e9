import {
  type AutoCandidate,
  type AutoMetrics,
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
import type { JobOutcome, ProducedFile } from "../../../../tasks/protocol.ts";
import { requestOf } from "../../requests.ts";
import { nextSteps } from "../../run/next-steps.ts";
import { artifactName } from "../model-ids.ts";
import { AUTO, type AutoSpec } from "../spec.ts";
import { axesFor, checkConstraints, choose, frontOf } from "./front.ts";
import type { Made } from "./make.ts";
import { afterSearch } from "./next-steps.ts";
import { predictionOf, type Tried } from "./search.ts";
import type { MeasuredModels, SearchRun } from "./search-run.ts";

/** What comes out of a search: the models worth having, and the report. */

const ORIGINAL = "original";

export interface Found {
  readonly tried: readonly Tried[];
  /** Why candidates that were tried were not measured. */
  readonly outranked: ReadonlyMap<string, string>;
  readonly measured: MeasuredModels;
}

type Dropped = NonNullable<AutoCandidate["dropped"]>;

/** What is worth having of what was measured, and which is to be had. */
function verdictOf({ tried, outranked, measured }: Found, params: AutoSpec["params"]) {
  const standings = new Map(measured.finalists);
  const staysFinite = ({ fidelity }: Standing) => fidelity.outputs.every(({ non_finite }) => non_finite === 0);
  const contestants = [
    { name: ORIGINAL, measured: measured.original },
    ...measured.finalists.flatMap(([name, standing]) =>
      standing && staysFinite(standing) ? [{ name, measured: standing }] : [],
    ),
  ];
  const { front, beaten } = frontOf(contestants, axesFor(params));
  const choice = choose(front, params.objective, params.constraints);
  const isOnFront = (name: string) => front.some((it) => it.name === name);
  const lossOf = (name: string): Dropped | null => {
    const winner = [...beaten].find(([loser]) => loser.name === name)?.[1];
    return winner
      ? { stage: "measured", code: "beaten", message: `${winner.name} is in nothing worse, and in something better.` }
      : null;
  };
  const dropped = ({ name, dropped }: Tried): Dropped | null => {
    const reason = outranked.get(name);
    if (dropped || isOnFront(name)) return dropped;
    if (reason !== undefined) return { stage: "tried", code: "outranked", message: reason };
    const message = "It does not run, or is not finite, on all samples.";
    return lossOf(name) ?? { stage: "measured", code: "does_not_run", message };
  };
  const original: AutoCandidate = {
    ...{ name: ORIGINAL, spec: null, model_id: null, sha256: null, stage: "measured", predicted: null },
    ...{ measured: axesOf(measured.original), on_front: isOnFront(ORIGINAL) },
    ...{ recommended: choice.recommended.name === ORIGINAL, dropped: lossOf(ORIGINAL) },
  };
  const candidates = tried.map((it): AutoCandidate => {
    const standing = standings.get(it.name);
    return {
      ...{ name: it.name, spec: { ...requestOf(it.spec) }, model_id: null, sha256: it.sha256 },
      stage: standing ? "measured" : it.stage,
      predicted: predictionOf(it.trial),
      measured: standing ? axesOf(standing) : null,
      ...{ on_front: isOnFront(it.name), recommended: it.name === choice.recommended.name, dropped: dropped(it) },
    };
  });
  return { ...choice, candidates: [original, ...candidates], isOnFront };
}

/** The front, the recommendation, and the report. */
export async function conclude(run: SearchRun, found: Found): Promise<JobOutcome> {
  const { request, environment, clock, data } = run;
  const { spec, models } = request;
  const { params } = spec;
  const { host } = environment;
  const { recommended, accepted, why, nextBetter, candidates, isOnFront } = verdictOf(found, params);
  const standing = recommended.measured;
  const auto: AutoMetrics = {
    candidates,
    recommendation: { candidate: recommended.name, model_id: spec.model_id, why, next_better: nextBetter },
    constraints: checkConstraints(params.constraints, standing),
    seconds: clock.seconds(),
  };
  const front = await frontModels(
    run,
    found.tried.filter(({ name }) => isOnFront(name)),
  );
  const best = front.find(({ name }) => name === recommended.name);
  const acceptance = checkAcceptance(spec.acceptance, standing);
  const metrics: JobMetrics = {
    ...axesOf(standing),
    coverage: best ? await coverageOf(run, best) : NOTHING_CHANGED,
    ...{ training: null, exits: null, deployment: null, models: null, auto },
    acceptance: [...auto.constraints, ...acceptance],
    warnings: [...modelWarnings(models[spec.model_id]!.facts), ...data.warnings, ...standing.warnings],
    environment: {
      ...{ onnxruntime: host.onnxruntime, cpu: host.cpu, isa: host.isa },
      ...{ threads: standing.latency.threads, seed: params.seed, versions: host.versions },
    },
  };
  const isAccepted = accepted && acceptance.every(({ ok }) => ok);
  const facts = best?.facts ?? models[spec.model_id]!.facts;
  return {
    model: [],
    front: front.map(({ name, files, facts, renamed }) => ({ name, files, facts, renamed })),
    reports: await writeReports(run, metrics, isAccepted, best),
    ...{ facts, metrics, accepted: isAccepted },
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
  { request, environment, steps }: SearchRun,
  metrics: JobMetrics,
  accepted: boolean,
  best: FrontModel | undefined,
) {
  const { spec, scratch, models } = request;
  const { files } = environment;
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
    timingsMs: steps.timingsMs,
  });
  return [
    await files.writeText(scratch, "report.json", "application/json", `${JSON.stringify(report, null, 2)}\n`),
    await files.writeText(scratch, "report.html", "text/html; charset=utf-8", await renderReport(report)),
  ];
}

const NOTHING_CHANGED = { quantized_nodes: 0, skipped_nodes: [], fused_nodes: 0, float_islands: [] } as const;

function axesOf({ size, fidelity, accuracy, latency, memory }: Standing) {
  return { size, fidelity, accuracy, latency, memory };
}
