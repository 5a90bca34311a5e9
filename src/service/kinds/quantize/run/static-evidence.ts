/** What a static job tells of how its result was made. */
import type { CorrectionFacts, PipelineResult, StaticEvidence } from "../../../../core/index.ts";
import { type Control, RESCUED_DB, SQNR } from "./accuracy-limits.ts";
import type { CalibrationSamples } from "./calibration-samples.ts";

/** What is reported of outputs that are exactly the same. */
const MAX_DB = 200;

function rounded(us: number): number {
  return Number(us.toPrecision(4));
}

export function evidenceOf(
  {
    calibration,
    kernels,
    slower,
    method,
    methodsTried,
    corrections,
    sensitivity,
    control: found,
    float,
  }: PipelineResult,
  { calibrated }: CalibrationSamples,
  isCalibrationKnown: boolean,
  control: Control | undefined,
): StaticEvidence {
  const target = control?.target.target ?? RESCUED_DB;
  // Inside, nodes are known by names that are unique in all bodies; users know them by their labels.
  const labels = new Map([...float.nodes()].map(({ name, label }) => [name, label]));
  const labelsOf = (names: readonly string[]) => names.map((name) => labels.get(name) ?? name);
  const chosen = found?.floatLayers.toSorted().join("\n");
  return {
    calibration: {
      method,
      tried: methodsTried.map((it) => ({ method: it.method, sqnr_db: Math.min(it.sqnrDb, MAX_DB) })),
      samples: calibrated,
      tensors: calibration.activations.size,
      cached: isCalibrationKnown,
    },
    kernels: kernels
      ? {
          ...kernels.facts,
          nodes: [...new Set(labelsOf(slower))],
          layers: kernels.layers.map(({ name, floatUs, int8Us }) => ({
            ...{ node: labels.get(name) ?? name, float_us: rounded(floatUs), int8_us: rounded(int8Us) },
          })),
          cached: kernels.known,
        }
      : null,
    corrections: corrections.map(
      (it): CorrectionFacts => ({
        ...it,
        sqnr_before_db: Math.min(it.sqnr_before_db, MAX_DB),
        sqnr_after_db: Math.min(it.sqnr_after_db, MAX_DB),
      }),
    ),
    sensitivity: sensitivity.map(({ names, sqnrDb, gainDb }) => ({
      nodes: labelsOf(names),
      sqnr_db: sqnrDb,
      gain_db: gainDb,
    })),
    control: found
      ? {
          score: control?.score ?? SQNR,
          target,
          original_score: control?.originalScore ?? null,
          reached: found.reached,
          stored_nodes: labelsOf([...found.stored]),
          trials: found.trials.map(({ floatLayers, score, speedup, bytes }) => ({
            float_nodes: labelsOf(floatLayers),
            score: Math.min(score, MAX_DB),
            size_bytes: bytes,
            speedup,
            chosen: floatLayers.toSorted().join("\n") === chosen,
          })),
        }
      : null,
  };
}
