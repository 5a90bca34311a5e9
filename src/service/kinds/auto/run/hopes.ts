import type { QuantizeSpec } from "../../quantize/spec.ts";
import type { Candidate } from "../candidates.ts";
import type { AutoSpec } from "../spec.ts";
import type { SearchedSpec } from "../trained.ts";
import { distanceTo, type Measured, OBJECTIVES, sqnrOf, TOLD_APART } from "./front.ts";
import { TRIAL_DB } from "./order.ts";
import type { Tried } from "./search.ts";

/**
 * What may be hoped of a candidate that was not made yet, by what was measured of others that compute in the same way: what cannot become better in the objective
 * than what holds the limits already is not worth its trial. Pure: the same trials give the same answer.
 */

type Way = "int8" | "dynamic" | "float";

/**
 * How much faster than the fastest that computes in the same way a candidate may be. In static int8 the plain one leaves in float what was measured to be slower
 * in 8 bits, and others differ from it by their numbers, or have more in float.
 */
const FASTER: Readonly<Record<Way, number>> = { int8: 1, dynamic: 1.1, float: 1.1 };
/** What other ranges leave, at the least, of the noise that plain static quantization has besides that of its weights. */
const LEFT_BY_RANGES = 0.25;
/** A scale and what goes with it, in bits. */
const SCALE_BITS = 32;

/** What a candidate computes in; undefined for what is trained, which may be any network. */
function wayOf(spec: SearchedSpec): Way | undefined {
  if (spec.type !== "quantize") return undefined;
  const { method } = spec.params;
  if (method === "qat") return undefined;
  return method === "static" ? "int8" : method === "dynamic" ? "dynamic" : "float";
}

type Ran = Tried & { readonly trial: Measured };
const hasRun = (it: Tried): it is Ran => it.trial !== null;

/** The best in the objective of those that hold all limits in their trials, and do so with something to spare; undefined for none. */
function bestOf(tried: readonly Tried[], { objective, constraints }: AutoSpec["params"]): Ran | undefined {
  const { min_sqnr_db: least } = constraints;
  const limits = { ...constraints, min_sqnr_db: least === null ? null : least + TRIAL_DB };
  const cost = ({ trial }: Ran) => OBJECTIVES[objective](trial);
  return tried
    .filter(hasRun)
    .filter(({ dropped, trial }) => dropped === null && distanceTo(limits, trial) === 0)
    .toSorted((a, b) => cost(a) - cost(b))[0];
}

/**
 * Why the job of a candidate cannot make a model that is better in the objective than what was tried, by more than measurements tell apart; undefined where it may,
 * or where nothing is known.
 */
export function whyUnpromising(
  { spec, role }: Pick<Candidate, "spec" | "role">,
  tried: readonly Tried[],
  params: AutoSpec["params"],
): string | undefined {
  const best = bestOf(tried, params);
  if (!best) return undefined;
  const cleanest = role === "held" || role === "mixed" ? undefined : hopedDb(spec, tried);
  const { min_sqnr_db: leastDb } = params.constraints;
  if (leastDb !== null && cleanest !== undefined && cleanest < leastDb) {
    return `By what its weights alone lose it has no more than ${cleanest.toFixed(1)} dB, and ${best.name} holds the limits.`;
  }
  if (params.objective === "latency") {
    const hoped = hopedSpeedup(spec, tried, best);
    if (hoped === undefined || hoped > best.trial.latency.speedup * (1 + TOLD_APART)) return undefined;
    return `What computes like it is up to ${hoped.toFixed(2)} times as fast, and ${best.name}, which holds the limits, is ${best.trial.latency.speedup.toFixed(2)} times as fast.`;
  }
  // Layers of mixed precision are stored in as few bits as they bear.
  if (params.objective !== "size" || role === "mixed") return undefined;
  const hoped = hopedBytes(spec, tried);
  if (hoped === undefined || hoped < best.trial.size.after_bytes * (1 - TOLD_APART)) return undefined;
  const ratio = (bytes: number) => `${((100 * bytes) / best.trial.size.before_bytes).toFixed(1)} %`;
  return `It would have no less than ${ratio(hoped)} of the size, and ${best.name}, which holds the limits, has ${ratio(best.trial.size.after_bytes)}.`;
}

