/**
 * Every way to distill, on MNIST, with the same budget of steps for each network: accuracies of 10,000 test images, for several seeds. The student
 * has 4,186 parameters, the teacher is a CNN of 117,530 that is kept in a file (trained first where there is none). Of generations each has the
 * budget; the last epoch's weights count wherever nothing has to be chosen.
 *
 *   node bench/modes.ts TEACHER.onnx [seed,seed,...] [epochs] [samples] [threads] [mode,mode,...]
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { distillBornAgain } from "../src/core/distill/born-again.ts";
import type { Distillation } from "../src/core/distill/distillation.ts";
import { distillMeanTeacher } from "../src/core/distill/mean-teacher.ts";
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import { distillOffline } from "../src/core/distill/offline.ts";
import { distillOnline, type OnlineDistillation } from "../src/core/distill/online.ts";
import { distillOwnTeacher, type TrainedExit } from "../src/core/distill/own-teacher.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { openSession } from "../src/core/runtime/session.ts";
import type { TrainingSettings } from "../src/core/train/loop.ts";
import { cnn, NetworkBuilder } from "../test/support/networks.ts";
import { top1Of } from "../test/support/top1.ts";
import { mnist, mnistSettings, SHIFTED, TOP1 } from "./mnist.ts";

const [path, seeds = "1,2,3", epochs = "5", count = "20000", threads = "1", chosen] = process.argv.slice(2);
if (!path) throw new Error("Where is the teacher kept? node bench/modes.ts TEACHER.onnx");

const samples = mnist("training", Number(count));
const data = {
  samples,
  validationSplit: 0.05,
  evaluation: mnist("test"),
  metricOf: top1Of,
};
const base = mnistSettings({ epochs: Number(epochs), threads: Number(threads) });
const LABELS_ONLY = { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 };
const MUTUAL = { ...DISTILLATION_LOSS, temperature: 1, klWeight: 1, labelWeight: 1, teacherKlWeight: 0 };

function studentNetwork(): Model {
  const net = new NetworkBuilder();
  let x = net.input(["n", 1, 28, 28]);
  let from = 1;
  for (const to of [8, 12, 16]) {
    x = net.maxPool(net.relu(net.batchNorm(net.conv(x, from, to), to)));
    from = to;
  }
  return net.output(net.linear(net.g.op("Flatten", [x]), 16 * 9, 10), ["n", 10]);
}

async function trainTeacher(): Promise<Model> {
  const training = { ...base, epochs: 8, augmentation: SHIFTED };
  return (await onLabels(cnn([16, 32], 64), training)).student;
}

function onLabels(student: Model, training: TrainingSettings): Promise<Distillation> {
  const spec = { ...data, teacher: null, student, reinitialize: true, loss: LABELS_ONLY, training, metric: TOP1 };
  return distillOffline({ ...spec, baseline: false }, { openSession });
}

if (!existsSync(path)) writeFileSync(path, modelToBytes(await trainTeacher()));
const teacher = loadModel(readFileSync(path));

function online(training: TrainingSettings, more: Partial<OnlineDistillation>): Promise<Distillation> {
  const spec = { ...data, networks: [], update: "simultaneous", loss: MUTUAL, training, baseline: false } as const;
  return distillOnline({ ...spec, ...more }, { openSession });
}

const peers = (n: number, seed: number) =>
  Array.from({ length: n }, (_, i) => ({
    name: `peer_${i + 1}`,
    model: studentNetwork(),
    reinitializeSeed: seed + 100 * i,
  }));

type Mode = (training: TrainingSettings) => Promise<Distillation & { readonly exits?: readonly TrainedExit[] }>;

const own = { ...data, reinitialize: true, baseline: false };

const MODES: Readonly<Record<string, Mode>> = {
  labels: (training) => onLabels(studentNetwork(), training),
  offline: (training) => {
    const spec = { ...data, teacher, student: studentNetwork(), reinitialize: true, loss: DISTILLATION_LOSS, training };
    return distillOffline({ ...spec, metric: TOP1, baseline: false }, { openSession });
  },
  online_teacher: (training) =>
    online(training, {
      networks: [
        { name: "student", model: studentNetwork(), reinitializeSeed: training.seed },
        { name: "teacher", model: cnn([16, 32], 64), reinitializeSeed: training.seed },
      ],
      teacher: "teacher",
    }),
  online_2_peers: (training) => online(training, { networks: peers(2, training.seed) }),
  online_2_in_turn: (training) => online(training, { networks: peers(2, training.seed), update: "alternating" }),
  online_4_peers: (training) => online(training, { networks: peers(4, training.seed) }),
  born_again: (training) =>
    distillBornAgain(
      { ...own, model: studentNetwork(), generations: 3, average: false, loss: MUTUAL, training },
      { openSession },
    ),
  be_your_own_teacher: (training) =>
    distillOwnTeacher(
      {
        ...own,
        model: studentNetwork(),
        exits: 3,
        keepExits: true,
        loss: { ...DISTILLATION_LOSS, temperature: 3, klWeight: 0.1, labelWeight: 0.9, featureWeight: 0.03 },
        training,
      },
      { openSession },
    ),
  mean_teacher: (training) =>
    distillMeanTeacher(
      { ...own, model: studentNetwork(), loss: MUTUAL, training: { ...training, averageDecay: 0.99 } },
      { openSession },
    ),
};

const percent = (x: number) => `${(100 * x).toFixed(2)} %`;
const results = new Map<string, number[]>();
const ensembles = new Map<string, number[]>();
for (const [name, mode] of Object.entries(MODES)) {
  if (chosen && !chosen.split(",").includes(name)) continue;
  for (const seed of seeds.split(",").map(Number)) {
    const started = performance.now();
    const { metrics, ensemble, networks, exits } = await mode({ ...base, seed });
    const seconds = (performance.now() - started) / 1000;
    results.set(name, [...(results.get(name) ?? []), metrics!.studentAfter]);
    if (ensemble !== null) ensembles.set(name, [...(ensembles.get(name) ?? []), ensemble]);
    const each = networks.map((network) => `${network.name} ${percent(network.metric!)}`).join(", ");
    const ofExits = exits
      ?.map((exit) => `${exit.name} ${percent(exit.metric!)} at ${percent(exit.macsShare)}`)
      .join(", ");
    const together = ensemble === null ? "" : `; together ${percent(ensemble)}`;
    console.log(
      `${name} seed ${seed}: ${percent(metrics!.studentAfter)} (${each}${together})${ofExits ? `; ${ofExits}` : ""}, ${seconds.toFixed(0)} s`,
    );
  }
  const found = results.get(name)!;
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const spread = Math.max(...found) - Math.min(...found);
  const together = ensembles.has(name) ? `, together ${percent(mean(ensembles.get(name)!))}` : "";
  console.log(`| ${name} | ${percent(mean(found))} | ${percent(spread)} |${together}`);
}
