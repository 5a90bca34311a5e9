/**
 * What a step of each mode of distillation, and of training with rounding, takes against one of the same network taught offline (its teacher's answers
 * are kept) or on labels alone, with the same batches. All are trained at the same time, an epoch of each in turn; what counts is the processor time
 * of an epoch, the first one left out, and its ratio within a round: another program on the machine disturbs that least.
 *
 *   node bench/mode-speed.ts [rounds] [samples] [networks: cnn,mlp,cities] [--cities cities.json]
 */
import { parseArgs } from "node:util";
import { distillMeanTeacher } from "../src/core/distill/mean-teacher.ts";
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import { distillOffline } from "../src/core/distill/offline.ts";
import { distillOnline } from "../src/core/distill/online.ts";
import { distillOwnTeacher } from "../src/core/distill/own-teacher.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { prepareQat, trainQat } from "../src/core/qat/qat.ts";
import { openSession } from "../src/core/runtime/session.ts";
import type { PhaseHooks } from "../src/core/train/phases.ts";
import type { Samples } from "../src/core/train/samples.ts";
import { cnn, mlp } from "../test/support/networks.ts";
import { top1Of } from "../test/support/top1.ts";
import { mnist, mnistSettings, TOP1 } from "./mnist.ts";
import { smallTask } from "./small-tasks.ts";

const { positionals, values: options } = parseArgs({
  allowPositionals: true,
  options: { cities: { type: "string" } },
});
const [rounds = "15", count = "640", chosen = "cnn,mlp"] = positionals;

const LABELS = { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 };
const MUTUAL = { ...DISTILLATION_LOSS, temperature: 1, klWeight: 1, labelWeight: 1, teacherKlWeight: 0 };
const training = mnistSettings({ epochs: Number(rounds) + 1, threads: 1 });

interface Subject {
  readonly model: Model;
  readonly samples: Samples;
}

const SUBJECTS: Readonly<Record<string, () => Subject>> = {
  cnn: () => ({ model: cnn([16, 32], 64), samples: mnist("training", Number(count)) }),
  mlp: () => ({ model: mlp([784, 512, 256, 10]), samples: mnist("training", Number(count)) }),
  cities() {
    const task = smallTask("cities", { citiesPath: options.cities });
    return { model: task.student(), samples: task.samples(Number(count)) };
  },
};

type Hooks = PhaseHooks;
type Run = (hooks: Hooks) => Promise<unknown>;

/** Every way to train the network, and which of them it is held against. */
async function waysOf({ model, samples }: Subject): Promise<Readonly<Record<string, readonly [Run, string | null]>>> {
  const data = { samples, validationSplit: 0, metricOf: top1Of };
  const common = { ...data, training, baseline: false };
  const offline =
    (teacher: Model | null, loss = DISTILLATION_LOSS): Run =>
    (hooks) =>
      distillOffline({ ...common, teacher, student: model, reinitialize: true, loss, metric: TOP1 }, hooks);
  const peers = (n: number) =>
    Array.from({ length: n }, (_, i) => ({ name: `peer_${i + 1}`, model, reinitializeSeed: i + 1 }));
  const online =
    (n: number, update: "simultaneous" | "alternating"): Run =>
    (hooks) =>
      distillOnline({ ...common, networks: peers(n), update, loss: MUTUAL }, hooks);
  const own = { ...common, model, reinitialize: true };
  const batches = async function* () {
    for (let i = 0; i < 128; i += 32) yield samples.gather(Array.from({ length: 32 }, (_, j) => i + j)).feeds;
  };
  const openModel = (of: Model, session?: object) =>
    openSession({ bytes: modelToBytes(of) }, { threads: 1, ...session });
  const qat = async (weights: 8 | 4): Promise<Run> => {
    const bits = { weights, activations: 8 } as const;
    const scheme = { bits, method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange: false } as const;
    const prepared = await prepareQat(
      model,
      { batches },
      { ...scheme, algorithm: "lsq", samples: 4, corrections: true },
      { openModel },
    );
    return (hooks) => trainQat(prepared, { ...data, training, teacher: null, loss: LABELS, metric: TOP1 }, hooks);
  };
  return {
    labels: [offline(null, LABELS), null],
    offline: [offline(model), "labels"],
    "online, 2 peers": [online(2, "simultaneous"), "offline"],
    "online, 2 peers in turn": [online(2, "alternating"), "offline"],
    "online, 4 peers": [online(4, "simultaneous"), "offline"],
    "be your own teacher": [
      (hooks) =>
        distillOwnTeacher({ ...own, exits: 3, keepExits: false, loss: { ...MUTUAL, featureWeight: 0.03 } }, hooks),
      "offline",
    ],
    "mean teacher": [
      (hooks) => distillMeanTeacher({ ...own, loss: MUTUAL, training: { ...training, averageDecay: 0.99 } }, hooks),
      "offline",
    ],
    "qat, W8 A8": [await qat(8), "labels"],
    "qat, W4 A8": [await qat(4), "labels"],
  };
}

