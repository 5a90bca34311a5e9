/**
 * Be your own teacher (Zhang et al. 2019): a network is trained with early exits that its own last layer teaches. With the exits i,
 *
 *   L = L(labels, z) + Σ_i [ label_weight · L(labels, z_i) + kl_weight · T²·KL(p ‖ p_i) + feature_weight · mean (r_i(f_i) − f)² ]
 *
 * p and f, the last layer's probabilities and pooled features, are without a gradient; r_i is a learned linear map that is thrown away. The
 * first exit has no term of features. The exits are dropped in the end, or kept as further outputs.
 */

import { dimsOf, range } from "../onnx/graph-builder.ts";
import type { Model } from "../onnx/ir.ts";
import { hint } from "../train/distillation-losses.ts";
import { distillationKl, logitsOf } from "../train/losses.ts";
import { type Phase, type PhaseHooks, runPhases } from "../train/phases.ts";
import { splitSamples } from "../train/samples.ts";
import { buildStepGraph, type LossTerm, type Objective, soloNetwork } from "../train/step-graph.ts";
import { createTrainable, exportTrained } from "../train/trainable.ts";
import type { TrainingSettings } from "../train/training-task.ts";
import { type Distillation, type DistillationData, distilled, finalNumbers, labelJudge } from "./distillation.ts";
import { addExits, keepOutput, type ModelWithExits } from "./exits.ts";
import { judgeEnsemble, judgeNetwork } from "./judge.ts";
import { type DistillationLoss, LABELS, labelLoss } from "./objective.ts";
import { onLabels } from "./online.ts";

export interface OwnTeacherDistillation extends DistillationData {
  readonly model: Model;
  readonly reinitialize: boolean;
  /** How many exits at the most, or the values that they read. */
  readonly exits: number | readonly string[];
  readonly keepExits: boolean;
  /** Its hints are not used. */
  readonly loss: DistillationLoss & { readonly featureWeight: number };
  readonly training: TrainingSettings;
  readonly baseline: boolean;
}

/** An exit of a trained network; the last one is the network's own answer. */
export interface TrainedExit {
  readonly name: string;
  /** What it reads. */
  readonly value: string;
  readonly macsShare: number;
  readonly metric: number | null;
  /** The network up to this answer. */
  readonly model: Model;
}

/** Throws what `trainNetworks` and `addExits` throw, and `invalid_params` where network, losses and samples do not fit together. */
export async function distillOwnTeacher(
  spec: OwnTeacherDistillation,
  hooks: PhaseHooks,
): Promise<Distillation & { readonly exits: readonly TrainedExit[] }> {
  const { training: settings, loss } = spec;
  const output = spec.model.graph.outputs[0]!.name;
  const withExits = await exitsOf(spec, hooks);
  const { exits } = withExits;
  const student = trainableOf(spec, withExits);
  const judge = labelJudge(spec, output, settings, hooks);
  const before = await judgeNetwork(judge, student);
  const split = splitSamples(spec.samples, spec.validationSplit, settings.seed);
  const { metric } = judge;
  const task = {
    networks: [{ prefix: "", trainable: student, metric }],
    updates: [{ trains: [""], objective: objectiveOf(spec, withExits) }],
    ...split,
  };
  const phases: Phase[] = [{ name: "distill", share: 1, prepare: async () => task }];
  const plain = spec.baseline
    ? createTrainable(spec.model, spec.reinitialize ? { reinitializeSeed: settings.seed } : {})
    : undefined;
  if (plain) {
    const networks = [{ prefix: "", trainable: plain, metric }];
    const alone = { networks, updates: [{ trains: [""], objective: onLabels(loss, spec.model, output) }], ...split };
    phases.push({ name: "baseline", share: 1, prepare: async () => alone });
  }
  const done = await runPhases(phases, settings, hooks);
  const runOf = (name: string) => {
    const { networks, samplesPerSecond } = done.get(name)!;
    return { ...networks[""]!, samplesPerSecond };
  };
  const run = runOf("distill");
  const trained = await distilled("student", judge, student, { run, before });
  const answers = [...exits.map(({ name }) => name), output];
  const outputs = spec.model.graph.outputs.map(({ name }) => name);
  const model = spec.keepExits ? trained.model : keepOutput(trained.model, outputs);
  const baselineRun = plain && runOf("baseline");
  const made: TrainedExit[] = [];
  for (const [i, name] of answers.entries()) {
    const exit = exits[i];
    made.push({
      name,
      value: exit?.value ?? name,
      macsShare: exit?.macsShare ?? 1,
      metric: exit
        ? await judgeNetwork({ ...judge, metric: spec.metricOf(name) }, student, run.values)
        : trained.metric,
      model: keepOutput(trained.model, [name]),
    });
  }
  return {
    student: model,
    run,
    networks: [{ ...trained, model }],
    chosen: "student",
    ensemble: await judgeEnsemble(
      judge,
      answers.map((name) => ({ model: trained.model, output: name })),
      { output, reading: { kind: "scores", classAxis: null } },
    ),
    baseline: plain && baselineRun ? { model: exportTrained(plain, baselineRun.values), run: baselineRun } : null,
    exits: made,
    metrics: finalNumbers(judge, {
      ...{ before, after: trained.metric },
      baseline: plain && baselineRun ? await judgeNetwork(judge, plain, baselineRun.values) : null,
    }),
  };
}

