/**
 * Mean teacher (Tarvainen and Valpola 2017): the moving average of a network's own weights teaches it. Both see the same samples, augmented and
 * dropped otherwise; the teacher's answers are without a gradient.
 *
 *   L = label_weight · L(labels) + kl_weight · T²·KL(p_average ‖ p),   average ← d·average + (1 − d)·weights after each step
 *
 * The average is what is validated and exported. Samples without a label (`ignoreLabel`) teach by the second term alone.
 */
import type { Model } from "../onnx/ir.ts";
import { type Phase, type PhaseHooks, runPhases } from "../train/phases.ts";
import { splitSamples } from "../train/samples.ts";
import type { Objective } from "../train/step-graph.ts";
import { createTrainable, exportTrained } from "../train/trainable.ts";
import type { NetworksTask, TrainingSettings } from "../train/training-task.ts";
import { comparedOutputs } from "./compared-outputs.ts";
import { type Distillation, type DistillationData, distilled, finalNumbers, labelJudge } from "./distillation.ts";
import { judgeNetwork } from "./judge.ts";
import { type DistillationLoss, LABELS, labelLoss, outputLoss, taughtOutput } from "./objective.ts";
import { onLabels } from "./online.ts";

export interface MeanTeacherDistillation extends DistillationData {
  readonly model: Model;
  readonly reinitialize: boolean;
  /** Its hints are not used. */
  readonly loss: DistillationLoss;
  /** Its `averageDecay` is the teacher's. */
  readonly training: TrainingSettings & { readonly averageDecay: number };
  /** Also train the network from the same start on the labels alone, without an average. */
  readonly baseline: boolean;
}

const STUDENT = "student/";
const TEACHER = "teacher/";

/** Throws what `trainNetworks` throws, and `invalid_params` where network, losses and samples do not fit together. */
export async function distillMeanTeacher(spec: MeanTeacherDistillation, hooks: PhaseHooks): Promise<Distillation> {
  const { training: settings, loss, model } = spec;
  const output = model.graph.outputs[0]!.name;
  const start = () => createTrainable(model, spec.reinitialize ? { reinitializeSeed: settings.seed } : {});
  const student = start();
  const judge = labelJudge(spec, output, settings, hooks);
  const { metric } = judge;
  const before = await judgeNetwork(judge, student);
  const split = splitSamples(spec.samples, spec.validationSplit, settings.seed);
  const task: NetworksTask = {
    networks: [{ prefix: STUDENT, trainable: student, metric }],
    updates: [{ trains: [STUDENT], objective: objectiveOf(spec) }],
    follower: { prefix: TEACHER, of: STUDENT },
    ...split,
  };
  const phases: Phase[] = [{ name: "distill", share: 2, prepare: async () => task }];
  const plain = spec.baseline ? start() : undefined;
  if (plain) {
    const networks = [{ prefix: "", trainable: plain, metric }];
    const alone = { networks, updates: [{ trains: [""], objective: onLabels(loss, model, output) }], ...split };
    phases.push({
      name: "baseline",
      share: 1,
      prepare: async () => alone,
      settings: { ...settings, averageDecay: null },
    });
  }
  const done = await runPhases(phases, settings, hooks);
  const runOf = (name: string, prefix: string) => {
    const { networks, samplesPerSecond } = done.get(name)!;
    return { ...networks[prefix]!, samplesPerSecond };
  };
  const run = runOf("distill", STUDENT);
  const trained = await distilled("student", judge, student, { run, before });
  const baselineRun = plain && runOf("baseline", "");
  return {
    student: trained.model,
    run,
    networks: [trained],
    chosen: "student",
    ensemble: null,
    baseline: plain && baselineRun ? { model: exportTrained(plain, baselineRun.values), run: baselineRun } : null,
    metrics: finalNumbers(judge, {
      ...{ before, after: trained.metric },
      baseline: plain && baselineRun ? await judgeNetwork(judge, plain, baselineRun.values) : null,
    }),
  };
}

function objectiveOf({ loss, model }: MeanTeacherDistillation): Objective {
  const pairs = comparedOutputs(model, model, { outputLoss: loss.outputLoss });
  return (context) => {
    const { g, value, target } = context;
    const own = labelLoss(context, pairs[0]!, value(STUDENT + pairs[0]!.student), target(LABELS), loss);
    const distances = pairs.map((pair) => {
      const taught = taughtOutput(context, pair, value(TEACHER + pair.teacher));
      return outputLoss(context, pair, value(STUDENT + pair.student), taught, loss);
    });
    const mean = g.mul(
      distances.reduce((sum, distance) => g.add(sum, distance)),
      1 / distances.length,
    );
    return [
      { name: "label", weight: loss.labelWeight, value: own },
      { name: [...new Set(pairs.map((pair) => pair.loss))].join(" and "), weight: loss.klWeight, value: mean },
    ];
  };
}
