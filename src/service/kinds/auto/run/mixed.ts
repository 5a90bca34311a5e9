import {
  type CandidatePrediction,
  CoreError,
  chooseOptions,
  DEFAULT_METHOD,
  type Feeds,
  type LayerChoice,
  type LayerOption,
  type LayerPrecision,
  layersOf,
  MAX_GROUPS,
  measureLayers,
  runsForGroup,
} from "../../../../core/index.ts";
import { openSamples } from "../../quantize/run/calibration-samples.ts";
import { staticOptionsOf } from "../../quantize/run/static-job.ts";
import { isStatic, type StaticSpec } from "../../quantize/spec.ts";
import type { Candidate } from "../candidates.ts";
import type { AutoSpec } from "../spec.ts";
import { sqnrOf } from "./front.ts";
import { TRIAL_DB } from "./order.ts";
import { predictionOf, type Tried } from "./search.ts";
import type { SearchRun } from "./search-run.ts";

/**
 * Candidates of mixed precision: every layer in that precision in which the model costs least for the noise that it may have. Layers are measured one by
 * one, the choice is a knapsack, and a model that turns out noisier than it should be, or far less noisy, is chosen again with less or more to spend.
 */

/** Samples that the error of layers is measured on. */
const SAMPLES = 8;
/** Of the time that trials have left, what measuring layers may take at most, and what it takes where the rest is short for a candidate. */
const MEASURING_SHARE = { most: 0.5, least: 0.25 };
/** Where there is little time, layers are measured in fewer groups: no less than these. */
const LEAST_GROUPS = 4;
/** Where there would be fewer than these, layers are put in 8 bits and in float alone, which takes one run instead of three. */
const ENOUGH_GROUPS = 12;
const QUICK: readonly LayerPrecision[] = ["float32"];
/** A model takes so many times as long to be made, written, loaded and run as to be loaded and run. */
const MADE_SLOWER = 3;
/** A candidate is chosen again so often, at most. */
const MAX_REPAIRS = 2;
/** With so much less noise than it may have, it is chosen again with more to spend: what layers lose together is often less than the sum. */
const SURPLUS_DB = 1;
/** Less noise than plain static quantization has, for a candidate that is to be better. */
const BETTER_DB = 6;
/** What layers lose together may be more than the sum of what each loses. */
const MARGIN_DB = 0.5;

interface Aim {
  readonly name: string;
  readonly cost: (option: LayerOption) => number;
  /** The least signal to noise ratio of the outputs. */
  readonly leastDb: number;
}

/** What mixed candidates aim at: the constraint, or the quality of plain static quantization. The one of the objective comes first. */
export function aimsOf(plainDb: number, { objective, constraints }: AutoSpec["params"], isTimed: boolean): Aim[] {
  const { min_sqnr_db: least } = constraints;
  // Of equals in one, the better in the other.
  const bytes = ({ bytes, us }: LayerOption) => bytes + us / 100;
  const us = ({ bytes, us }: LayerOption) => us + bytes / 1e6;
  const leastDb = least === null ? plainDb : least + TRIAL_DB;
  const aims = [
    { name: "mixed-smallest", cost: bytes, leastDb },
    ...(isTimed ? [{ name: "mixed-fastest", cost: us, leastDb }] : []),
    ...(isTimed && least === null ? [{ name: "mixed-better", cost: us, leastDb: plainDb + BETTER_DB }] : []),
  ];
  const first = { latency: "mixed-fastest", size: "mixed-smallest", memory: "mixed-smallest", metric: "mixed-better" }[
    objective
  ];
  return aims.toSorted((a, b) => Number(b.name === first) - Number(a.name === first));
}

/** The precision of each layer for an aim, with `spentDb` less noise than it asks for, or more where that is negative; undefined where there is none. */
export function mixedLayers(choices: readonly LayerChoice[], { cost, leastDb }: Aim, spentDb: number) {
  const limit = 10 ** (-(leastDb + spentDb) / 10);
  const groups = choices.map(({ options }) => options);
  const chosen = chooseOptions(groups, cost, ({ noise }) => noise, limit);
  return chosen && layersOf(choices, chosen);
}

interface Trying {
  /** How long trials may still take; 0: no more may be tried. */
  readonly leftMs: () => number;
  /** Whether what its job makes may be better in the objective than what was tried. */
  readonly isPromising: (candidate: Pick<Candidate, "role" | "spec">) => boolean;
  readonly tryOne: (candidate: Candidate) => Promise<Tried>;
}

