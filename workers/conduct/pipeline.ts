import { type FinishedStep, toldOf } from "../../src/service/jobs/job.ts";
import { PIPELINE, type PipelineSpec, stepSpec } from "../../src/service/kinds/pipeline/spec.ts";
import { TaskError } from "../../src/tasks/protocol.ts";
import { originOf } from "../job-files.ts";
import { type Attempt, type Conduct, modelsOf } from "./conduct.ts";

/**
 * One child for each step, on the model of the step before, and a last one that compares the last model with the first. Steps that an earlier
 * attempt has finished are not done again.
 */
export const conductPipeline: Conduct<PipelineSpec> = async (spec, attempt) => {
  const { job, perform, files, jobs, news, signal } = attempt;
  const count = spec.params.steps.length;
  const steps = [...(await files.keptSteps(job.steps))];
  for (let i = steps.length; i < count; i++) {
    const finished = await conductStep(spec, i, steps.at(-1)?.model_id ?? spec.model_id, attempt);
    steps.push(finished);
    if (!(await jobs.setSteps(job.id, job.attempt, steps))) {
      throw new TaskError({ code: "cancelled", message: "The job does not run here any more." });
    }
    const { name, model_id, metrics } = finished;
    news.record({ kind: "metric", data: { step: name, model_id, size: metrics.size } });
  }
  const last = steps.at(-1)!;
  const models = [PIPELINE.comparedModelId(spec), last.model_id];
  const span = [count / (count + 1), 1] as const;
  return perform({ spec, prefix: "", span, models, steps }, async ({ accepted, metrics, reports }, scratch) => {
    const artifacts = [
      ...last.model_artifacts,
      ...(await files.publishReports(job.id, reports, scratch, signal)),
      ...steps.flatMap((step) => step.report_artifacts.map((it) => ({ ...it, name: `${step.name}.${it.name}` }))),
    ];
    return {
      result: { model_id: last.model_id, accepted, artifacts, metrics, steps: steps.map(toldOf) },
      models: modelsOf(steps),
    };
  });
};

/** Step `index`, on the model `fed`. The comparison at the end takes as large a share of the progress as a step. */
function conductStep(
  spec: PipelineSpec,
  index: number,
  fed: string | null,
  { job, perform, files, signal }: Attempt,
): Promise<FinishedStep> {
  const parts = spec.params.steps.length + 1;
  const { name, type } = spec.params.steps[index]!;
  const step = stepSpec(spec, index, fed);
  const span = [index / parts, (index + 1) / parts] as const;
  return perform({ spec: step, prefix: `${name}.`, span }, async (outcome, scratch) => {
    const published = await files.publish(job.id, originOf(step), outcome, scratch, signal);
    return {
      name: name!,
      type,
      model_id: published.modelId,
      created: published.created,
      parameters: outcome.facts.parameters,
      metrics: outcome.metrics,
      model_artifacts: published.model,
      report_artifacts: published.reports,
    };
  });
}
