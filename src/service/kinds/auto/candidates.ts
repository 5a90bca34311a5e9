import type { z } from "zod";
import { DEPLOYMENTS, type DeploymentName } from "../quantize/deployments.ts";
import { QuantizeParams } from "../quantize/params.ts";
import type { QuantizeSpec } from "../quantize/spec.ts";
import { type TargetName, targetRefusals } from "../quantize/targets.ts";
import type { AutoSpec, TargetSearch } from "./spec.ts";
import { methodOf, type SearchedSpec, trainedCandidates } from "./trained.ts";

/** What a search tries, in this order: what is likely to be good and quick to make comes first. */

export interface Candidate {
  /** Lower case letters, digits and dashes: artifacts are called by it. */
  readonly name: string;
  /** The job that makes the same bytes. */
  readonly spec: SearchedSpec;
  readonly role: Role;
}

/**
 * When a candidate is tried: `plain` is the plain static quantization, which layers of mixed precision are measured for; `quick` takes a second or two, and is the first of its
 * kind; `weights` is quick, has 8-bit weights and computes in float; `held` is plain but for keeping to a limit; `careful` is plain but for how weights are rounded; `variation` varies another, and is tried behind those of
 * mixed precision; `mixed` is one of these, which no catalogue has; `main` is all else.
 */
type Role = "plain" | "quick" | "weights" | "held" | "careful" | "variation" | "mixed" | "main";

const HELD = "static-held-";

type Sent = z.input<typeof QuantizeParams>;

/** The fields in which candidates differ; the rest is filled in by the defaults of a job. */
function catalogue({ params }: AutoSpec): readonly (readonly [name: string, sent: Sent])[] {
  const { dataset_id, constraints } = params;
  const [target] = params.targets;
  const { max_metric_drop, min_sqnr_db } = constraints;
  const int8 = { method: "static", dataset_id, target: target! } as const;
  const dynamic = { method: "dynamic", target: target! } as const;
  const anywhere = { target: runtimeOf(target!) } as const;
  const weights = { method: "weight_only", ...anywhere } as const;
  const held: (readonly [string, Sent])[] = [
    ...(max_metric_drop !== null ? [[`${HELD}metric`, { ...int8, max_metric_drop }] as const] : []),
    ...(min_sqnr_db !== null ? [[`${HELD}sqnr`, { ...int8, min_sqnr_db }] as const] : []),
  ];
  return [
    ["static", int8],
    ["dynamic", dynamic],
    ["weights-8-bit", { ...weights, bits: 8 }],
    ["weights-4-bit", { ...weights, bits: 4 }],
    ["simplify", { method: "simplify" }],
    ...held,
    ["float16", { method: "float16", ...anywhere }],
    ["static-everywhere", { ...int8, float_where_slower: false }],
    ["weights-8-bit-qdq", { ...weights, bits: 8, format: "qdq" }],
    ["weights-4-bit-gptq", { ...weights, bits: 4, algorithm: "gptq", dataset_id }],
    ["weights-4-bit-qdq", { ...weights, bits: 4, format: "qdq" }],
    ["static-minmax", { ...int8, calibration: "minmax" }],
    ["static-percentile", { ...int8, calibration: "percentile" }],
    ["static-entropy", { ...int8, calibration: "entropy" }],
    ["static-gptq", { ...int8, rounding: "gptq" }],
    ["static-per-tensor", { ...int8, per_channel: false }],
    ["weights-4-bit-blocks-of-128", { ...weights, bits: 4, block_size: 128 }],
    ["weights-4-bit-gptq-qdq", { ...weights, bits: 4, algorithm: "gptq", format: "qdq", dataset_id }],
    ["weights-2-bit-gptq", { ...weights, bits: 2, algorithm: "gptq", dataset_id }],
    ["dynamic-per-tensor", { ...dynamic, per_channel: false }],
    ["static-adaround", { ...int8, rounding: "adaround" }],
    ["weights-4-bit-adaround", { ...weights, bits: 4, rounding: "adaround", dataset_id }],
  ];
}

/** The target of methods that do the same for every machine: a runtime may want it otherwise. */
function runtimeOf(target: TargetName | "auto"): "auto" | DeploymentName {
  return Object.hasOwn(DEPLOYMENTS, target) ? (target as DeploymentName) : "auto";
}

const VARIATIONS: ReadonlySet<string> = new Set([
  ...["static-minmax", "static-percentile", "static-entropy", "static-per-tensor", "static-adaround"],
  ...["weights-4-bit-blocks-of-128", "weights-4-bit-gptq-qdq", "weights-2-bit-gptq", "dynamic-per-tensor"],
  ...["weights-4-bit-adaround"],
]);

const ROLES: Readonly<Record<string, Role>> = {
  static: "plain",
  dynamic: "quick",
  "weights-8-bit": "weights",
  "weights-4-bit": "quick",
  simplify: "quick",
  "static-gptq": "careful",
};

function roleOf(name: string): Role {
  if (name.startsWith(HELD)) return "held";
  return VARIATIONS.has(name) ? "variation" : (ROLES[name] ?? "main");
}

/** Whether a candidate is tried in any case: what it is like is not known from others, and is soon known. */
export function isFirst({ role }: Candidate): boolean {
  return role === "plain" || role === "quick" || role === "weights";
}

/** Whether a candidate only varies another. */
export function isVariation({ role }: Candidate): boolean {
  return role === "variation" || role === "careful";
}

/**
 * The candidates of a search for a target, no more than its budget has; each a complete job of its own. Those that are trained come before what only varies
 * others.
 */
export function candidatesOf({ spec, named }: TargetSearch): readonly Candidate[] {
  const { model_id, params, evaluation } = spec;
  const quantized = catalogue(spec).map(([name, sent]): Candidate => {
    const own = QuantizeParams.parse({ ...sent, seed: params.seed });
    const job: QuantizeSpec = { type: "quantize", model_id, params: own, evaluation, acceptance: {} };
    return { name: named(name), role: roleOf(name), spec: job };
  });
  const trained = trainedCandidates(spec).map(
    ([name, job]): Candidate => ({ name: named(name), role: "main", spec: job }),
  );
  const { methods, budget } = params;
  return [...quantized.filter((it) => !isVariation(it)), ...trained, ...quantized.filter(isVariation)]
    .filter(({ spec }) => spec.type !== "quantize" || targetRefusals(spec.params).length === 0)
    .filter(({ spec }) => methods === null || methods.some((wanted) => wanted === methodOf(spec)))
    .slice(0, budget.candidates);
}