/**
 * How many times as fast as the original a candidate may be; undefined where nothing that computes like it was timed. What was timed may be as fast as its interval
 * says, but not faster than `best` where it is as fast as that.
 */
function hopedSpeedup(spec: SearchedSpec, tried: readonly Tried[], best: Ran): number | undefined {
  const way = wayOf(spec);
  if (way === undefined) return undefined;
  const alike = tried.filter(hasRun).filter((it) => wayOf(it.spec) === way);
  // The original computes in float.
  const fastest = ({ structure, trial: { latency } }: Ran) =>
    structure !== null && structure === best.structure
      ? latency.speedup
      : (latency.speedup_interval?.[1] ?? latency.speedup);
  const known = [...alike.map(fastest), ...(way === "float" ? [1] : [])];
  return known.length === 0 ? undefined : FASTER[way] * Math.max(...known);
}

/**
 * The signal to noise ratio that static int8 may have with other ranges and weights rounded to the nearest: what the weights alone lose, by what it has with 8-bit
 * weights that computes in float, and a part of what the first one loses besides. Undefined for others, and where nothing is known.
 */
function hopedDb(spec: SearchedSpec, tried: readonly Tried[]): number | undefined {
  if (!isNearest(spec)) return undefined;
  const ran = tried.filter(hasRun);
  const first = ran.find((it) => isNearest(it.spec));
  const weights = ran.find(({ spec }) => spec.type === "quantize" && isPlainWeights(spec.params));
  if (!first || !weights) return undefined;
  const noise = ({ trial }: Ran) => 10 ** (-sqnrOf(trial) / 10);
  const least = noise(weights) + LEFT_BY_RANGES * Math.max(0, noise(first) - noise(weights));
  return -10 * Math.log10(least);
}

/** Static int8 of all layers, with weights rounded to the nearest. */
function isNearest(spec: SearchedSpec): boolean {
  if (spec.type !== "quantize" || spec.params.method !== "static") return false;
  const { rounding, layers } = spec.params;
  return rounding === "nearest" && Object.values(layers).every((precision) => precision === "int8_weights");
}

function isPlainWeights(params: QuantizeSpec["params"]): boolean {
  return params.method === "weight_only" && params.bits === 8 && params.rounding === "nearest";
}

/** How small a candidate may be, in bytes; undefined where nothing that is stored like it was made. */
function hopedBytes(spec: SearchedSpec, tried: readonly Tried[]): number | undefined {
  const ran = tried.filter(hasRun);
  const way = wayOf(spec);
  if (spec.type !== "quantize" || way === undefined || ran.length === 0) return undefined;
  const { params } = spec;
  if (params.method === "simplify") return undefined;
  if (params.method === "float16") return ran[0]!.trial.size.before_bytes / 2;
  const own = bitsOf(params);
  const sizes = ran
    .filter((it) => it.spec.type === "quantize" && it.spec.params.method === params.method)
    .map(({ spec, trial }) => {
      // Not all of a file are weights: it shrinks by less than they do.
      const shrunk = spec.type === "quantize" ? Math.min(1, own / bitsOf(spec.params)) : 1;
      return shrunk * trial.size.after_bytes;
    });
  return sizes.length === 0 ? undefined : Math.min(...sizes);
}

/** Bits that a weight is stored in, with its part of a scale. */
function bitsOf(params: Extract<SearchedSpec, { type: "quantize" }>["params"]): number {
  return params.method === "weight_only" ? params.bits + SCALE_BITS / params.block_size! : 8;
}
