/** What in a plan may come out otherwise in the job. */
import { type Calibration, type Model, POOR_SQNR_DB, type Provision, stretchedIn } from "../../../../core/index.ts";
import type { StaticParams } from "../spec.ts";

/** Runs or samples that a plan has looked at, of those that the job looks at. */
export function rangeProvisions(looked: number, all: number, at: "runs" | "samples" = "runs"): Provision[] {
  if (looked >= all) return [];
  const message = `Ranges were taken from ${looked} of ${all} ${at}: nodes that only others reach, or that compute infinities in them, are treated otherwise.`;
  return [{ code: "ranges_from_few", message, nodes: [] }];
}

/** Nodes whose form the job measures. */
export function stretchedProvisions(model: Model, seen: Calibration): Provision[] {
  const names = new Set(stretchedIn(model, seen).flatMap(({ nodes }) => [...nodes]));
  if (names.size === 0) return [];
  const labels = [...model.nodes()].filter(({ name }) => names.has(name)).flatMap(({ origins }) => [...origins]);
  const message =
    "The job measures whether these stay in float, because they reach an operator that stretches small values.";
  return [{ code: "measured_choice", message, nodes: [...new Set(labels)] }];
}

/** Nodes that are timed on the machine that runs the job. */
export function speedProvisions(isMeasured: boolean): Provision[] {
  if (!isMeasured) return [];
  const message = "The job measures which nodes are faster in float on its machine, and leaves these in float.";
  return [{ code: "measured_choice", message, nodes: [] }];
}

/** Layers that a limit keeps in float. */
export function accuracyProvisions({ max_metric_drop: drop, min_sqnr_db: least }: StaticParams): Provision[] {
  if (drop === null && least === null) return [];
  const limit =
    drop !== null
      ? `the metric drops by more than ${drop}`
      : least === "auto"
        ? `the outputs are below ${POOR_SQNR_DB} dB`
        : `the outputs are below ${least} dB`;
  return [{ code: "accuracy", message: `Should it be found that ${limit}, layers stay in float.`, nodes: [] }];
}
