/** What is worth doing after a pipeline. */
import { requestOf } from "../../requests.ts";
import { type Continuations, moreEpochs, type NextStep } from "../../run/next-steps.ts";
import { type PipelineSpec, trains } from "../spec.ts";

export function afterPipeline(spec: PipelineSpec): Continuations {
  return { further: ({ isPoor }) => (isPoor && trains(spec) ? [trainedLonger(spec)] : []) };
}

function trainedLonger(spec: PipelineSpec): NextStep {
  const steps = spec.params.steps.map((step) =>
    step.type === "distill"
      ? {
          ...step,
          params: {
            ...step.params,
            training: { ...step.params.training, epochs: moreEpochs(step.params.training.epochs) },
          },
        }
      : step,
  );
  return {
    title: "Train longer: three times the epochs",
    why: "The last model is far from the first. The steps' own reports say which of them lost most.",
    job: requestOf({ ...spec, params: { steps } } as PipelineSpec),
  };
}
