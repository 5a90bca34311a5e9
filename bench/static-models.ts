/**
 * Static int8 on models with real weights and real inputs: what is counted about their answers before and after, on inputs that calibration
 * has not seen, and then models whose limit plain int8 misses, with layers left in float until it holds. Choices are made by inputs that
 * nothing is judged by. Speed is the ratio of median times of runs in turns, on one thread: a busy machine blurs it.
 *
 *   node bench/static-models.ts FOLDER [subjects] [methods] [samples] [widths]
 *
 * Subjects and methods are lists with commas; FOLDER keeps the networks that are trained on the first run. Widths, instead of methods: bits of weights, in
 * a list as `8,4,4-adaround,2-adaround`, for a processor with 8-bit dot products.
 */

import type { Model } from "../src/core/onnx/ir.ts";
import { predictedBytes } from "../src/core/onnx/save.ts";
import { floatsOf, isFloat, type Tensor } from "../src/core/onnx/tensor.ts";
import type { Feeds } from "../src/core/quantize/calibration/calibrate.ts";
import { CALIBRATION_METHODS, type CalibrationMethod } from "../src/core/quantize/calibration/calibration-methods.ts";
import { adaround } from "../src/core/quantize/rounding/adaround.ts";
import type { AccuracyTarget } from "../src/core/quantize/static/layers-in-float.ts";
import { compressStatic, type PipelineOptions } from "../src/core/quantize/static/pipeline.ts";
import type { WeightBits } from "../src/core/quantize/static/stored-weights.ts";
import type { Session } from "../src/core/runtime/session.ts";
import { samplesOf } from "../src/core/train/samples.ts";
import { openModel } from "../test/support/open-model.ts";
import { profileTemporary } from "../workers/model-files.ts";
import { NETS, type QuantizeNet, SMALL_NETS } from "./quantize-nets.ts";
import { answersOf, type Judge, type Outputs, SUBJECTS, type Subject } from "./static-subjects.ts";

const [folder, subjectList, methodList, sampleCount = "128", widthList = ""] = process.argv.slice(2);
if (!folder) throw new Error("Where are networks kept? node bench/static-models.ts FOLDER");
const subjects = subjectList?.split(",") ?? Object.keys(SUBJECTS);

type Method = CalibrationMethod | "auto";

/** The one whose answers depend most on ranges shows all methods; the others the default. */
const METHODS: Readonly<Record<string, readonly Method[]>> = { "ppocr-rec": [...CALIBRATION_METHODS, "auto"] };
const DEFAULT_METHODS: readonly Method[] = ["mse", "auto"];

const OPTIONS: Omit<PipelineOptions, "method"> = {
  samples: Number(sampleCount),
  percentile: 99.999,
  activationDType: "uint8",
  perChannel: true,
  reduceRange: true,
  equalize: "auto",
  smoothQuantAlpha: "auto",
  biasCorrection: true,
  floatWhereSlower: "measured",
};

/** What plain int8 loses more by than it may, in points. */
const LIMITS: Readonly<Record<string, { readonly points: number; readonly options: Partial<PipelineOptions> }>> = {
  "ppocr-rec": { points: 0.3, options: { method: "minmax", biasCorrection: false } },
};
const MAX_TRIALS = 12;
const TIMED_RUNS = 40;
const TRIAL_RUNS = 10;

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

/** Time of a run of `before` over that of `after`: medians of runs in turns. */
async function speedupOf(before: Session, after: Session, feeds: Feeds, runs = TIMED_RUNS): Promise<number> {
  const times = [before, after].map((session) => ({ session, milliseconds: [] as number[] }));
  for (let run = 0; run < runs; run++) {
    for (const { session, milliseconds } of times) {
      const start = performance.now();
      await session.run(feeds);
      milliseconds.push(performance.now() - start);
    }
  }
  const [slow, fast] = times.map(({ milliseconds }) => milliseconds.sort((a, b) => a - b)[Math.floor(runs / 2)]!);
  return slow! / fast!;
}

function dataOf({ calibration }: Subject) {
  return {
    async *batches(count: number) {
      yield* calibration.slice(0, count);
    },
  };
}

interface Row {
  readonly subject: string;
  readonly setting: string;
  readonly result: string;
}

/** One model before and after, on the inputs that nothing else has seen. */
async function judged(subject: Subject, before: Session, float: readonly Outputs[], model: Model): Promise<string> {
  const after = await openModel(model, { threads: 1 });
  const answers = await answersOf(after, subject.heldOut);
  const counts = subject.judge(answers, float);
  const reference = subject.judge(float, float);
  const drop = Object.values(reference)[0]! - Object.values(counts)[0]!;
  const speedup = await speedupOf(before, after, subject.heldOut[0]!);
  await after.close();
  const size = (100 * predictedBytes(model)) / predictedBytes(subject.model);
  const said = Object.entries(counts).map(([name, value]) => `${name} ${value.toFixed(2)} %`);
  return `${said.join(", ")}; drop ${drop.toFixed(2)} pt; ${sqnrDb(float, answers).toFixed(1)} dB; ${speedup.toFixed(2)}x; ${size.toFixed(1)} % of the size`;
}

