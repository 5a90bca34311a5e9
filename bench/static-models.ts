/**
 * Static int8 on models with real weights and real inputs: what is counted about their answers before and after, by calibration method, on
 * inputs that calibration has not seen. Speed is a ratio of processor times of runs in turns, on one thread: a busy machine changes it little.
 *
 *   node bench/static-models.ts FOLDER [subjects] [methods] [samples]
 *
 * Subjects and methods are lists with commas; FOLDER keeps the networks that are trained on the first run.
 */
import { predictedBytes } from "../src/core/onnx/save.ts";
import { floatsOf, isFloat } from "../src/core/onnx/tensor.ts";
import type { Feeds } from "../src/core/quantize/calibrate.ts";
import type { Calibration } from "../src/core/quantize/calibration.ts";
import { CALIBRATION_METHODS, type CalibrationMethod } from "../src/core/quantize/observers.ts";
import { compressStatic, type PipelineOptions } from "../src/core/quantize/static-pipeline.ts";
import type { Session } from "../src/core/runtime/session.ts";
import { openModel } from "../test/support/open-model.ts";
import { answersOf, type Outputs, SUBJECTS, type Subject } from "./static-subjects.ts";

const [folder, subjectList, methodList, sampleCount = "128"] = process.argv.slice(2);
if (!folder) throw new Error("Where are networks kept? node bench/static-models.ts FOLDER");
const subjects = subjectList?.split(",") ?? Object.keys(SUBJECTS);
const methods = (methodList?.split(",") as CalibrationMethod[] | undefined) ?? CALIBRATION_METHODS;

const OPTIONS: Omit<PipelineOptions, "method" | "samples"> = {
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  avoidSaturation: true,
  equalize: "auto",
  smoothQuantAlpha: "auto",
  biasCorrection: true,
};
const TIMED_RUNS = 40;

/** 10·log10 of signal over noise, over all float outputs of all inputs. */
function sqnrDb(expected: readonly Outputs[], actual: readonly Outputs[]): number {
  let [signal, noise] = [0, 0];
  expected.forEach((outputs, i) => {
    for (const [name, tensor] of Object.entries(outputs)) {
      if (!isFloat(tensor.dtype)) continue;
      const other = floatsOf(actual[i]![name]!);
      floatsOf(tensor).forEach((x, k) => {
        signal += x * x;
        noise += (x - other[k]!) ** 2;
      });
    }
  });
  return 10 * Math.log10(signal / noise);
}

/** Processor time of a run of `before` over that of `after`: medians of runs in turns. */
async function speedupOf(before: Session, after: Session, feeds: Feeds): Promise<number> {
  const times = [before, after].map((session) => ({ session, microseconds: [] as number[] }));
  for (let run = 0; run < TIMED_RUNS; run++) {
    for (const { session, microseconds } of times) {
      const start = process.cpuUsage();
      await session.run(feeds);
      const { user, system } = process.cpuUsage(start);
      microseconds.push(user + system);
    }
  }
  const [slow, fast] = times.map(({ microseconds }) => microseconds.sort((a, b) => a - b)[TIMED_RUNS / 2]!);
  return slow! / fast!;
}

function dataOf({ calibration }: Subject) {
  return {
    async *batches(count: number) {
      yield* calibration.slice(0, count);
    },
  };
}

const counted = (counts: Readonly<Record<string, number>>) =>
  Object.entries(counts)
    .map(([name, value]) => `${name} ${value.toFixed(2)} %`)
    .join(", ");

for (const name of subjects) {
  const subject = await SUBJECTS[name]!(folder);
  const before = await openModel(subject.model, { threads: 1 });
  const float = await answersOf(before, subject.heldOut);
  const reference = subject.judge(float, float);
  console.log(`\n${name}: float ${counted(reference)}; ${predictedBytes(subject.model)} bytes`);
  let known: Calibration | undefined;
  for (const method of methods) {
    const started = performance.now();
    const result = await compressStatic(
      subject.model,
      dataOf(subject),
      { ...OPTIONS, method, samples: Number(sampleCount) },
      { openModel, threads: 1, known },
    );
    const seconds = (performance.now() - started) / 1000;
    known = result.calibration;
    const after = await openModel(result.model, { threads: 1 });
    const answers = await answersOf(after, subject.heldOut);
    const counts = subject.judge(answers, float);
    const drop = Object.values(reference)[0]! - Object.values(counts)[0]!;
    const speedup = await speedupOf(before, after, subject.heldOut[0]!);
    await after.close();
    const changed = result.notes.filter(({ outcome }) => outcome === "changed").length;
    const corrections = result.corrections.map(
      (it) =>
        `${it.name} ${it.sqnr_before_db.toFixed(1)} → ${it.sqnr_after_db.toFixed(1)} dB${it.applied ? "" : " (not kept)"}`,
    );
    console.log(
      `  ${method.padEnd(14)} ${counted(counts)}; drop ${drop.toFixed(2)} pt; ${sqnrDb(float, answers).toFixed(1)} dB; ` +
        `${speedup.toFixed(2)}x as fast; ${((100 * predictedBytes(result.model)) / predictedBytes(subject.model)).toFixed(1)} % ` +
        `of the size; ${changed} nodes; ${seconds.toFixed(1)} s; ${corrections.join(", ")}`,
    );
  }
  await before.close();
}
