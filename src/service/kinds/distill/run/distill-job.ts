import {
  CoreError,
  choiceWarnings,
  type DistilledNetwork,
  type DistillPlan,
  type ExitFacts,
  type KeptOutputs,
  type Model,
  measureSpeedup,
  type PhaseHooks,
  pairOutputs,
  parameterCount,
  type TrainedNetworkFacts,
  type TrainingMetrics,
} from "../../../../core/index.ts";
import {
  type JobInputs,
  type JobOutcome,
  type JobRequest,
  type ProducedFile,
  TaskError,
} from "../../../../tasks/protocol.ts";
import { type FieldError, pointerOf } from "../../../errors.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import { judgeResult } from "../../run/job-result.ts";
import type { StepRun } from "../../run/job-run.ts";
import { createJobSteps, type JobContext, type JobSteps } from "../../run/job-steps.ts";
import { withOrigin } from "../../run/origin.ts";
import { TEACHER_OUTPUTS } from "../cache-keys.ts";
import { ignoredLabels } from "../labels.ts";
import { type DistillParams, offlineView } from "../params.ts";
import type { DistillSpec } from "../spec.ts";
import { type DistillInputs, openDistillInputs } from "./distill-inputs.ts";
import { modeOf, otherModels, type Trained } from "./distill-modes.ts";
import { afterTraining } from "./next-steps.ts";

export const DISTILL_RUN: StepRun<DistillSpec> = {
  async plan(request, environment, context) {
    return { type: "distill", ...(await planDistillJob(request, environment, context)) };
  },
  planModel: planStudent,
  run: runDistillJob,
};

const STEP_STARTS = { load: 0, train: 0.02, write: 0.88, evaluate: 0.89, report: 0.99 } as const;

/** Within a long epoch; there is a checkpoint after each epoch as well. */
const CHECKPOINT_EVERY_MS = 30_000;

/**
 * Trains what the mode of the spec trains, writes the networks to the scratch directory, and judges the result against the teacher (or against
 * the student as it was). Goes on from the request's checkpoints, to the same bytes.
 * Throws `CoreError`: `invalid_model`, `invalid_dataset`, `invalid_params`, `unsupported` and `non_finite` are the input's fault,
 * `cancelled` is the caller's.
 */
