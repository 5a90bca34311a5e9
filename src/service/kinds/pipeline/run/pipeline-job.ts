import { inspectModel, pairOutputs } from "../../../../core/index.ts";
import {
  type JobInputs,
  type JobOutcome,
  type JobRequest,
  type PipelinePlan,
  TaskError,
} from "../../../../tasks/protocol.ts";
import type { Learned } from "../../kind.ts";
import { dataWarnings, type LabelTask, labelUse, withLabelUse } from "../../label-use.ts";
import { PREVIOUS } from "../../previous.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import { judgeResult } from "../../run/job-result.ts";
import type { JobRun } from "../../run/job-run.ts";
import { createJobSteps, type JobContext } from "../../run/job-steps.ts";
import { PIPELINE, type PipelineSpec, stepPointer, stepSpec } from "../spec.ts";
import { stepKindOf } from "../steps.ts";
import { afterPipeline } from "./next-steps.ts";
import { stepRunOf } from "./step-runs.ts";

type StepPlan = PipelinePlan["steps"][number]["plan"];

/**
 * Plans every step. What a step would be fed is not there yet: a model of the same structure stands in for it, with other weights.
 * Throws as the plans of the steps do; fields at fault are those of the pipeline.
 */
async function planPipelineJob(
  request: JobInputs<PipelineSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<PipelinePlan> {
  const { spec } = request;
  const { files, openSession } = environment;
  const { signal } = context;

  async function planFrom(
    index: number,
    models: JobInputs["models"],
    fed: string | null,
  ): Promise<PipelinePlan["steps"]> {
    const step = { ...request, models, spec: stepSpec(spec, index, fed) };
    const { name } = spec.params.steps[index]!;
    const [plan, made] = await inStep(index, async () => [
      await stepRunOf(step.spec).plan(step, environment, context),
      index + 1 < spec.params.steps.length
        ? await stepRunOf(step.spec).planModel(step, environment, context)
        : undefined,
    ]);
    const planned = { name: name!, plan: index === 0 ? plan : afterStep(plan, spec.params.steps[index - 1]!.name!) };
    if (made === undefined) return [planned];
    const later = await files.withTemporaryFiles(made, async (local) => {
      const source = { path: local[0]!.path };
      const facts = await inStep(index, () => inspectModel(made, { openSession, source, dims: {}, signal }));
      return planFrom(index + 1, { ...models, [PREVIOUS]: { files: local, facts } }, PREVIOUS);
    });
    return [planned, ...later];
  }

  return { type: "pipeline", steps: await planFrom(0, request.models, spec.model_id) };
}

/** A plan on what stood in for the model of a step. */
function afterStep(plan: StepPlan, step: string): StepPlan {
  if (!("provisional" in plan)) return plan;
  const message = `The model of ${step} is not made yet: what depends on its values may come out otherwise.`;
  return { ...plan, provisional: [...plan.provisional, { code: "earlier_step", message, nodes: [] }] };
}

/** Does something for a step; what is wrong with its fields is wrong with those of the pipeline. */
async function inStep<T>(index: number, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof TaskError) || error.fields === undefined) throw error;
    const fields = error.fields.map((field) => ({ ...field, pointer: stepPointer(index, field.pointer) }));
    throw new TaskError({ code: error.code, message: error.message, fields }, { cause: error });
  }
}

export const PIPELINE_RUN: JobRun<PipelineSpec> = { plan: planPipelineJob, run: runPipelineJob };

const STEP_STARTS = { evaluate: 0, report: 0.98 } as const;

/**
 * Compares the model that the last step has made with the first: the one that the pipeline began with, or the teacher of its first step. Reports
 * on all steps. Throws `CoreError` as every evaluation does.
 */
async function runPipelineJob(
  request: JobRequest<PipelineSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec, models, datasets, steps } = request;
  const { files } = environment;
  const original = models[PIPELINE.comparedModelId(spec)]!;
  const last = models[steps.at(-1)!.model_id]!;
  const lastStep = stepSpec(spec, spec.params.steps.length - 1, steps.at(-2)?.model_id ?? spec.model_id);
  const { dataset_id } = spec.evaluation;
  const stored = dataset_id === null ? undefined : datasets[dataset_id]!;
  const task = labelTaskOf(spec);
  const use = stored && labelUse(stored.facts, last.facts.outputs, task);
  const outcome = await judgeResult(
    request,
    {
      original,
      model: files.openModel(last.files),
      written: last.files.map((file) => ({ ...file, media_type: "application/octet-stream" })),
      notes: [],
      simplified: [],
      data: stored && {
        dataset: withLabelUse(await files.openDataset(stored.file, stored.spec), use!, task.ignoreLabel),
        kind: "evaluation",
      },
      ignoreLabel: task.ignoreLabel,
      next: afterPipeline(spec),
      warnings: stored && dataWarnings(stored.facts, use!, task.ignoreLabel, request.models),
      pairs: outputPairs(spec, original.facts, last.facts),
      deployed: stepRunOf(lastStep).inTarget?.(
        { spec: lastStep, before: original.files, after: last.files },
        environment,
        context.signal,
      ),
    },
    "Comparing the last model with the first",
    environment,
    context,
    createJobSteps(STEP_STARTS, context),
  );
  return { ...outcome, model: [] };
}

/** What labels are to do in the comparison of the last model with the first. The label that a step ignores is ignored here, too. */
function labelTaskOf({ params, evaluation, acceptance }: PipelineSpec): LabelTask {
  const { metric, ignore_label } = evaluation;
  const learned = learnedIn({ params })?.ignoreLabel ?? null;
  const needed = (metric !== null && metric !== "none") || acceptance.max_metric_drop !== undefined;
  return { metric, ignoreLabel: ignore_label ?? learned, needed };
}

/** What the first step that trains learns. */
function learnedIn({ params }: Pick<PipelineSpec, "params">): Learned | undefined {
  for (const step of params.steps) {
    const learned = stepKindOf(step).learned?.(step.params);
    if (learned) return learned;
  }
  return undefined;
}

type Outputs = { readonly outputs: readonly { readonly name: string }[] };

/**
 * The outputs of the first model and those of the last that mean the same: as the first step that trains pairs them, where the first model is its
 * teacher; else by their names.
 */
function outputPairs({ params }: PipelineSpec, first: Outputs, last: Outputs) {
  const learned = learnedIn({ params })?.outputs ?? undefined;
  const isTeacher = learned?.every(({ teacher }) => first.outputs.some(({ name }) => name === teacher));
  const pairs = pairOutputs(first.outputs, last.outputs, isTeacher ? learned : undefined);
  return pairs.map(({ teacher, student }) => ({ before: teacher, after: student }));
}
