import {
  type Dataset,
  type DatasetFacts,
  type JobMetrics,
  type LabelReading,
  METRICS,
  type OutputFacts,
  readLabels,
  type ValueFacts,
  withLabelReading,
  withoutLabels,
} from "../../core/contract.ts";
import type { Evaluation } from "./evaluation.ts";

/** What labels are to do in a job. */
export interface LabelTask {
  readonly metric: Evaluation["metric"];
  readonly ignoreLabel: number | null;
  /** Whether something was asked for that needs them. */
  readonly needed: boolean;
  /** Whether that is a loss. */
  readonly learned?: boolean;
}

/**
 * What labels do: nothing, for want of any or because the job says so; nothing because they fit no output, which has to be said; what the
 * reading says; or they stop the job. The same in the API, which refuses, and in the child, which reads: it follows from recorded facts.
 */
export type LabelUse =
  | { readonly kind: "none" }
  | { readonly kind: "unused" | "misfit" | "bad_values"; readonly message: string }
  | { readonly kind: "used"; readonly reading: LabelReading };

const AS_IS: LabelReading = { meaning: "classes", stored: "as_is" };

/** Decides it for a dataset and the outputs of a model that its labels may be held against. */
export function labelUse(facts: DatasetFacts, outputs: readonly OutputFacts[], task: LabelTask): LabelUse {
  const { metric, ignoreLabel, needed } = task;
  if (!facts.has_labels || metric === "none") return { kind: "none" };
  // Datasets of earlier versions were not looked into: what is wrong with them shows when they are read.
  if (!facts.labels) return { kind: "used", reading: AS_IS };
  const meaning = metric === null ? null : METRICS[metric].labels;
  const verdict = readLabels({ labels: facts.labels, outputs, meaning, ignoreLabel });
  if (verdict.kind === "fits") return { kind: "used", reading: verdict.reading };
  return { kind: verdict.kind === "misfit" && !needed ? "unused" : verdict.kind, message: verdict.message };
}

type Warnings = JobMetrics["warnings"];

/** A dataset whose labels are as they are used, or gone where they are not. Ignored labels come as `ignoredAs`, their own value unless given. */
export function withLabelUse(
  dataset: Dataset,
  use: LabelUse,
  ignoreLabel: number | null,
  ignoredAs: number | null = ignoreLabel,
): Dataset {
  if (use.kind !== "used") return withoutLabels(dataset);
  const ignored = ignoreLabel === null || ignoredAs === null ? null : { from: ignoreLabel, to: ignoredAs };
  return withLabelReading(dataset, use.reading, ignored);
}

/** Models by id. */
type Models = Readonly<Record<string, { readonly facts: { readonly inputs: readonly ValueFacts[] } }>>;

/** What a user has to know of the data that these models are given: values that are not finite or do not vary, and how labels were read. */
export function dataWarnings(facts: DatasetFacts, use: LabelUse, ignoreLabel: number | null, models: Models): Warnings {
  return [...fieldWarnings(facts, models), ...labelWarnings(facts, use, ignoreLabel)];
}

/** What a user has to know of the values of fields, whatever they are for. */
export function fieldWarnings({ fields, warnings = [] }: DatasetFacts, models: Models): Warnings {
  const taken = new Set(Object.values(models).flatMap(({ facts }) => facts.inputs.map(({ name }) => name)));
  return fields.flatMap(({ name, content }): Warnings => {
    if (!content) return [];
    const { first_non_finite: first, non_finite: count, min } = content;
    const field = JSON.stringify(name);
    if (first) {
      const message = `The dataset has ${count} values of ${field} that are NaN or infinite, the first in sample ${first.sample}.`;
      return [{ code: "non_finite_data", message, value: count }];
    }
    // Of a field that no model takes another warning says so.
    if (
      min === null ||
      !taken.has(name) ||
      !warnings.some(({ field, code }) => field === name && code !== "non_finite")
    )
      return [];
    const message = `All values of ${field} in the dataset are ${min}: what is found with them says nothing of data that vary.`;
    return [{ code: "constant_data", message, value: min }];
  });
}

function labelWarnings({ labels }: DatasetFacts, use: LabelUse, ignoreLabel: number | null): Warnings {
  if (use.kind === "unused") {
    const message = `No metric was computed of the labels. ${use.message}`;
    return [{ code: "labels_not_used", message, value: labels?.count ?? 0 }];
  }
  if (use.kind !== "used" || !labels) return [];
  const { stored, meaning } = use.reading;
  const forms = {
    one_hot: "The labels are one-hot rows",
    not_integers: `The labels are ${labels.dtype}${labels.dtype === "bool" ? "" : " without fractions"}`,
    integer_numbers: `The labels are ${labels.dtype}`,
    as_is: "",
  } as const;
  const ignored = labels.outermost.find(({ value }) => value === ignoreLabel)?.count ?? 0;
  return [
    ...(stored === "as_is"
      ? []
      : [
          {
            code: "labels_converted" as const,
            message: `${forms[stored]} and were read as ${meaning === "binary" ? "binary labels, 0 or 1" : meaning}.`,
            value: labels.count,
          },
        ]),
    ...(ignored === 0
      ? []
      : [
          {
            code: "labels_ignored" as const,
            message: `Of the dataset's ${labels.count} labels ${ignored} are ignore_label (${ignoreLabel}): they count neither in losses nor in metrics.`,
            value: ignored,
          },
        ]),
  ];
}
