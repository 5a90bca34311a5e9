/** What is worth doing after an evaluation. */
import { AutoParams } from "../../auto/params.ts";
import { requestOf } from "../../requests.ts";
import type { Continuations, NextStep, Outcome } from "../../run/next-steps.ts";
import { YOUR_DATASET } from "../../run/remedies.ts";
import type { EvaluateSpec } from "../spec.ts";

export function afterEvaluation(spec: EvaluateSpec): Continuations {
  return { further: (outcome) => search(outcome, spec) };
}

/** A search for smaller models, where none was given or none was good enough. What it judges by is not what it calibrates on. */
function search({ metrics, isPoor, missed }: Outcome, spec: EvaluateSpec): NextStep[] {
  const [reference, ...others] = spec.params.model_ids;
  const isSmallAlready = metrics.coverage.quantized_nodes > 0;
  if (others.length === 0 ? isSmallAlready : !isPoor && missed.size === 0) return [];
  const { max_metric_drop, min_sqnr_db, max_size_ratio, min_speedup } = spec.acceptance;
  return [
    {
      title: others.length === 0 ? "Make it smaller and faster" : "Search for a model that holds your limits",
      why: "A search tries the methods on samples of yours, measures the best, and recommends one.",
      job: requestOf({
        type: "auto",
        model_id: reference!,
        params: AutoParams.parse({
          dataset_id: YOUR_DATASET,
          constraints: { max_metric_drop, min_sqnr_db, max_size_ratio, min_speedup },
        }),
        evaluation: spec.evaluation,
        acceptance: {},
      }),
    },
  ];
}