/** Throws as the job would: finds the exits and builds the step of a small batch, without running it. Answers the network with its exits. */
export async function checkOwnTeacher(
  spec: OwnTeacherDistillation,
  { openSession, batchSize }: Pick<PhaseHooks, "openSession"> & { readonly batchSize: number },
): Promise<ModelWithExits> {
  const withExits = await exitsOf(spec, { openSession });
  const count = Math.min(2, batchSize, spec.samples.count);
  const batch = spec.samples.gather(Uint32Array.from({ length: count }, (_, i) => i));
  const networks = [soloNetwork(trainableOf(spec, withExits))];
  const objective = objectiveOf(spec, withExits);
  await buildStepGraph(networks, { batch, objective, seed: spec.training.seed, openSession });
  return withExits;
}

function exitsOf(
  { model, exits, samples, training }: OwnTeacherDistillation,
  { openSession }: Pick<PhaseHooks, "openSession">,
): Promise<ModelWithExits> {
  const { feeds } = samples.gather([0, Math.min(1, samples.count - 1)]);
  return addExits(model, { exits, feeds, seed: training.seed, openSession });
}

function trainableOf({ reinitialize, training }: OwnTeacherDistillation, { model, exits, deepest }: ModelWithExits) {
  const watch = [...new Set([deepest.value, ...exits.map(({ features }) => features)])];
  return createTrainable(model, { watch, ...(reinitialize && { reinitializeSeed: training.seed }) });
}

/** What exits learn. */
const CLASS_SCORES = { studentHasShares: false };

function objectiveOf({ loss, model }: OwnTeacherDistillation, { exits, deepest }: ModelWithExits): Objective {
  const output = model.graph.outputs[0]!.name;
  return (context) => {
    const { g, value, target, detach, parameter } = context;
    const labels = target(LABELS);
    const labelled = (scores: LossTerm["value"]) => labelLoss(context, CLASS_SCORES, scores, labels, loss);
    const terms: LossTerm[] = [{ name: "label", weight: 1, value: labelled(value(output)) }];
    const teacher = detach(logitsOf(value(output)));
    const features = value(deepest.value);
    const positions = range(dimsOf(features).length).filter((axis) => axis !== 0 && axis !== deepest.channelAxis);
    const pooled = detach(positions.length === 0 ? features : g.mean(features, positions, false));
    pooled.shape = [dimsOf(features)[0]!, dimsOf(features)[deepest.channelAxis]!];
    for (const [i, exit] of exits.entries()) {
      const add = (name: string, weight: number, build: () => LossTerm["value"]) => {
        if (weight > 0) terms.push({ name: `${name} ${exit.name}`, weight, value: build() });
      };
      add("label", loss.labelWeight, () => labelled(value(exit.name)));
      add("kl", loss.klWeight, () => distillationKl(g, value(exit.name), teacher, loss.temperature));
      if (i > 0) add("features", loss.featureWeight, () => hint(g, value(exit.features), pooled, parameter));
    }
    return terms;
  };
}
