import {
  CoreError,
  type Dataset,
  type Derivation,
  datasetView,
  defaultMetric,
  deriveStudent,
  drawnSamples,
  fedBy,
  type JobMetrics,
  MAX_EVALUATED_SAMPLES,
  METRICS,
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

/** How much is read for a plan: so many samples of each dataset (reading can mean decoding images), and of a derived student the structure only. */
interface Extent {
  readonly plan?: { readonly samples: number };
  /** Further networks, by id. */
  readonly others?: readonly string[];
}

/** Reads models and data, and makes the student where it is to be derived from the teacher. */
export async function openDistillInputs(
  request: JobInputs<OfflineSpec>,
  threads: number,
  environment: JobEnvironment,
  { signal, news }: JobContext,
  { plan, others = [] }: Extent = {},
): Promise<DistillInputs> {
  const { params } = request.spec;
  const models = openModels(request, others, environment);
  const { teacher, uploaded, reference } = models;
  const training = await openData(request, models, params.dataset_id, trainingLabels(request.spec), environment);
  const maxSamples = plan?.samples ?? Number.POSITIVE_INFINITY;
  const learnedFrom = plan ? drawnSamples(training.dataset, plan.samples) : training.dataset;
  const samples = await trainingSamples(learnedFrom, models.feeds, { signal });
  const student =
    "model_id" in params.student
      ? uploaded!.model
      : await derived(params.student.derive, teacher!.model, {
          ...{ samples, threads, signal, openSession: environment.openSession },
          structureOnly: plan !== undefined,
        });
  const sizes = [teacher?.model, student].map((model) => model && parameterCount(model).toLocaleString("en-US"));
  const ofTeacher = teacher ? `, the teacher ${sizes[0]}` : "";
  news({ kind: "log", level: "info", message: `The student has ${sizes[1]} parameters${ofTeacher}.` });

  const judgement = await openJudgement(request, models, training.dataset, environment);
  const limited = judgement.own && drawnSamples(judgement.own, Math.min(judgement.count, maxSamples));
  const metricFor = (output: string): ValidationMetric | undefined =>
    judgement.isByLabels
      ? labelMetric(request.spec, training.areBinary, samples.gather([0]).targets.labels, output)
      : undefined;
  const validation = judgement.heldOut?.facts.samples ?? 0;
  return {
    ...{ teacher, reference, student, samples, pairs: models.pairs },
    counts: { training: training.dataset.facts.samples - validation, validation },
    evaluation: limited && (await trainingSamples(limited, models.feeds, { signal })),
    judgedBy: limited ? { dataset: limited, kind: "evaluation" } : judgement.byHeldOut,
    metric: metricFor(models.pairs[0]!.student),
    metricOf(output) {
      const metric = metricFor(output);
      if (!metric) throw new CoreError("invalid_dataset", "The dataset has no labels to judge by.", "labels");
      return metric;
    },
    others: new Map([...models.further].map(([id, { model }]) => [id, model])),
    warnings: [...training.warnings, ...judgement.warnings],
  };
}

/** The models of a job, which of their outputs mean the same, and what they are fed. */
function openModels(
  request: JobInputs<OfflineSpec>,
  others: readonly string[],
  { files }: Pick<JobEnvironment, "files">,
) {
  const { params } = request.spec;
  const open = (id: string): StoredModel => {
    const stored = request.models[id]!;
    return { ...stored, model: files.openModel(stored.files) };
  };
  const teacher = params.teacher_model_id === null ? undefined : open(params.teacher_model_id);
  const uploaded = "model_id" in params.student ? open(params.student.model_id) : undefined;
  const reference = teacher ?? uploaded;
  if (!reference) throw new CoreError("invalid_params", "There is no teacher to derive a student from.", "student");
  const further = new Map(others.map((id) => [id, open(id)]));
  const inputs = [teacher, uploaded, ...further.values()].flatMap((it) => it?.facts.inputs ?? []);
  const student = uploaded ?? reference;
  return {
    ...{ teacher, uploaded, reference, further },
    feeds: [...Map.groupBy(inputs, ({ name }) => name).values()].map(([input]) => input!),
    pairs: pairOutputs(reference.facts.outputs, student.facts.outputs, params.loss.outputs ?? undefined),
    labelled: labelledOutputs(request.spec, reference.facts, student.facts),
  };
}

type OpenModels = ReturnType<typeof openModels>;

/** A dataset whose labels are as they are used, and what is to be said of it. */
async function openData(
  request: JobInputs<OfflineSpec>,
  { labelled }: OpenModels,
  id: string,
  task: LabelTask,
  { files }: Pick<JobEnvironment, "files">,
) {
  const { file, spec, facts } = request.datasets[id]!;
  const use = labelUse(facts, labelled, task);
  const ignoredAs = ignoredLabels(request.spec).training;
  return {
    dataset: withLabelUse(await files.openDataset(file, spec), use, task.ignoreLabel, ignoredAs),
    areBinary: use.kind === "used" && use.reading.meaning === "binary",
    warnings: dataWarnings(facts, use, task.ignoreLabel, request.models),
  };
}

/** What a student is judged by: a dataset of its own, or what is held out of the training data; and by labels or, without, by its teacher. */
async function openJudgement(
  request: JobInputs<OfflineSpec>,
  models: OpenModels,
  training: Dataset,
  environment: Pick<JobEnvironment, "files">,
) {
  const { evaluation, params } = request.spec;
  const opened =
    evaluation.dataset_id === null
      ? undefined
      : await openData(request, models, evaluation.dataset_id, evaluationLabels(request.spec), environment);
  const heldOut = validationView(training, params);
  const isUnlabelled = evaluation.metric === "none";
  return {
    own: opened?.dataset,
    count: evaluation.samples ?? MAX_EVALUATED_SAMPLES,
    heldOut,
    byHeldOut: heldOut && {
      dataset: isUnlabelled ? withoutLabels(heldOut) : heldOut,
      kind: "validation" as const,
    },
    isByLabels: !isUnlabelled && opened?.dataset.facts.has_labels !== false,
    warnings: opened?.warnings ?? [],
  };
}

type Derive = Extract<OfflineSpec["params"]["student"], { derive: unknown }>["derive"];

async function derived(derive: Derive, teacher: Model, options: Parameters<typeof deriveStudent>[2]): Promise<Model> {
  const derivation: Derivation = "keep_layers" in derive ? { keepLayers: derive.keep_layers } : derive;
  return (await deriveStudent(teacher, derivation, options)).model;
}

/** The samples that training does not see. */
function validationView(dataset: Dataset, { training, seed }: OfflineSpec["params"]): Dataset | undefined {
  if (training.validation_split === 0) return undefined;
  const { validation } = splitIndices(dataset.facts.samples, training.validation_split, seed);
  return datasetView(dataset, validation);
}

/** The metric asked for, or the one that these labels, of one sample, are for; undefined without any. */
function labelMetric(
  spec: OfflineSpec,
  areBinary: boolean,
  labels: Tensor | undefined,
  output: string,
): ValidationMetric | undefined {
  if (!labels) return undefined;
  const name = metricOf(spec.evaluation) ?? (areBinary ? "binary_accuracy" : defaultMetric(labels, []));
  const ignoreLabel = ignoredLabels(spec).training;
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
