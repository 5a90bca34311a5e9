/** What is worth doing after a training. */
import type { JobSpec } from "../../kinds.ts";
import { type RequestBody, requestOf } from "../../requests.ts";
import { type Continuations, moreEpochs, type NextStep, type Outcome } from "../../run/next-steps.ts";
import type { DistillSpec } from "../spec.ts";

/** `isLabelled`: whether the samples that were learned from have labels. */
export function afterTraining(spec: DistillSpec, isLabelled: boolean): Continuations {
  return { further: (outcome) => furtherTraining(outcome, spec, isLabelled) };
}

function furtherTraining({ metrics, isPoor }: Outcome, spec: DistillSpec, isLabelled: boolean): NextStep[] {
  const { training } = metrics;
  const isTaught = training?.teacher_metric != null;
  const { params } = spec;
  const steps: NextStep[] = [];
  const repeat = (changes: object): RequestBody =>
    requestOf({ ...spec, params: { ...params, ...changes } } as DistillSpec);
  const hasTeacher = "teacher_model_id" in params && params.teacher_model_id !== null;
  if (isLabelled && hasTeacher && !params.baseline) {
    steps.push({
      title: "Measure what the teacher adds",
      why: "The same student is trained on labels alone as well, from the same start.",
      job: repeat({ baseline: true }),
    });
  }
  const isLearning = training !== null && training.best_epoch === training.history.length;
  if (isLearning || (isTaught && isPoor)) {
    const epochs = moreEpochs(params.training.epochs);
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