/** Scores models on inputs of their own. */
async function targetOf(
  { model, tuning }: Subject & Required<Pick<Subject, "tuning">>,
  before: Session,
  points: number,
): Promise<AccuracyTarget> {
  const float = await answersOf(before, tuning.feeds);
  const withSession = async <T>(candidate: Model, use: (session: Session) => Promise<T>): Promise<T> => {
    const session = await openModel(candidate, { threads: 1 });
    try {
      return await use(session);
    } finally {
      await session.close();
    }
  };
  const scoreOf = (judge: Judge, outputs: readonly Outputs[]) => Object.values(judge(outputs, float))[0]!;
  const score = (candidate: Model) =>
    withSession(candidate, async (session) => scoreOf(tuning.judge, await answersOf(session, tuning.feeds)));
  const speedup = (candidate: Model) =>
    withSession(candidate, (session) => speedupOf(before, session, tuning.feeds[0]!, TRIAL_RUNS));
  return { score, speedup, target: (await score(model)) - points, maxTrials: MAX_TRIALS };
}

/** The options of a width, by its name. */
function optionsOf(width: string): Partial<PipelineOptions> {
  const [bits, rounding] = width.split("-");
  return {
    weightBits: Number(bits) as WeightBits,
    reduceRange: false,
    rounding: rounding === "adaround" ? adaround({ openModel, threads: 1 }) : undefined,
  };
}

/** A network without labels: what counts is the share of positions whose largest output is the float model's. */
async function subjectOf(net: QuantizeNet): Promise<Subject> {
  const [one, other] = [await net.data(net.samples, 1), await net.data(net.samples, 2)];
  const each = (data: Readonly<Record<string, Tensor>>) => {
    const { gather } = samplesOf(data);
    return Array.from({ length: net.samples }, (_, i) => gather([i]).feeds);
  };
  const largest = ({ dims, ...of }: Tensor) => {
    const [values, width] = [floatsOf({ dims, ...of } as Tensor), dims.at(-1)!];
    return Array.from({ length: values.length / width }, (_, i) => {
      const row = values.subarray(i * width, (i + 1) * width);
      return row.indexOf(row.reduce((a, b) => Math.max(a, b)));
    });
  };
  const answers = (outputs: readonly Outputs[]) => outputs.flatMap((it) => largest(Object.values(it)[0]!));
  return {
    model: await net.model(),
    ...{ calibration: each(one), heldOut: each(other) },
    judge(outputs, float) {
      const [ours, theirs] = [answers(outputs), answers(float)];
      return { "same answers": (100 * ours.filter((answer, i) => answer === theirs[i]).length) / ours.length };
    },
  };
}

const rows: Row[] = [];
function report(row: Row): void {
  rows.push(row);
  console.log(`${row.subject}, ${row.setting}: ${row.result}`);
}

for (const name of subjects) {
  const subject = await (SUBJECTS[name]?.(folder) ?? subjectOf({ ...NETS, ...SMALL_NETS }[name]!));
  const before = await openModel(subject.model, { threads: 1 });
  const float = await answersOf(before, subject.heldOut);
  const counts = Object.entries(subject.judge(float, float)).map(([what, value]) => `${what} ${value.toFixed(2)} %`);
  report({ subject: name, setting: "float", result: `${counts.join(", ")}; ${predictedBytes(subject.model)} bytes` });
  const compress = (options: Partial<PipelineOptions>) =>
    compressStatic(
      subject.model,
      dataOf(subject),
      { ...OPTIONS, method: "mse", ...options },
      { openModel, profile: profileTemporary, threads: 1 },
    );
  const methods = (methodList?.split(",") as Method[] | undefined) ?? METHODS[name] ?? DEFAULT_METHODS;
  const settings: (readonly [string, Partial<PipelineOptions>])[] = widthList
    ? widthList.split(",").map((width) => [`weights of ${width}`, optionsOf(width)])
    : methods.map((method) => [method, { method }]);
  for (const [setting, options] of settings) {
    const started = performance.now();
    const { model, notes, corrections, methodsTried } = await compress(options);
    const seconds = (performance.now() - started) / 1000;
    const quantized = notes.filter(({ code }) => code === "quantized").length;
    const gains = corrections.map(
      (it) =>
        `${it.name} ${it.sqnr_before_db.toFixed(1)} → ${it.sqnr_after_db.toFixed(1)} dB${it.applied ? "" : " (not kept)"}`,
    );
    const tried = methodsTried.map((trial) => `${trial.method} ${trial.sqnrDb.toFixed(1)} dB`);
    const made = [`${quantized} nodes`, `${seconds.toFixed(1)} s`, ...tried, ...gains].join("; ");
    report({ subject: name, setting, result: `${await judged(subject, before, float, model)}; ${made}` });
  }
  const limit = widthList ? undefined : LIMITS[name];
  if (limit && subject.tuning) {
    const setting = Object.entries(limit.options).map(([option, value]) => `${option} ${value}`);
    const plain = await compress(limit.options);
    report({ subject: name, setting: setting.join(", "), result: await judged(subject, before, float, plain.model) });
    const control = await targetOf({ ...subject, tuning: subject.tuning }, before, limit.points);
    const { model, control: controlled } = await compress({ ...limit.options, control });
    const { floatLayers, reached, trials } = controlled!;
    const made = `${floatLayers.length} layers in float, ${trials.length} models tried, limit ${reached ? "reached" : "missed"} on the inputs it was looked for on`;
    report({
      subject: name,
      setting: `the same, at most ${limit.points} pt`,
      result: `${await judged(subject, before, float, model)}; ${made}`,
    });
  }
  await before.close();
}

console.log("\n| model | setting | result on held-out inputs |\n|---|---|---|");
for (const { subject, setting, result } of rows) console.log(`| ${subject} | ${setting} | ${result} |`);
