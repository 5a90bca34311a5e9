import { type JobMetrics, type LayerError, type ModelFacts, verdictOf } from "../../../core/index.ts";
import type { DistillSpec } from "../distill/spec.ts";
import type { JobSpec } from "../kinds.ts";
import type { PipelineSpec } from "../pipeline/spec.ts";
import type { QuantizeSpec } from "../quantize/spec.ts";
import { type RequestBody, requestOf } from "../requests.ts";
import { type Remedy, YOUR_DATASET } from "./remedies.ts";

/** Something worth doing after a job, and the request that does it. */
export interface NextStep {
  readonly title: string;
  readonly why: string;
  /** A body of `POST /v1/jobs`. */
  readonly job: RequestBody;
}

export interface Finished {
  readonly spec: JobSpec;
  readonly metrics: JobMetrics;
  readonly layerErrors: readonly LayerError[] | null;
  /** Of the method, for results that differ too much. */
  readonly remedies: readonly Remedy[];
  /** Of the original. */
  readonly facts: ModelFacts;
}

const MAX_STEPS = 5;
/** Layers that are left in float at once. */
const WORST_LAYERS = 3;

/** What the service knows to try next, the most useful first. */
export function nextSteps(finished: Finished): readonly NextStep[] {
  const { spec, metrics } = finished;
  const { grade } = verdictOf(metrics);
  const missed = new Set(metrics.acceptance.filter(({ ok }) => !ok).map(({ name }) => name));
  const isPoor =
    grade === "check_accuracy" ||
    grade === "broken" ||
    missed.has("max_metric_drop") ||
    missed.has("min_sqnr_db") ||
    metrics.warnings.some(({ code }) => code === "low_fidelity");
  const steps = [
    ...(isPoor && spec.type === "quantize" ? better(finished, spec) : []),
    ...(metrics.fidelity.data === "synthetic" ? [judgedOnData(spec)] : []),
    ...(spec.type === "quantize" ? cheaper(finished, spec, missed, isPoor) : []),
    ...(spec.type === "distill" ? afterTraining(finished, spec, isPoor) : []),
    ...(spec.type === "pipeline" && isPoor ? trainedLonger(spec) : []),
  ];
  const seen = new Set<string>();
  return steps
    .filter(({ job }) => {
      const text = JSON.stringify(job);
      return !seen.has(text) && seen.add(text);
    })
    .slice(0, MAX_STEPS);
}

/** The same job with other parameters, or another method. */
function changed(spec: QuantizeSpec, params: object): RequestBody {
  // What is put together here is parsed when it is posted; parsing it now leaves out what need not be said.
  return requestOf({ ...spec, params } as QuantizeSpec);
}

function datasetOf({ params, evaluation }: QuantizeSpec): string {
  const calibrating = "dataset_id" in params ? params.dataset_id : null;
  return calibrating ?? evaluation.dataset_id ?? YOUR_DATASET;
}

function better({ layerErrors, remedies }: Finished, spec: QuantizeSpec): NextStep[] {
  const worst = (layerErrors ?? [])
    .filter((layer): layer is LayerError & { sqnr_db: number } => layer.sqnr_db !== null)
    .toSorted((a, b) => a.sqnr_db - b.sqnr_db)
    .slice(0, WORST_LAYERS)
    .map(({ node }) => node);
  return remedies.flatMap(({ text, change }): NextStep[] => {
    const params = change?.({ dataset: datasetOf(spec), worst });
    if (params === undefined) return [];
    return [{ title: `Try ${text}`, why: "The outputs differ more than they should.", job: changed(spec, params) }];
  });
}

function judgedOnData(spec: JobSpec): NextStep {
  return {
    title: "Judge it on your own data",
    why: "Random inputs show that nothing broke. Whether answers stay right, only data can tell.",
    job: requestOf({ ...spec, evaluation: { ...spec.evaluation, dataset_id: YOUR_DATASET, dims: {} } }),
  };
}

