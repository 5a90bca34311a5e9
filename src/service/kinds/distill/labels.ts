import { type ModelFacts, type OutputFacts, pairOutputs } from "../../../core/contract.ts";
import type { LabelTask } from "../label-use.ts";
import type { OfflineSpec } from "./spec.ts";

/** Which labels a distillation reads, and against what. */

/** The student's output that labels belong to: that of the first pair. Empty where outputs cannot be paired. */
export function labelledOutputs(
  { params }: OfflineSpec,
  teacher: ModelFacts,
  student: ModelFacts,
): readonly OutputFacts[] {
  try {
    const [pair] = pairOutputs(teacher.outputs, student.outputs, params.loss.outputs ?? undefined);
    return student.outputs.filter(({ name }) => name === pair!.student);
  } catch {
    return []; // That is refused for itself.
  }
}

/** The label of what has none, in either dataset: what is said of one holds for the other where nothing is. */
export function ignoredLabels({ params, evaluation }: OfflineSpec): {
  readonly training: number | null;
  readonly evaluation: number | null;
} {
  const [own, judged] = [params.loss.ignore_label, evaluation.ignore_label];
  return { training: own ?? judged, evaluation: judged ?? own };
}

/** What labels of the training data are to do. */
export function trainingLabels(spec: OfflineSpec): LabelTask {
  const { loss, baseline } = spec.params;
  const learned = loss.label_weight > 0 || baseline || (loss.output_loss === "dkd" && loss.kl_weight > 0);
  // Labels that are learned are read even if the student is not judged by them.
  const metric = learned && spec.evaluation.metric === "none" ? null : spec.evaluation.metric;
  return { metric, ignoreLabel: ignoredLabels(spec).training, needed: learned || isMetricNeeded(spec), learned };
}

/** What labels of the data that the result is judged by are to do. */
export function evaluationLabels(spec: OfflineSpec): LabelTask {
  const { metric } = spec.evaluation;
  return { metric, ignoreLabel: ignoredLabels(spec).evaluation, needed: isMetricNeeded(spec) };
}

function isMetricNeeded({ evaluation, acceptance }: OfflineSpec): boolean {
  return (evaluation.metric !== null && evaluation.metric !== "none") || acceptance.max_metric_drop !== undefined;
}