async function runDistillJob(
  request: JobRequest<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<JobOutcome> {
  const { spec } = request;
  const { params } = spec;
  const steps = createJobSteps(STEP_STARTS, context);
  const { inputs, trained } = await train(request, environment, context, steps);
  const write = (model: Model, name: string) => writeNetwork(model, name, request, environment, context);
  const { written, others, exits } = await steps.run("write", "Writing the networks", async () => {
    const made = {
      written: await write(trained.student, "model.onnx"),
      others: new Map<DistilledNetwork, readonly ProducedFile[]>(),
      exits: [] as (readonly ProducedFile[])[],
    };
    for (const network of trained.networks) {
      if (network.name !== trained.chosen) made.others.set(network, await write(network.model, `${network.name}.onnx`));
    }
    for (const exit of keptExits(params, trained)) made.exits.push(await write(exit.model, `${exit.name}.onnx`));
    return made;
  });
  const { reference, teacher } = inputs;
  const taught = [...others].find(([{ name }]) => name === "teacher")?.[1];
  const names = reference.facts.outputs;
  const { outputs } = trained.student.graph;
  const pairs = params.mode === "offline" || teacher ? inputs.pairs : pairOutputs(names, outputs, undefined);
  return judgeResult(
    request,
    {
      // A teacher that has learned is compared as what it has become.
      original: taught ? { ...reference, files: taught } : reference,
      model: trained.student,
      written,
      more: [...[...others.values()].flat(), ...exits.flat()],
      notes: [],
      simplified: [],
      data: inputs.judgedBy,
      ignoreLabel: ignoredLabels({ ...spec, params: offlineView(params) }).training,
      warnings: [...inputs.warnings, ...choiceWarnings(trained.choice)],
      pairs: pairs.map((pair) => ({ before: pair.teacher, after: pair.student })),
      training: trainingMetrics(trained),
      next: afterTraining(spec, request.datasets[params.dataset_id]!.facts.has_labels),
      exits: await exitFacts(params, trained, inputs, environment, context),
    },
    teacher ? "Comparing with the teacher" : "Comparing with before",
    environment,
    context,
    steps,
  );
}

/** Reads what a job trains on, and trains. */
async function train(
  request: JobRequest<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
  steps: JobSteps<"load" | "train">,
): Promise<{ readonly inputs: DistillInputs; readonly trained: Trained }> {
  const { spec, threads } = request;
  const { params } = spec;
  const inputs = await steps.run("load", "Reading models and data", () =>
    openInputs(request, threads, environment, context),
  );
  const nameOf = (phase: string) => (params.mode === "offline" && !inputs.teacher ? "train" : phase);
  const hooks = trainingHooks(request, params, environment, context, steps, nameOf);
  const kept = keptOutputs(request, environment, context);
  const mode = modeOf(spec, inputs, threads);
  return { inputs, trained: await steps.run("train", "Training", () => mode.run(hooks, kept)) };
}

async function writeNetwork(
  model: Model,
  name: string,
  request: JobRequest<DistillSpec>,
  environment: JobEnvironment,
  { signal }: JobContext,
): Promise<readonly ProducedFile[]> {
  return environment.files.writeModel(await withOrigin(model, request, environment), request.scratch, name, { signal });
}

/** Makes the student that a job makes, to the same bytes, and does not judge it. Throws as `runDistillJob` does. */
export async function makeStudent(
  request: JobRequest<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<readonly ProducedFile[]> {
  const { trained } = await train(request, environment, context, createJobSteps(STEP_STARTS, context));
  return writeNetwork(trained.student, "model.onnx", request, environment, context);
}

/** What other jobs have found the teacher to say, and how it is handed over to later ones. */
function keptOutputs(
  { cached, scratch }: JobRequest<DistillSpec>,
  { files }: JobEnvironment,
  { news }: JobContext,
): KeptOutputs {
  const file = cached[TEACHER_OUTPUTS];
  return {
    known: file && files.readBytes(file),
    async keep(bytes) {
      const path = await files.writeBytes(scratch, `${TEACHER_OUTPUTS}.cache`, bytes);
      news({ kind: "cache", name: TEACHER_OUTPUTS, path });
    },
  };
}

/** How a run of training tells of itself and keeps its checkpoints; `nameOf` is what users know a phase by. */
export function trainingHooks(
  { checkpoints, scratch }: Pick<JobRequest, "checkpoints" | "scratch">,
  { training }: Pick<DistillParams, "training">,
  { files, openSession }: JobEnvironment,
  { signal, news }: JobContext,
  steps: JobSteps<"train">,
  nameOf: (phase: string) => string,
): PhaseHooks {
  return {
    openSession,
    signal,
    checkpointEveryMs: CHECKPOINT_EVERY_MS,
    resumeFrom: Object.fromEntries(Object.entries(checkpoints).map(([phase, file]) => [phase, files.readBytes(file)])),
    async saveCheckpoint(phase, bytes) {
      const path = await files.writeCheckpoint(scratch, phase, bytes);
      // Undefined: the last one is still being stored. The work would only be done again from there.
      if (path !== undefined) news({ kind: "checkpoint", name: phase, path });
    },
    onProgress: ({ phase, fraction, message }) => steps.progress("train", fraction, `${nameOf(phase)}: ${message}`),
    onEpoch(phase, record, prefix) {
      const network = prefix === "" ? {} : { network: prefix.slice(0, -1) };
      news({ kind: "metric", data: { phase: nameOf(phase), ...network, epochs: training.epochs, ...record } });
    },
  };
}

/** Samples of a dataset that a plan reads: enough to derive a student from, and to run every model once. */
const PLANNED_SAMPLES = 64;

function openInputs(
  request: JobInputs<DistillSpec>,
  threads: number,
  environment: JobEnvironment,
  context: JobContext,
  plan?: { readonly samples: number },
): Promise<DistillInputs> {
  const { spec } = request;
  const view = { ...request, spec: { ...spec, params: offlineView(spec.params) } };
  const others = otherModels(spec.params);
  return openDistillInputs(view, threads, environment, context, { others, ...(plan && { plan }) });
}

/**
 * Says what a job would train on what. Reads the models and some samples and derives the student's structure, but trains nothing.
 * Throws as `runDistillJob` does.
 */
export async function planDistillJob(
  request: JobInputs<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<DistillPlan> {
  const { spec } = request;
  const { training } = spec.params;
  const inputs = await openInputs(request, 1, environment, context, { samples: PLANNED_SAMPLES });
  const { teacher, student, pairs, counts } = inputs;
  const plan = await modeOf(spec, inputs, 1)
    .plan({ openSession: environment.openSession })
    .catch((error) => refuse(error, spec.params));
  return {
    teacher_parameters: teacher ? parameterCount(teacher.model) : null,
    student_parameters: parameterCount(student),
    outputs: pairs,
    training_samples: counts.training,
    validation_samples: counts.validation,
    optimizer_steps: training.epochs * Math.floor(counts.training / Math.min(training.batch_size, counts.training)),
    networks: plan.networks.map(({ name, model }) => ({ name, parameters: parameterCount(model) })),
    exits: plan.exits.map(({ name, value, macsShare }) => ({ name, value, macs_share: macsShare })),
  };
}

/** A model of the structure that the job's result will have, before it is trained. */
async function planStudent(
  request: JobInputs<DistillSpec>,
  environment: JobEnvironment,
  context: JobContext,
): Promise<Model> {
  const inputs = await openInputs(request, 1, environment, context, { samples: PLANNED_SAMPLES });
  const { openSession } = environment;
  return (await modeOf(request.spec, inputs, 1).plan({ openSession })).result;
}

/** What is wrong with a field of the loss, by where in it, or with one beside it. */
const REFUSAL_CODES: Readonly<Record<string, FieldError["code"]>> = {
  hints: "invalid_hint",
  training: "batch_too_small",
  exits: "invalid_exit",
};

/** Says which field of the job a refusal of what it is to learn is about. */
export function refuse(error: unknown, params: DistillParams): never {
  if (!(error instanceof CoreError) || error.path.length === 0) throw error;
  const { code, message, subject, path } = error;
  const [first, second] = path;
  const pointer = first === "networks" ? networkPointer(String(second), params) : pointerOf(...placeOf(path));
  const field: FieldError = { pointer, code: REFUSAL_CODES[first!] ?? "shape_mismatch", message };
  throw new TaskError({ code, message, ...(subject !== undefined && { subject }), fields: [field] }, { cause: error });
}

/** Where a refusal's path begins. A path into exits is one into the values that were named. */
function placeOf(path: readonly PropertyKey[]): [prefix: string, path: readonly PropertyKey[]] {
  const [first, ...rest] = path;
  if (first === "exits") return ["/params", [rest.length === 0 ? "exits" : "exit_values", ...rest]];
  return [first === "training" ? "/params" : "/params/loss", path];
}

/** The field that brings a network into an online distillation. */
function networkPointer(name: string, params: DistillParams): string {
  if (name === "teacher") return "/params/teacher_model_id";
  const index = Number(name.slice("peer_".length)) - 2;
  const isNamed = params.mode === "online" && index >= 0 && index < params.peer_students.length;
  return isNamed ? pointerOf("/params/peer_students", [index]) : "/params/student";
}

export function trainingMetrics({ run, baseline, metrics, networks, chosen, ensemble }: Trained): TrainingMetrics {
  return {
    history: run.history,
    best_epoch: run.bestEpoch,
    metric: metrics?.name ?? null,
    metric_samples: metrics?.samples ?? 0,
    teacher_metric: metrics?.teacher ?? null,
    student_before_metric: metrics?.studentBefore ?? null,
    student_metric: metrics?.studentAfter ?? null,
    baseline_metric: metrics?.baseline ?? null,
    baseline_history: baseline?.run.history ?? null,
    samples_per_second: run.samplesPerSecond,
    networks: networks.map(
      (network): TrainedNetworkFacts => ({
        name: network.name,
        parameters: parameterCount(network.model),
        history: network.run.history,
        best_epoch: network.run.bestEpoch,
        validation_metric: network.run.bestMetric,
        before_metric: network.before,
        metric: network.metric,
        artifact: network.name === chosen ? "model.onnx" : `${network.name}.onnx`,
      }),
    ),
    chosen,
    ensemble_metric: ensemble,
  };
}

/** The exits that the result keeps; the last answer is the network's own. */
function keptExits(params: DistillParams, { exits = [] }: Trained) {
  const keeps = params.mode === "self" && params.self_kind === "be_your_own_teacher" && params.keep_exits;
  return keeps ? exits.slice(0, -1) : [];
}

/** What each exit is worth: its metric, and what it costs of the whole network, measured in turn with it. */
async function exitFacts(
  params: DistillParams,
  trained: Trained,
  { samples }: DistillInputs,
  { openTemporary }: JobEnvironment,
  { signal }: JobContext,
): Promise<readonly ExitFacts[] | null> {
  const { exits } = trained;
  if (!exits) return null;
  const kept = keptExits(params, trained);
  const { feeds } = samples.gather([0]);
  const whole = await openTemporary(exits.at(-1)!.model);
  const facts: ExitFacts[] = [];
  try {
    for (const [i, { name, value, metric, macsShare, model }] of exits.entries()) {
      const isWhole = i === exits.length - 1;
      const session = isWhole ? whole : await openTemporary(model);
      const speedup = isWhole ? 1 : await measureSpeedup(whole, session, feeds, signal);
      if (!isWhole) await session.close();
      const artifact = isWhole ? "model.onnx" : kept.some((exit) => exit.name === name) ? `${name}.onnx` : null;
      facts.push({ name, value, metric, macs_share: macsShare, latency_share: 1 / speedup, artifact });
    }
  } finally {
    await whole.close();
  }
  return facts;
}
