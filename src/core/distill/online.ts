/**
 * Online distillation: networks that learn together, from labels and from each other (deep mutual learning, Zhang et al. 2018). For network i
 *
 *   L_i = label_weight · L(labels) + kl_weight · Σ_j w_ij · T²·KL(p_j ‖ p_i),   p_j without a gradient
 *
 * Peers all teach each other, w_ij = 1/(K − 1). With a teacher the student learns from the teacher, and the teacher from labels and, by a weight of its own,
 * from the student. `simultaneous`: one step updates all networks from the same values. `alternating`: each network is updated in its turn,
 * from what the others answer by then.
 */
import { CoreError } from "../errors.ts";
import { dimsOf } from "../onnx/graph-builder.ts";
import type { Model, Value } from "../onnx/ir.ts";
import { type Phase, type PhaseHooks, runPhases } from "../train/phases.ts";
import { splitSamples } from "../train/samples.ts";
import { buildStepGraph, type LossTerm, type Objective, type ObjectiveContext } from "../train/step-graph.ts";
import { createTrainable, exportTrained } from "../train/trainable.ts";
import type { NetworksTask, TaskNetwork, TrainingResult, TrainingSettings } from "../train/training-task.ts";
import { comparedOutputs, outputMeaning } from "./compared-outputs.ts";
import {
  bestOf,
  type Distillation,
  type DistillationData,
  type DistilledNetwork,
  distilled,
  finalNumbers,
  labelJudge,
} from "./distillation.ts";
import { judgeEnsemble, judgeNetwork } from "./judge.ts";
import { type DistillationLoss, LABELS, labelLoss, outputLoss, taughtOutput } from "./objective.ts";
import { pairOutputs } from "./output-pairs.ts";

export interface OnlineNetwork {
  /** Unique; checkpoints, histories and artifacts go by it. */
  readonly name: string;
  readonly model: Model;
  /** Draw the weights anew from this seed; undefined keeps those of the model. */
  readonly reinitializeSeed?: number | undefined;
}

export interface OnlineDistillation extends DistillationData {
  /** Of peers the best is the result, by the samples that are held out. */
  readonly networks: readonly OnlineNetwork[];
  /** Which of the networks is the teacher of the one other; undefined for peers. */
  readonly teacher?: string | undefined;
  readonly update: "simultaneous" | "alternating";
  /** Its hints are not used. */
  readonly loss: DistillationLoss & { readonly teacherKlWeight: number };
  readonly training: TrainingSettings;
  /** Also train the student (of peers, the first) from the same start on the labels alone. */
  readonly baseline: boolean;
}

/** A network with what it has in common with the others. */
interface Party extends TaskNetwork {
  readonly name: string;
  readonly model: Model;
  readonly metric: NonNullable<TaskNetwork["metric"]>;
  /** The output that the labels belong to. */
  readonly output: string;
  readonly studentHasShares: boolean;
}

/**
 * Throws what `trainNetworks` throws, and `invalid_params` where networks, losses and samples do not fit together.
 */
export async function distillOnline(spec: OnlineDistillation, hooks: PhaseHooks): Promise<Distillation> {
  const { training: settings } = spec;
  const parties = partiesOf(spec);
  const student = parties.find(({ name }) => name !== spec.teacher)!;
  const judges = parties.map(({ output }) => labelJudge(spec, output, settings, hooks));
  const before: (number | null)[] = [];
  for (const [i, { trainable }] of parties.entries()) before.push(await judgeNetwork(judges[i]!, trainable));
  const baseline = spec.baseline ? partiesOf(spec).find(({ name }) => name === student.name) : undefined;
  const split = splitSamples(spec.samples, spec.validationSplit, settings.seed);
  const online: NetworksTask = { networks: parties, updates: updatesOf(spec, parties), ...split };
  const phases: Phase[] = [{ name: "online", share: parties.length, prepare: async () => online }];
  if (baseline) {
    const updates = [{ trains: [""], objective: onLabels(spec.loss, baseline.model, baseline.output) }];
    const task = { networks: [{ ...baseline, prefix: "" }], updates, ...split };
    phases.push({ name: "baseline", share: 1, prepare: async () => task });
  }
  const done = await runPhases(phases, settings, hooks);

  const result = done.get("online")!;
  const networks: DistilledNetwork[] = [];
  for (const [i, { name, prefix, trainable }] of parties.entries()) {
    const run = result.networks[prefix]!;
    networks.push(await distilled(name, judges[i]!, trainable, { run, before: before[i]! }));
  }
  const teacher = networks.find(({ name }) => name === spec.teacher);
  const chosen = bestOf(
    networks.filter((network) => network !== teacher),
    student.metric.better,
  );
  const judge = judges[parties.findIndex(({ name }) => name === chosen.name)]!;
  const plain = done.get("baseline");
  const plainRun: TrainingResult | undefined = plain && {
    ...plain.networks[""]!,
    samplesPerSecond: plain.samplesPerSecond,
  };
  const outputs = parties.map(({ output }) => output);
  return {
    student: chosen.model,
    run: { ...chosen.run, samplesPerSecond: result.samplesPerSecond },
    networks,
    chosen: chosen.name,
    ensemble: await judgeEnsemble(
      judge,
      networks.map(({ model }, i) => ({ model, output: outputs[i]! })),
      ensembleOutput(spec, parties.find(({ name }) => name === chosen.name)!),
    ),
    baseline:
      baseline && plainRun ? { model: exportTrained(baseline.trainable, plainRun.values), run: plainRun } : null,
    metrics: finalNumbers(judge, {
      teacher: teacher?.metric ?? null,
      ...{ before: chosen.before, after: chosen.metric },
      baseline: baseline && plainRun ? await judgeNetwork(judges[0]!, baseline.trainable, plainRun.values) : null,
    }),
  };
}

