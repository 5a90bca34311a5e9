/** Which way to find ranges is best, and whether corrected biases help: on a few samples. */
import { POOR_SQNR_DB } from "../../codes.ts";
import type { CorrectionFacts } from "../../facts.ts";
import type { Model } from "../../onnx/ir.ts";
import { CALIBRATION_METHODS, type CalibrationMethod, DEFAULT_METHOD } from "../calibration/calibration-methods.ts";
import { type BiasShifts, correctBiases } from "./bias-correction.ts";
import type { Calibration } from "./calibration.ts";
import type { Trial } from "./channel-trials.ts";
import { quantizeStatic, type StaticOptions } from "./quantize-static.ts";

export interface MethodTrial {
  readonly method: CalibrationMethod;
  /** Of the outputs of a model whose ranges it found, with corrected biases where those are wanted and better. */
  readonly sqnrDb: number;
}

/** A trial of a method with weights rounded to nearest, and its corrected biases. */
interface CorrectedTrial extends MethodTrial {
  readonly biases: ChosenBiases | undefined;
}

/** Less is chance, on a few samples. */
const MIN_METHOD_GAIN_DB = 0.5;

/**
 * Methods to find ranges, by the outputs of the model that comes of each; the first is to be taken. All of them know the same histograms, so
 * each costs a search, a few runs and what the correction of biases takes. Others than the default are tried only where that is poor: the SQNR on
 * a few samples tells a method that fails from one that works, and not which of two good ones keeps more answers.
 */
export async function tryMethods(
  float: Model,
  calibration: Calibration,
  options: Omit<StaticOptions, "method">,
  trial: Trial,
): Promise<CorrectedTrial[]> {
  const { reference, runtime } = trial;
  const tried: CorrectedTrial[] = [];
  const others = CALIBRATION_METHODS.filter((method) => method !== DEFAULT_METHOD);
  for (const method of [DEFAULT_METHOD, ...others]) {
    const ranged: StaticOptions = { ...options, method };
    // What one method loses, corrected biases may give back, and more so than another's.
    const biases = await chooseBiases(float, calibration, ranged, trial);
    const sqnrDb = biases
      ? Math.max(biases.facts.sqnr_before_db, biases.facts.sqnr_after_db)
      : await reference.sqnrDb(quantizeStatic(float, calibration, ranged).model);
    tried.push({ method, sqnrDb, biases });
    runtime.onProgress?.(
      "calibrate",
      1,
      `${tried.length} of ${CALIBRATION_METHODS.length} ways to choose ranges tried`,
    );
    if (method === DEFAULT_METHOD && sqnrDb >= POOR_SQNR_DB) return tried;
  }
  const favoured = ({ method, sqnrDb }: CorrectedTrial) =>
    sqnrDb + (method === DEFAULT_METHOD ? MIN_METHOD_GAIN_DB : 0);
  return tried.sort((a, b) => favoured(b) - favoured(a) || 0);
}

interface ChosenBiases {
  /** Undefined where they made nothing better. */
  readonly shifts: BiasShifts | undefined;
  readonly facts: CorrectionFacts;
}

/** Corrects biases, and keeps the corrections if outputs for other samples become better by them. */
export async function chooseBiases(
  float: Model,
  calibration: Calibration,
  options: StaticOptions,
  { unjudged, reference, runtime, options: { biasCorrection } }: Trial,
): Promise<ChosenBiases | undefined> {
  if (!biasCorrection) return undefined;
  const plain = quantizeStatic(float, calibration, options);
  if (plain.layers.length === 0) return undefined;
  const correct = async () => {
    const biasShifts = await correctBiases(float, plain.model, plain.layers, unjudged, runtime);
    const corrected = quantizeStatic(float, calibration, { ...options, biasShifts });
    return { biasShifts, after: await reference.sqnrDb(corrected.model, { beside: true }) };
  };
  const [before, { biasShifts, after }] = await Promise.all([
    reference.sqnrDb(plain.model, { beside: true }),
    correct(),
  ]);
  const applied = after > before;
  const facts: CorrectionFacts = {
    name: "bias_correction",
    sqnr_before_db: before,
    sqnr_after_db: after,
    applied,
  };
  return { shifts: applied ? biasShifts : undefined, facts };
}
