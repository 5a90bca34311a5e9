/** What is worth doing after a quantization. */
import { layersThatLoseMost } from "../../../../core/index.ts";
import { type RequestBody, requestOf } from "../../requests.ts";
import type { Continuations, NextStep, Outcome } from "../../run/next-steps.ts";
import { YOUR_DATASET } from "../../run/remedies.ts";
import type { QuantizeSpec } from "../spec.ts";
import { methodOfJob } from "./methods.ts";

/** Layers that are left in float at once. */
const WORST_LAYERS = 3;
/** With a smaller gain a result counts as slow. */
const LEAST_SPEEDUP = 1.1;

export function afterQuantization(spec: QuantizeSpec): Continuations {
  return { repairs: (outcome) => better(outcome, spec), further: (outcome) => cheaper(outcome, spec) };
}

/** The same job with other parameters, or another method. */
function changed(spec: QuantizeSpec, params: object): RequestBody {
  // What is put together here is parsed when it is posted; parsing it now leaves out what need not be said.
  return requestOf({ ...spec, params } as QuantizeSpec);
}

function datasetOf({ params, evaluation }: QuantizeSpec): string {
  const calibrating = "dataset_id" in params ? params.dataset_id : null;
  return calibrating ?? evaluation.dataset_id ?? YOUR_DATASET;
}

function better({ layerErrors }: Outcome, spec: QuantizeSpec): NextStep[] {
  const worst = layersThatLoseMost(layerErrors, WORST_LAYERS).map(({ node }) => node);
  return methodOfJob(spec)
    .remedies(spec.params)
    .flatMap(({ text, change }): NextStep[] => {
      const params = change?.({ dataset: datasetOf(spec), worst });
      if (params === undefined) return [];
      return [{ title: `Try ${text}`, why: "The outputs differ more than they should.", job: changed(spec, params) }];
    });
}

/** Smaller, or faster. */
function cheaper({ metrics, facts, missed, isPoor }: Outcome, spec: QuantizeSpec): NextStep[] {
  const method = methodOfJob(spec);
  const dataset = datasetOf(spec);
  const isSlow = metrics.latency.speedup < LEAST_SPEEDUP || missed.has("min_speedup");
  const hasConvolutions = Object.keys(facts.operators).some((op) => op.startsWith("Conv"));
  const steps: NextStep[] = [];
  if (isSlow && method.staysInFloat) {
    steps.push({
      title: "Faster: static int8, calibrated on samples",
      why: hasConvolutions
        ? "Convolutions gain speed on CPUs from 8-bit activations only, and their ranges come from samples."
        : "Activations in 8 bits, with ranges from samples, run on integer kernels.",
      job: changed(spec, { method: "static", dataset_id: dataset }),
    });
    const dynamic = { method: "dynamic" };
    if (!hasConvolutions && spec.params.method !== dynamic.method) {
      steps.push({
        title: "Faster without data: dynamic int8",
        why: "Matrix products and LSTMs compute in 8 bits, with ranges found while the model runs.",
        job: changed(spec, dynamic),
      });
    }
  }
  if (isPoor && !missed.has("max_size_ratio")) return steps;
  const smaller = method.smaller?.(spec.params);
  if (smaller) {
    const { title, why, change } = smaller;
    steps.push({ title, why, job: changed(spec, change(dataset)) });
  }
  return steps;
}
