/**
 * Early exits of a real network: PP-OCR's orientation classifier (MobileNetV3's shape) goes on learning on rendered lines of text, every other one upside
 * down, with exits that its last layer teaches. Of every exit: its accuracy on lines that nothing was learned from, and what it takes of the whole
 * network: of its products, and of its processor time, one line at a time on one thread, measured in turns.
 *
 *   node bench/exits.ts FOLDER [lines] [epochs] [exits]
 *
 * FOLDER keeps the font's files.
 */
import { cpus } from "node:os";
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import { distillOwnTeacher } from "../src/core/distill/own-teacher.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { openSession, type Session } from "../src/core/runtime/session.ts";
import { readRealModel } from "../test/support/real-models.ts";
import { top1Of } from "../test/support/top1.ts";
import { mnistSettings } from "./mnist.ts";
import { orientedLines } from "./static-subjects.ts";

const [folder, lines = "1024", epochs = "4", count = "4"] = process.argv.slice(2);
if (!folder) throw new Error("Where are fonts kept? node bench/exits.ts FOLDER");

const TEST_LINES = 1000;
const TURNS = 31;
const RUNS = 20;

const model = loadModel(readRealModel("ppocr-cls"));
const samples = await orientedLines(folder, Number(lines), "lines to learn from");
const test = await orientedLines(folder, TEST_LINES, "lines to judge by");
const result = await distillOwnTeacher(
  {
    ...{ model, samples, validationSplit: 0.1, evaluation: test, metricOf: top1Of },
    ...{ reinitialize: false, baseline: true, exits: Number(count), keepExits: true },
    loss: { ...DISTILLATION_LOSS, temperature: 3, klWeight: 0.1, labelWeight: 0.9, featureWeight: 0.03 },
    training: mnistSettings({ epochs: Number(epochs), threads: 1, batchSize: 32, learningRate: 0.001 }),
  },
  { openSession, onProgress: ({ message }) => process.stderr.write(`${message}\n`) },
);

const single = Array.from({ length: RUNS }, (_, i) => test.gather([i]).feeds);

/** Milliseconds of processor time of a run. */
async function timeOf(session: Session): Promise<number> {
  const start = process.cpuUsage();
  for (const feeds of single) await session.run(feeds);
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000 / RUNS;
}

const sessions = await Promise.all(
  result.exits.map((exit) => openSession({ bytes: modelToBytes(exit.model) }, { threads: 1 })),
);
const times: number[][] = sessions.map(() => []);
for (let turn = 0; turn <= TURNS; turn++) {
  // Whatever comes around regularly, as collections of garbage do, meets each of them.
  for (let k = 0; k < sessions.length; k++) {
    const i = (k + turn) % sessions.length;
    const time = await timeOf(sessions[i]!);
    // The first is to warm up.
    if (turn > 0) times[i]!.push(time);
  }
}
const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
const percent = (x: number) => `${(100 * x).toFixed(1)} %`;

const { metrics, ensemble } = result;
console.log(`${cpus()[0]!.model}; ${lines} lines, ${epochs} epochs, judged on ${TEST_LINES} others`);
console.log(
  `as it came ${percent(metrics!.studentBefore)}, trained without exits ${percent(metrics!.baseline!)}, all answers together ${percent(ensemble!)}\n`,
);
console.log("| answer | reads | accuracy | products | processor time | of the whole |");
console.log("|---|---|---:|---:|---:|---:|");
const whole = times.at(-1)!;
for (const [i, exit] of result.exits.entries()) {
  const share = median(times[i]!.map((time, turn) => time / whole[turn]!));
  console.log(
    `| ${exit.name} | \`${exit.value}\` | ${percent(exit.metric!)} | ${percent(exit.macsShare)} | ${median(times[i]!).toFixed(2)} ms | ${percent(share)} |`,
  );
}
