import {
  CoreError,
  type Dataset,
  type Derivation,
  datasetView,
  defaultMetric,
  deriveStudent,
  fedBy,
  type JobMetrics,
  MAX_EVALUATED_SAMPLES,
  METRICS,
  type MetricName,
  type Model,
  type ModelFacts,
  pairOutputs,
  parameterCount,
  type Samples,
  splitIndices,
  type Tensor,
  type ValidationMetric,
  withoutLabels,
} from "../../../../core/index.ts";
import type { JobInputs, LocalFile } from "../../../../tasks/protocol.ts";
import { metricOf } from "../../evaluation.ts";
import { dataWarnings, type LabelTask, labelUse, withLabelUse } from "../../label-use.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext } from "../../run/job-steps.ts";
import { trainingSamples } from "../../run/training-samples.ts";
import { evaluationLabels, ignoredLabels, labelledOutputs, trainingLabels } from "../labels.ts";
import type { OfflineSpec } from "../spec.ts";

/** A stored model, read. */
interface StoredModel {
  readonly files: readonly LocalFile[];
  readonly model: Model;
  readonly facts: ModelFacts;
}

/** Everything that a distillation reads, put together. */
export interface DistillInputs {
  readonly teacher: StoredModel | undefined;
  /** What the trained student is compared with: the teacher, or in plain training the student as it was. */
  readonly reference: StoredModel;
  readonly student: Model;
  /** Those held out are among them. */
  readonly samples: Samples;
  /** How many samples of the dataset are learned from, and how many are held out. */
  readonly counts: { readonly training: number; readonly validation: number };
  /** For the final numbers; undefined: the samples that are held out. */
  readonly evaluation: Samples | undefined;
  /** The same samples, or those held out, for the evaluation; undefined when there are neither. */
  readonly judgedBy: { readonly dataset: Dataset; readonly kind: "evaluation" | "validation" } | undefined;
  /** Undefined without labels. */
  readonly metric: ValidationMetric | undefined;
  /** What is to be said of labels. */
  readonly warnings: JobMetrics["warnings"];
  readonly pairs: readonly { readonly teacher: string; readonly student: string }[];
  /** How well an output of this name fits the labels. Throws `invalid_dataset` where there are none to judge by. */
  readonly metricOf: (output: string) => ValidationMetric;
  /** Further networks, by id. */
  readonly others: ReadonlyMap<string, Model>;
}

/**
 * Reads models and data, and makes the student where it is to be derived from the teacher. For a plan no more than so many samples of each
 * dataset are read (reading can mean decoding images), and of a derived student only the structure is made.
 */