/** Tries mixed candidates, if any is promising. `plain` is the candidate of plain static quantization, and what has become of it. */
export async function tryMixed(
  run: SearchRun,
  plain: { readonly candidate: Candidate; readonly tried: Tried },
  { leftMs, isPromising, tryOne }: Trying,
): Promise<void> {
  const { request, context, target } = run;
  const { spec } = plain.candidate;
  const found = predictionOf(plain.tried.trial);
  if (!found || spec.type !== "quantize" || !isStatic(spec) || leftMs() === 0) return;
  if (!isPromising({ role: "mixed", spec })) return;
  const { objective } = request.spec.params;
  const measuringMs = measuringWithin(leftMs(), plain.tried.ms);
  const end = AbortSignal.timeout(Math.ceil(Math.max(1, measuringMs)));
  let choices: readonly LayerChoice[];
  try {
    const signal = AbortSignal.any([context.signal, end]);
    choices = await measuredLayers(
      run,
      plain.candidate,
      spec,
      precisionWithin(measuringMs, plain.tried, objective),
      signal,
    );
  } catch (error) {
    if (!(error instanceof CoreError) || context.signal.aborted) throw error;
    const message = `There are no candidates of mixed precision: ${error.code === "cancelled" ? "there was no time to measure layers" : error.message}.`;
    context.news({ kind: "log", level: "info", message });
    return;
  }
  if (choices.length === 0) return;
  const isTimed = choices.some(({ options }) => options.some(({ us }) => us > 0));
  const known = new Set<string>();
  for (const aim of aimsOf(sqnrOf(plain.tried.trial!), request.spec.params, isTimed)) {
    let spentDb = MARGIN_DB;
    let least = Number.POSITIVE_INFINITY;
    for (let repair = 0; repair <= MAX_REPAIRS && leftMs() > 0; repair++) {
      const layers = mixedLayers(choices, aim, spentDb);
      const key = JSON.stringify(layers);
      if (!layers || known.has(key)) break;
      known.add(key);
      const name = target.named(repair === 0 ? aim.name : `${aim.name}-${repair + 1}`);
      const tried = await tryOne({ name, spec: mixedSpec(spec, layers), role: "mixed" });
      const missing = aim.leastDb - (measuredDb(predictionOf(tried.trial)) ?? aim.leastDb);
      if (missing <= 0 && missing > -SURPLUS_DB) break;
      // What was to have less noise has not: layers do not add up, and more of the same would not help.
      if (missing > 0 && missing >= least) break;
      least = Math.min(least, Math.max(0, missing));
      spentDb += missing + MARGIN_DB;
    }
  }
}

/** How long layers may be measured, so that there is time to make a candidate of what is found: no more than plain static quantization took. */
export function measuringWithin(leftMs: number, plainMs: number): number {
  const { most, least } = MEASURING_SHARE;
  return Math.max(least * leftMs, Math.min(most * leftMs, leftMs - plainMs));
}

/**
 * How many groups of layers can be measured in that time, and in which precisions, by what it took to load the model and to run it once. How few bits weights are
 * stored in is of use to what is to be small; it makes nothing faster.
 */
function precisionWithin(ms: number, { loadMs, trial }: Tried, objective: AutoSpec["params"]["objective"]) {
  const modelMs = MADE_SLOWER * ((loadMs ?? 0) + SAMPLES * trial!.latency.before.p50_ms);
  const groupsOf = (precisions?: readonly LayerPrecision[]) =>
    Math.max(LEAST_GROUPS, Math.min(MAX_GROUPS, Math.floor(ms / (runsForGroup(precisions) * modelMs))));
  const groups = groupsOf();
  const isSmall = objective === "size" || objective === "memory";
  return isSmall && groups >= ENOUGH_GROUPS ? { groups } : { groups: groupsOf(QUICK), precisions: QUICK };
}

function measuredDb(prediction: CandidatePrediction | null): number | null {
  return prediction?.sqnr_db ?? null;
}

/** The job that computes these layers as they were chosen, and all others in 8 bits. */
function mixedSpec(spec: StaticSpec, layers: StaticSpec["params"]["layers"]): StaticSpec {
  const { params } = spec;
  return {
    ...spec,
    params: { ...params, layers, float_where_slower: false, max_metric_drop: null, min_sqnr_db: null },
  };
}

async function measuredLayers(
  { request, environment, steps, search }: SearchRun,
  candidate: Candidate,
  spec: StaticSpec,
  asked: ReturnType<typeof precisionWithin>,
  signal: AbortSignal,
): Promise<readonly LayerChoice[]> {
  const base = await search.staticBase(candidate, signal);
  if (!base) return [];
  const { models, threads } = request;
  const samples = await openSamples({ ...request, spec }, models[spec.model_id]!.facts, environment);
  const feeds: Feeds[] = [];
  for await (const batch of samples.feeds(Math.min(SAMPLES, samples.runs))) feeds.push(batch);
  const times = new Map(
    base.layers.map(({ node, float_us, int8_us }) => [node, { floatUs: float_us, int8Us: int8_us }]),
  );
  const { method, ...options } = staticOptionsOf(spec.params, environment.host.target);
  return measureLayers(
    base.float,
    base.calibration,
    { ...options, method: method === "auto" ? DEFAULT_METHOD : method },
    feeds,
    {
      ...{ openModel: environment.openTemporary, threads, signal, ...asked },
      usOf: (label) => times.get(label),
      onProgress: (done, of) => steps.progress("try", 0.5, `measuring layers (${done} of ${of})`),
    },
  );
}