/** What networks answer with together: by how one of them compares its first output with itself. */
function ensembleOutput({ loss }: OnlineDistillation, { model, output }: Party) {
  const pairs = comparedOutputs(model, model, { outputLoss: loss.outputLoss });
  return { output, reading: pairs.find(({ student }) => student === output)!.reading };
}

/** Throws as the job would where the networks cannot learn together: the steps of a small batch are built, and not run. */
export async function checkOnline(
  spec: OnlineDistillation,
  { openSession, batchSize }: Pick<PhaseHooks, "openSession"> & { readonly batchSize: number },
): Promise<void> {
  const parties = partiesOf(spec);
  const count = Math.min(2, batchSize, spec.samples.count);
  const batch = spec.samples.gather(Uint32Array.from({ length: count }, (_, i) => i));
  for (const { trains, objective } of updatesOf(spec, parties)) {
    const networks = parties.map((party) => ({ ...party, trained: trains.includes(party.prefix) }));
    await buildStepGraph(networks, { batch, objective, seed: spec.training.seed, openSession });
  }
}

function partiesOf({ networks, metricOf, samples }: OnlineDistillation): readonly Party[] {
  if (networks.length < 2) throw new CoreError("invalid_params", "Two networks at least are needed to learn together.");
  if (!samples.gather([0]).targets[LABELS]) {
    throw new CoreError("invalid_params", "The dataset has no labels, and networks that learn together need them.");
  }
  const [first] = networks;
  return networks.map(({ name, model, reinitializeSeed }) => {
    const [pair] = pairOutputs(first!.model.graph.outputs, model.graph.outputs, undefined);
    return {
      name,
      model,
      prefix: `${name}/`,
      trainable: createTrainable(model, reinitializeSeed === undefined ? {} : { reinitializeSeed }),
      output: pair!.student,
      studentHasShares: outputMeaning(model, pair!.student).kind === "shares",
      metric: metricOf(pair!.student),
    };
  });
}

function updatesOf(spec: OnlineDistillation, parties: readonly Party[]): NetworksTask["updates"] {
  const groups = spec.update === "simultaneous" ? [parties] : parties.map((party) => [party]);
  return groups.map((group) => ({
    trains: group.map(({ prefix }) => prefix),
    objective: (context) => group.flatMap((party) => lossOf(context, spec, parties, party)),
  }));
}

/** The loss of one network. */
function lossOf(
  context: ObjectiveContext,
  { loss, teacher }: OnlineDistillation,
  parties: readonly Party[],
  own: Party,
): readonly LossTerm[] {
  const { g, value, target } = context;
  const network = own.prefix;
  const terms: LossTerm[] = [
    {
      name: "label",
      weight: loss.labelWeight,
      value: labelLoss(context, own, value(network + own.output), target(LABELS), loss),
      network,
    },
  ];
  const weight = own.name === teacher ? loss.teacherKlWeight : loss.klWeight;
  if (weight === 0) return terms;
  const others = parties.filter((party) => party !== own);
  const names = new Set<string>();
  const compared = others.flatMap((other) => {
    const pairs = comparedOutputs(other.model, own.model, { outputLoss: loss.outputLoss });
    return pairs.map((pair) => {
      const taught = value(other.prefix + pair.teacher);
      checkSameShape(own, value(network + pair.student), other, taught);
      names.add(pair.loss);
      const distance = outputLoss(
        context,
        pair,
        value(network + pair.student),
        taughtOutput(context, pair, taught),
        loss,
      );
      return g.mul(distance, 1 / (pairs.length * others.length));
    });
  });
  const mean = compared.reduce((sum, distance) => g.add(sum, distance));
  return [...terms, { name: [...names].join(" and "), weight, value: mean, network }];
}

/** Throws `invalid_params` unless two outputs have one shape, axes of one aside; the path names the network that differs from the first. */
function checkSameShape(own: Party, output: Value, other: Party, taught: Value): void {
  const [a, b] = [output, taught].map((value) => dimsOf(value).slice(1));
  if (`${a!.filter((dim) => dim !== 1)}` === `${b!.filter((dim) => dim !== 1)}`) return;
  const text = (party: Party, value: Value, dims: readonly number[]) =>
    `"${value.name.slice(party.prefix.length)}" of the ${party.name.replace("_", " ")} has [${dims.join(", ")}] for each sample`;
  throw new CoreError(
    "invalid_params",
    `The networks cannot teach each other: ${text(own, output, a!)}, ${text(other, taught, b!)}.`,
    own.output,
    { path: ["networks", other.name] },
  );
}

/** What a network learns from alone, with its output of this name. */
export function onLabels(loss: DistillationLoss, model: Model, output: string): Objective {
  const studentHasShares = outputMeaning(model, output).kind === "shares";
  return (context) => {
    const value = labelLoss(context, { studentHasShares }, context.value(output), context.target(LABELS), loss);
    return [{ name: "label", weight: 1, value, overSamples: loss.ignoreLabel === null }];
  };
}
