/**
 * A whole distillation of a small student, two strided convolutions of 12 and 24 channels on MNIST, as a job of the service and as a PyTorch script that
 * does the same: it reads the files, asks the teacher about all images, trains, judges every epoch on a tenth of the images and the best one on the test
 * images. In turns, whole processes: a job counts from its POST until it has ended, the script from its start to its exit. A job also compares the
 * student with the teacher (fidelity, latency, memory) and writes a report.
 *
 *   node bench/compare/distill.ts PYTHON [samples] [epochs] [threads] [rounds]
 *
 * PYTHON is an interpreter that has torch, onnx and numpy. The first job asks the teacher; those after it, on the same teacher and images, need
 * not. What is printed: seconds of each round, samples a second of the training steps, accuracy on the 10,000 test images, and the ratios of the medians.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "../../scripts/demo/client.ts";
import { startStack } from "../../scripts/demo/stack.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { train } from "../../src/core/train/loop.ts";
import { crossEntropy } from "../../src/core/train/losses.ts";
import { createTrainable, exportTrained } from "../../src/core/train/trainable.ts";
import { mnistFile } from "../../test/support/mnist.ts";
import { cnn, smallStudent } from "../../test/support/networks.ts";
import { mnist, mnistSettings } from "../mnist.ts";

const [python, samples = "20000", epochs = "6", threads = "2", rounds = "3"] = process.argv.slice(2);
if (!python) throw new Error("Which Python has torch? node bench/compare/distill.ts PYTHON");

interface Run {
  /** By the clock, all of it. */
  readonly seconds: number;
  /** Of the training steps, validation left out. */
  readonly samplesPerSecond: number;
  readonly student: number;
  readonly teacher: number;
}

async function trainedTeacher(): Promise<Uint8Array<ArrayBuffer>> {
  const trainable = createTrainable(cnn([16, 32], 64), { reinitializeSeed: 1 });
  const { values } = await train(
    {
      trainable,
      training: mnist("training", 10_000),
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    mnistSettings({ epochs: 2, threads: Number(threads) }),
    { openSession },
  );
  return new Uint8Array(modelToBytes(exportTrained(trainable, values)));
}

const folder = mkdtempSync(join(tmpdir(), "compare-distill-"));
const files = {
  teacher: await trainedTeacher(),
  student: new Uint8Array(modelToBytes(smallStudent())),
  training: mnistFile("training", Number(samples)),
  test: mnistFile("test", 10_000),
};
writeFileSync(join(folder, "teacher.onnx"), files.teacher);
for (const name of ["training", "test"] as const) writeFileSync(join(folder, `${name}.npz`), files[name]);

/** Started anew for every job that is to ask its teacher. */
async function serve() {
  const stack = await startStack({ LOG_LEVEL: "warn", JOB_THREADS: threads });
  const client = new Client(stack.url);
  const [teacher, student] = [
    await client.uploadModel(files.teacher, "teacher"),
    await client.uploadModel(files.student, "student"),
  ];
  const [training, test] = [
    await client.uploadDataset(files.training, "training.npz", "training"),
    await client.uploadDataset(files.test, "test.npz", "test"),
  ];
  const run = async (seed: number): Promise<Run> => {
    const started = performance.now();
    const { id } = await client.createJob({
      type: "distill",
      params: {
        ...{ mode: "offline", teacher_model_id: teacher.id, dataset_id: training.id, seed },
        student: { model_id: student.id, init: "reinitialize" },
        training: { epochs: Number(epochs), batch_size: 128, learning_rate: 0.005 },
      },
      evaluation: { dataset_id: test.id, latency: { runs: 50, batch_size: 32 } },
    });
    const job = await client.follow(id, () => {});
    const seconds = (performance.now() - started) / 1000;
    if (job.result === null) throw new Error(JSON.stringify(job.error));
    const { training: trained } = job.result.metrics as unknown as {
      training: { samples_per_second: number; student_metric: number; teacher_metric: number };
    };
    const { samples_per_second, student_metric, teacher_metric } = trained;
    return { seconds, samplesPerSecond: samples_per_second, student: student_metric, teacher: teacher_metric };
  };
  return { run, close: () => stack.close() };
}

function runScript(): Run {
  const started = performance.now();
  const output = execFileSync(python!, [join(import.meta.dirname, "distill.py"), folder, epochs, threads], {
    env: {
      ...process.env,
      OMP_NUM_THREADS: threads,
      MALLOC_MMAP_THRESHOLD_: "1073741824",
      MALLOC_TRIM_THRESHOLD_: "4294967296",
    },
    encoding: "utf8",
  });
  const { student, teacher, samples_per_second } = JSON.parse(output) as Record<string, number>;
  const seconds = (performance.now() - started) / 1000;
  return { seconds, samplesPerSecond: samples_per_second!, student: student!, teacher: teacher! };
}

const runs: Record<"job" | "job, teacher kept" | "script", Run[]> = { job: [], "job, teacher kept": [], script: [] };
try {
  for (let round = 0; round < Number(rounds); round++) {
    const service = await serve();
    try {
      runs.job.push(await service.run(2 * round));
      runs.script.push(runScript());
      runs["job, teacher kept"].push(await service.run(2 * round + 1));
    } finally {
      await service.close();
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}

const middle = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const of = (way: keyof typeof runs, what: keyof Run) => middle(runs[way].map((run) => run[what]));
console.log(
  `${cpus()[0]!.model}, ${samples} images, ${epochs} epochs, batches of 128, ${threads} threads, ${rounds} rounds\n`,
);
console.log(
  "| | seconds in all | against the script | samples a second in training | against the script | student | teacher |",
);
console.log("|---|---:|---:|---:|---:|---:|---:|");
for (const way of Object.keys(runs) as (keyof typeof runs)[]) {
  const ratios = [
    of("script", "seconds") / of(way, "seconds"),
    of(way, "samplesPerSecond") / of("script", "samplesPerSecond"),
  ];
  const [whole, training] = ratios.map((ratio) => `${ratio.toFixed(2)}x`);
  const [student, teacher] = [of(way, "student"), of(way, "teacher")].map((share) => `${(100 * share).toFixed(2)} %`);
  console.log(
    `| ${way} | ${of(way, "seconds").toFixed(1)} | ${whole} | ${of(way, "samplesPerSecond").toFixed(0)} | ${training} | ${student} | ${teacher} |`,
  );
}
