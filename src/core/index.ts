/** The public surface of the library: `contract.ts` and what does the work. `runtime/` is not part of it: who runs models passes `openSession` in. */

export * from "./contract.ts";
export { datasetView, drawnSamples, inspectDataset, openDataset } from "./data/dataset.ts";
export { averageModels, type BornAgainDistillation, distillBornAgain } from "./distill/born-again.ts";
export { choiceWarnings } from "./distill/choice.ts";
export { comparedOutputs } from "./distill/compared-outputs.ts";
export type { Distillation, DistilledNetwork } from "./distill/distillation.ts";
export type { Exit } from "./distill/exits.ts";
export { distillMeanTeacher, type MeanTeacherDistillation } from "./distill/mean-teacher.ts";
export type { DistillationLoss } from "./distill/objective.ts";
export { checkObjective, distillOffline, type OfflineDistillation } from "./distill/offline.ts";
export { checkOnline, distillOnline, type OnlineDistillation } from "./distill/online.ts";
export {
  checkOwnTeacher,
  distillOwnTeacher,
  type OwnTeacherDistillation,
  type TrainedExit,
} from "./distill/own-teacher.ts";
export { type Derivation, deriveStudent, parameterCount } from "./distill/student.ts";
export type { KeptOutputs } from "./distill/teacher.ts";
export { checkAcceptance } from "./evaluate/acceptance.ts";
export { BrokenModel, runOriginal } from "./evaluate/comparison.ts";
export type { Contender } from "./evaluate/contest.ts";
export { evaluateContest, type Load, type Standing } from "./evaluate/contest.ts";
export { auditedCoverage, completeNotes, coverageWarnings } from "./evaluate/coverage.ts";
export { type Deployed, describeDeployment, type ElsewhereAnswer } from "./evaluate/deployment.ts";
export { evaluateModels, type MeasurePeak } from "./evaluate/evaluate.ts";
export { evaluationInputs, MAX_EVALUATED_SAMPLES } from "./evaluate/evaluation-inputs.ts";
export { listLayers } from "./evaluate/layer-facts.ts";
export { layersThatLoseMost } from "./evaluate/lossy-layers.ts";
export { scoreOf } from "./evaluate/metrics.ts";
export { inspectModel } from "./evaluate/model-facts.ts";
export { measureSpeedup, scoreFidelity, scoreModel } from "./evaluate/score.ts";
export { openTrials, type Trials } from "./evaluate/trials.ts";
export { verdictOf } from "./evaluate/verdict.ts";
export { calibrationWarnings, simulationWarnings } from "./evaluate/warnings.ts";
export type { Model } from "./onnx/ir.ts";
export { labelsByName } from "./onnx/labels.ts";
export { toldBefore } from "./onnx/origin.ts";
export { predictedBytes } from "./onnx/save.ts";
export { removeDeadCode } from "./passes/dead-code.ts";
export { resolveExclusions, type UnknownName, untouchedExclusions, untouchedLayers } from "./passes/exclusions.ts";
export { float16Pass } from "./passes/float16.ts";
export { largestUnfit, type ValueRanges } from "./passes/float16-range.ts";
export { asSimplified, exclusionTest, type Note, type Pass, runPasses } from "./passes/pass.ts";
export { roundedForm } from "./passes/rounded.ts";
export { simplifyPasses } from "./passes/simplify.ts";
export { simplifyFully } from "./passes/simplify-fully.ts";
export { unfuse } from "./passes/unfuse.ts";
export { narrowed, widened } from "./passes/widen.ts";
export { prepareQat, type QatModel, type QatOptions, type QatRuntime, trainQat } from "./qat/qat.ts";
export type { Feeds, OpenModel } from "./quantize/calibration/calibrate.ts";
export { DEFAULT_METHOD } from "./quantize/calibration/calibration-methods.ts";
export { observeRanges } from "./quantize/calibration/value-ranges.ts";
export { planOf, type QuantizationPlan, valueFacts, type WeightUse, weightFacts } from "./quantize/plan.ts";
export { adaround } from "./quantize/rounding/adaround.ts";
export { gptq } from "./quantize/rounding/gptq.ts";
export { nearest } from "./quantize/rounding/nearest.ts";
export type { Rounding } from "./quantize/rounding/rounding.ts";
export { stochastic } from "./quantize/rounding/stochastic.ts";
export { type Calibration, calibrate } from "./quantize/static/calibration.ts";
export { calibrationFromBytes, calibrationToBytes } from "./quantize/static/calibration-file.ts";
export { emptyBook, structureKey } from "./quantize/static/kernel-book.ts";
export type { LayerPrecision } from "./quantize/static/layer-precisions.ts";
export { layersAsked } from "./quantize/static/layers-asked.ts";
export type { AccuracyTarget } from "./quantize/static/layers-in-float.ts";
export {
  chooseOptions,
  type LayerChoice,
  type LayerOption,
  layersOf,
  MAX_GROUPS,
  measureLayers,
  runsForGroup,
} from "./quantize/static/mixed-precision.ts";
export type { PipelineOptions, PipelineResult } from "./quantize/static/pipeline.ts";
export { compressStatic } from "./quantize/static/pipeline.ts";
export { prepareStatic, quantizeStatic, stretchedIn } from "./quantize/static/quantize-static.ts";
export { QuantizedWeights } from "./quantize/weights/codes.ts";
export { dynamicPass } from "./quantize/weights/dynamic.ts";
export { roundWeights } from "./quantize/weights/round-weights.ts";
export { MIN_PACKED_WEIGHTS } from "./quantize/weights/storage.ts";
export { type WeightOnlyOptions, weightOnlyPass } from "./quantize/weights/weight-only.ts";
export type { ProfileModel } from "./runtime/kernel-profile.ts";
export type { OpenSession, Session } from "./runtime/session.ts";
export { patternFor } from "./targets/check-artifact.ts";
export { costTableOf } from "./targets/cost-tables.ts";
export { OPTIMIZERS } from "./train/optimizer.ts";
export type { PhaseHooks } from "./train/phases.ts";
export { type Samples, samplesOf, splitIndices } from "./train/samples.ts";
export { SCHEDULES } from "./train/schedule.ts";
export type { TrainingSettings } from "./train/training-task.ts";

export type { ValidationMetric } from "./train/validate.ts";
