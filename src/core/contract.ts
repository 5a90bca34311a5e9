/**
 * What can be said of models, data and methods without working on any: names, facts, refusals, and what goes together. It is all that the
 * processes which only answer and supervise load of the library; `index.ts` has the rest.
 */

export { TRAINABLE_OPERATORS } from "./autodiff/trainable-operators.ts";
export { type DroppedCode, LOW_SQNR_DB, POOR_SQNR_DB, PROVISION_CODES, WARNING_CODES } from "./codes.ts";
export type { ByteSource, ScratchBytes } from "./data/byte-source.ts";
export type { Dataset, DatasetOptions } from "./data/dataset.ts";
export { checkDatasetFits, feedsFor } from "./data/fit.ts";
export type { ImageDecoder } from "./data/images.ts";
export {
  type LabelReading,
  readLabels,
  withLabelReading,
  withoutLabels,
} from "./data/label-reading.ts";
export { ROW_FORMATS, ROW_KINDS, type RowKind } from "./data/row-formats.ts";
export { type DatasetSpec, TABLE_DTYPES } from "./data/spec.ts";
export { outputMisfit, PEERS, pairOutputs, sharesText } from "./distill/output-pairs.ts";
export { CoreError, checkCancelled } from "./errors.ts";
export { defaultMetric, METRIC_NAMES, METRICS, type MetricName } from "./evaluate/metrics.ts";
export { modelWarnings, nonFiniteText } from "./evaluate/model-warnings.ts";
export type * from "./facts.ts";
export { fedBy } from "./meter.ts";
export { didYouMean, nearestNames } from "./nearest-names.ts";
export { NOTE_CODES } from "./note-codes.ts";
export { areShares } from "./onnx/class-axis.ts";
export { byteLengthOf, DTYPES } from "./onnx/dtype.ts";
export { floatsOf, hasArray, isFloat, type Tensor, tensorOf } from "./onnx/tensor.ts";
export type { Exclusions } from "./passes/pass.ts";
export { QAT_ALGORITHMS } from "./qat/qat-algorithms.ts";
export { CALIBRATION_METHODS } from "./quantize/calibration/calibration-methods.ts";
export { ROUNDINGS } from "./quantize/rounding/roundings.ts";
export type { KernelBook } from "./quantize/static/kernel-book.ts";
export { LAYER_PRECISIONS } from "./quantize/static/layer-precisions.ts";
export { Random } from "./random.ts";
export { heldOutCount } from "./train/samples.ts";
export { UPDATE_ROUNDINGS } from "./train/update-roundings.ts";