/** Smaller, or faster. */
function cheaper(
  { metrics, facts }: Finished,
  spec: QuantizeSpec,
  missed: ReadonlySet<string>,
  isPoor: boolean,
): NextStep[] {
  const { method } = spec.params;
  const dataset = datasetOf(spec);
  const isSlow = metrics.latency.speedup < 1.1 || missed.has("min_speedup");
  const hasConvolutions = Object.keys(facts.operators).some((op) => op.startsWith("Conv"));
  const steps: NextStep[] = [];
  const isFloat = ["simplify", "float16", "weight_only", "dynamic"].includes(method);
  if (isSlow && isFloat) {
    steps.push({
      title: "Faster: static int8, calibrated on samples",
      why: hasConvolutions
        ? "Convolutions gain speed on CPUs from 8-bit activations only, and their ranges come from samples."
        : "Activations in 8 bits, with ranges from samples, run on integer kernels.",
      job: changed(spec, { method: "static", dataset_id: dataset }),
    });
    if (!hasConvolutions && method !== "dynamic") {
      steps.push({
        title: "Faster without data: dynamic int8",
        why: "Matrix products and LSTMs compute in 8 bits, with ranges found while the model runs.",
        job: changed(spec, { method: "dynamic" }),
      });
    }
  }
  if (isPoor && !missed.has("max_size_ratio")) return steps;
  if (method === "simplify" || method === "float16") {
    steps.push({
      title: "Smaller: 8-bit weights",
      why: "A quarter of the bytes of float32, without data.",
      job: changed(spec, { method: "weight_only", bits: 8 }),
    });
  } else if (method === "weight_only" && spec.params.bits === 8) {
    steps.push({
      title: "Smaller still: 4-bit weights, rounded by GPTQ on samples",
      why: "About half the bytes of 8 bits. GPTQ keeps much of what rounding to nearest loses.",
      job: changed(spec, { method: "weight_only", bits: 4, algorithm: "gptq", dataset_id: dataset }),
    });
  } else if (method === "static" || method === "dynamic") {
    steps.push({
      title: "Smaller still: 4-bit weights, trained with the rounding in them",
      why: "Weights of 4 bits need training to stay accurate; the float model itself teaches, without labels.",
      job: changed(spec, { method: "qat", dataset_id: dataset, bits: { weights: 4 } }),
    });
  }
  return steps;
}

const longer = (epochs: number) => Math.min(500, 3 * epochs);

function trainedLonger(spec: PipelineSpec): NextStep[] {
  if (!spec.params.steps.some(({ type }) => type === "distill")) return [];
  const steps = spec.params.steps.map((step) =>
    step.type === "distill"
      ? {
          ...step,
          params: {
            ...step.params,
            training: { ...step.params.training, epochs: longer(step.params.training.epochs) },
          },
        }
      : step,
  );
  return [
    {
      title: "Train longer: three times the epochs",
      why: "The last model is far from the first. The steps' own reports say which of them lost most.",
      job: requestOf({ ...spec, params: { steps } } as PipelineSpec),
    },
  ];
}

function afterTraining({ metrics }: Finished, spec: DistillSpec, isPoor: boolean): NextStep[] {
  const { training } = metrics;
  const isTaught = training?.teacher_metric != null;
  const { params } = spec;
  const steps: NextStep[] = [];
  const repeat = (changes: object): RequestBody =>
    requestOf({ ...spec, params: { ...params, ...changes } } as DistillSpec);
  if ("baseline" in params && !params.baseline && "teacher_model_id" in params && params.teacher_model_id !== null) {
    steps.push({
      title: "Measure what the teacher adds",
      why: "The same student is trained on labels alone as well, from the same start.",
      job: repeat({ baseline: true }),
    });
  }
  const isLearning = training !== null && training.best_epoch === training.history.length;
  if (isLearning || (isTaught && isPoor)) {
    const epochs = longer(params.training.epochs);
    steps.push({
      title: `Train longer: ${epochs} epochs`,
      why: isLearning
        ? "The last epoch was the best one: it was still learning."
        : "The student is far from its teacher, and more steps are the first thing to try.",
      job: repeat({ training: { ...params.training, epochs } }),
    });
  }
  if (isTaught && isPoor) return steps;
  steps.push({
    title: "Compress the student: the same training, then static int8",
    why: "A trained student is four times smaller again in 8 bits.",
    job: requestOf({
      type: "pipeline",
      model_id: null,
      params: {
        steps: [
          { type: "distill", name: "student", params },
          {
            type: "quantize",
            name: "int8",
            params: { method: "static", dataset_id: params.dataset_id },
          },
        ],
      },
      evaluation: { ...spec.evaluation, dataset_id: spec.evaluation.dataset_id ?? params.dataset_id },
      acceptance: spec.acceptance,
    } as unknown as JobSpec),
  });
  return steps;
}