export async function openDistillInputs(
  request: JobInputs<OfflineSpec>,
  threads: number,
  { files, openSession }: JobEnvironment,
  { signal, news }: JobContext,
  { plan, others = [] }: { readonly plan?: { readonly samples: number }; readonly others?: readonly string[] } = {},
): Promise<DistillInputs> {
  const maxSamples = plan?.samples ?? Number.POSITIVE_INFINITY;
  const { params, evaluation: judging } = request.spec;
  const open = (id: string): StoredModel => {
    const stored = request.models[id]!;
    return { ...stored, model: files.openModel(stored.files) };
  };

  const teacher = params.teacher_model_id === null ? undefined : open(params.teacher_model_id);
  const uploaded = "model_id" in params.student ? open(params.student.model_id) : undefined;
  const reference = teacher ?? uploaded;
  if (!reference) throw new CoreError("invalid_params", "There is no teacher to derive a student from.", "student");
  const further = new Map(others.map((id) => [id, open(id)]));
  const inputs = Map.groupBy(
    [teacher, uploaded, ...further.values()].flatMap((it) => it?.facts.inputs ?? []),
    ({ name }) => name,
  );
  const feeds = [...inputs.values()].map(([input]) => input!);

  const pairs = pairOutputs(
    reference.facts.outputs,
    (uploaded ?? reference).facts.outputs,
    params.loss.outputs ?? undefined,
  );
  const labelled = labelledOutputs(request.spec, reference.facts, (uploaded ?? reference).facts);
  const ignoreLabel = ignoredLabels(request.spec);
  const openData = async (id: string, task: LabelTask) => {
    const { file, spec, facts } = request.datasets[id]!;
    const use = labelUse(facts, labelled, task);
    const dataset = withLabelUse(await files.openDataset(file, spec), use, task.ignoreLabel, ignoreLabel.training);
    const areBinary = use.kind === "used" && use.reading.meaning === "binary";
    return { dataset, areBinary, warnings: dataWarnings(facts, use, task.ignoreLabel, request.models) };
  };
  const { dataset: training, areBinary, warnings } = await openData(params.dataset_id, trainingLabels(request.spec));
  const first = (dataset: Dataset, count: number) =>
    datasetView(dataset, firstIndices(Math.min(dataset.facts.samples, count, maxSamples)));
  const samples = await trainingSamples(first(training, training.facts.samples), feeds, { signal });
  const student =
    "model_id" in params.student
      ? uploaded!.model
      : (
          await deriveStudent(teacher!.model, derivationOf(params.student.derive), {
            samples,
            openSession,
            threads,
            signal,
            structureOnly: plan !== undefined,
          })
        ).model;
  const sizes = [teacher?.model, student].map((model) => model && parameterCount(model).toLocaleString("en-US"));
  const ofTeacher = teacher ? `, the teacher ${sizes[0]}` : "";
  news({ kind: "log", level: "info", message: `The student has ${sizes[1]} parameters${ofTeacher}.` });

  const judged =
    judging.dataset_id === null ? undefined : await openData(judging.dataset_id, evaluationLabels(request.spec));
  const own = judged?.dataset;
  const heldOut = validationView(training, params);
  const validation = heldOut?.facts.samples ?? 0;
  const limited = own && first(own, judging.samples ?? MAX_EVALUATED_SAMPLES);
  // Without labels to judge by, a student is judged by its teacher.
  const metricFor = (output: string): ValidationMetric | undefined =>
    judging.metric === "none" || judged?.dataset.facts.has_labels === false
      ? undefined
      : labelMetric(
          metricOf(judging) ?? (areBinary ? "binary_accuracy" : null),
          samples.gather([0]).targets.labels,
          output,
          ignoreLabel.training,
        );
  return {
    teacher,
    reference,
    student,
    samples,
    counts: { training: training.facts.samples - validation, validation },
    evaluation: limited && (await trainingSamples(limited, feeds, { signal })),
    judgedBy: limited
      ? { dataset: limited, kind: "evaluation" }
      : heldOut && { dataset: judging.metric === "none" ? withoutLabels(heldOut) : heldOut, kind: "validation" },
    metric: metricFor(pairs[0]!.student),
    metricOf(output) {
      const metric = metricFor(output);
      if (!metric) throw new CoreError("invalid_dataset", "The dataset has no labels to judge by.", "labels");
      return metric;
    },
    others: new Map([...further].map(([id, { model }]) => [id, model])),
    warnings: [...warnings, ...(judged?.warnings ?? [])],
    pairs,
  };
}

function derivationOf(derive: Extract<OfflineSpec["params"]["student"], { derive: unknown }>["derive"]): Derivation {
  return "keep_layers" in derive ? { keepLayers: derive.keep_layers } : derive;
}

/** The samples that training does not see. */
function validationView(dataset: Dataset, { training, seed }: OfflineSpec["params"]): Dataset | undefined {
  if (training.validation_split === 0) return undefined;
  const { validation } = splitIndices(dataset.facts.samples, training.validation_split, seed);
  return datasetView(dataset, validation);
}

/** The metric given, or `top1` for integers and `mse` for other numbers. */
function labelMetric(
  asked: MetricName | null,
  labels: Tensor | undefined,
  output: string,
  ignoreLabel: number | null,
): ValidationMetric | undefined {
  if (!labels) return undefined;
  const name = asked ?? defaultMetric(labels, []);
  const metric = METRICS[name];
  return {
    name,
    better: metric.better,
    start() {
      return fedBy(metric.start(ignoreLabel), (outputs, targets) => {
        const [scores, truth] = [outputs[output]!, targets.labels!];
        if (metric.fits(scores, truth)) return [scores, truth];
        throw new CoreError(
          "invalid_dataset",
          `The metric ${name} wants ${metric.wants}; labels of ${truth.dtype} [${truth.dims}] do not fit the output "${output}", [${scores.dims}].`,
          "labels",
        );
      });
    },
  };
}

function firstIndices(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => i);
}