interface Time {
  /** Milliseconds for each sample. */
  readonly cpu: number;
  readonly wall: number;
}

/** A run that stops after every epoch and goes on when it is told to. */
class Stepped {
  readonly #done: Promise<unknown>;
  #began = { cpu: 0, wall: 0 };
  #time: Time = { cpu: 0, wall: 0 };
  #goOn: () => void = () => {};
  #arrived: () => void = () => {};
  #epoch = 0;

  private constructor(run: Run, arrived: () => void) {
    this.#arrived = arrived;
    this.#done = run({
      openSession,
      // One network among several tells of the epoch first.
      onEpoch: (_phase, { epoch }) => {
        if (epoch === this.#epoch) return;
        this.#epoch = epoch;
        const { cpu, wall } = now();
        this.#time = { cpu: cpu - this.#began.cpu, wall: wall - this.#began.wall };
      },
      saveCheckpoint: () =>
        new Promise((resolve) => {
          this.#goOn = resolve;
          this.#arrived();
        }),
    });
  }

  /** Starts a run and waits for the end of its first epoch. */
  static async open(run: Run): Promise<Stepped> {
    let opened: Stepped | undefined;
    await new Promise<void>((resolve, reject) => {
      opened = new Stepped(run, resolve);
      opened.#done.catch(reject);
    });
    return opened!;
  }

  /** One more epoch, and what it took. */
  async next(): Promise<Time> {
    await new Promise<void>((resolve) => {
      this.#arrived = resolve;
      this.#began = now();
      this.#goOn();
    });
    return this.#time;
  }

  async close(): Promise<void> {
    this.#goOn();
    await this.#done;
  }
}

function now(): Time {
  const { user, system } = process.cpuUsage();
  return { cpu: (user + system) / 1000, wall: performance.now() };
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

for (const name of chosen.split(",")) {
  const subject = SUBJECTS[name]!();
  const used = Math.floor(subject.samples.count / training.batchSize) * training.batchSize;
  const ways = await waysOf(subject);
  const runs = new Map<string, Stepped>();
  for (const [way, [run]] of Object.entries(ways)) runs.set(way, await Stepped.open(run));
  const times = new Map<string, Time[]>(Object.keys(ways).map((way) => [way, []]));
  for (let round = 0; round < Number(rounds); round++) {
    for (const [way, run] of runs) {
      const { cpu, wall } = await run.next();
      times.get(way)!.push({ cpu: cpu / used, wall: wall / used });
    }
  }
  for (const run of runs.values()) await run.close();
  console.log(`\n**${name}**, batches of ${training.batchSize}, ${rounds} rounds of ${used} samples\n`);
  console.log(
    "| mode | ms of processor time a sample | samples a second of it | of the time of | ratio | quartiles | by the clock |",
  );
  console.log("|---|---:|---:|---|---:|---|---:|");
  for (const [way, [, other]] of Object.entries(ways)) {
    const own = times.get(way)!;
    const cpu = median(own.map((time) => time.cpu));
    const ratios = (of: "cpu" | "wall") =>
      other === null ? [1] : own.map((time, i) => time[of] / times.get(other)![i]![of]);
    const all = ratios("cpu").toSorted((a, b) => a - b);
    const quartile = (k: number) => all[Math.floor((k * (all.length - 1)) / 4)]!.toFixed(2);
    console.log(
      `| ${way} | ${cpu.toFixed(3)} | ${(1000 / cpu).toFixed(0)} | ${other ?? ""} | ${median(all).toFixed(2)}x | ` +
        `${quartile(1)} to ${quartile(3)} | ${median(ratios("wall")).toFixed(2)}x |`,
    );
  }
}
