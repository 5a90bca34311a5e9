/**
 * PP-OCR's recognizer in 8 bits and fewer: quantized after training with all that a static job does, and trained with the rounding in it, on the float
 * model's own answers and on labels. What counts is the share of characters that are read right, on lines that nothing was learned from; of
 * what was trained, in the simulation and by the model that comes out. The label of a step is its character where the text is what the steps
 * most probably spell (the best path of connectionist temporal classification through the float model's scores).
 *
 *   node bench/qat-lines.ts FOLDER [--lines 384] [--test 384] [--epochs 2] [--widths 8-8,4-8,2-8] [--taught self,labels] [--seeds 1] [--rate 0.00001]
 *     [--loss kl|mse] [--reduce-range] [--no-static] [--threads 1] [--rounding nearest|adaround] [--uncorrected]
 *
 * FOLDER keeps the font's files. With --reduce-range weights keep a bit free, as on processors without 8-bit dot products.
 */
import { parseArgs } from "node:util";
import { characterAccuracy, decodeLine } from "../scripts/demo/ocr.ts";
import { DISTILLATION_LOSS, type DistillationLoss } from "../src/core/distill/objective.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { prepareQat, type QatOptions, trainQat } from "../src/core/qat/qat.ts";
import { adaround } from "../src/core/quantize/rounding/adaround.ts";
import type { Rounding } from "../src/core/quantize/rounding/rounding.ts";
import { compressStatic } from "../src/core/quantize/static/pipeline.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { type Samples, samplesOf } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import type { ValidationMetric } from "../src/core/train/validate.ts";
import { openModel } from "../test/support/open-model.ts";
import { readRealModel } from "../test/support/real-models.ts";
import { mnistSettings } from "./mnist.ts";
import { readableLines, recognizerAlphabet } from "./static-subjects.ts";

const { positionals, values: options } = parseArgs({
  allowPositionals: true,
  options: {
    lines: { type: "string", default: "384" },
    test: { type: "string", default: "384" },
    epochs: { type: "string", default: "2" },
    widths: { type: "string", default: "8-8,4-8,2-8" },
    taught: { type: "string", default: "self,labels" },
    seeds: { type: "string", default: "1" },
    rate: { type: "string", default: "0.00001" },
    loss: { type: "string", default: "kl" },
    rounding: { type: "string", default: "nearest" },
    uncorrected: { type: "boolean", default: false },
    "reduce-range": { type: "boolean", default: false },
    "no-static": { type: "boolean", default: false },
    threads: { type: "string", default: "1" },
  },
});
const [folder] = positionals;
if (!folder) throw new Error("Where are fonts kept? node bench/qat-lines.ts FOLDER");
const threads = Number(options.threads);
const reduceRange = options["reduce-range"];

const BATCH = 16;
const HELD_OUT = 0.1;
const float = loadModel(readRealModel("ppocr-rec"));
const output = float.graph.outputs[0]!.name;
const [input] = float.graph.inputs.filter(({ constant }) => !constant);
const learned = await readableLines(folder, Number(options.lines), "lines to learn from");
const judged = await readableLines(folder, Number(options.test), "lines to judge by");
const alphabet = await recognizerAlphabet();
const classOf = new Map(alphabet.map((character, i) => [character, i]));
const texts = [...learned.texts, ...judged.texts];
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;

/** Lines with their numbers in `texts` as targets, by which the metric knows what is written there. */
function samplesFrom(x: Tensor, first: number, labels: Readonly<Record<string, Tensor>> = {}): Samples {
  const numbers = Float32Array.from({ length: x.dims[0]! }, (_, i) => first + i);
  return samplesOf({ [input!.name]: x }, { line: tensorOf("float32", [numbers.length], numbers), ...labels });
}

/**
 * The class of each step on the most probable path that spells `text`: blanks may stand between two characters, and must between equal ones.
 * `scores` are probabilities [steps, classes].
 */
function bestPath(scores: Float32Array, text: string): number[] {
  const states = [0, ...[...text].flatMap((character) => [classOf.get(character)!, 0])];
  const steps = scores.length / alphabet.length;
  const from: Int32Array[] = [];
  let best = states.map((_, s) => (s < 2 ? 0 : Number.NEGATIVE_INFINITY));
  for (let t = 0; t < steps; t++) {
    const came = Int32Array.from(states, (state, s) => {
      const mayskip = state !== 0 && state !== states[s - 2];
      const before = t === 0 ? [s] : [s, s - 1, ...(mayskip ? [s - 2] : [])];
      return before.filter((it) => it >= 0).reduce((a, b) => (best[b]! > best[a]! ? b : a));
    });
    best = states.map((state, s) => best[came[s]!]! + Math.log(scores[t * alphabet.length + state]! + 1e-30));
    from.push(came);
  }
  let s = states.length - (best.at(-1)! > best.at(-2)! ? 1 : 2);
  const path: number[] = [];
  for (const came of from.toReversed()) {
    path.unshift(states[s]!);
    s = came[s]!;
  }
  return path;
}

async function labelsOf(x: Tensor, of: readonly string[]): Promise<Tensor> {
  const session = await openModel(float, { threads });
  const { gather } = samplesOf({ [input!.name]: x });
  const paths: number[][] = [];
  for (const [i, text] of of.entries()) {
    paths.push(bestPath(floatsOf((await session.run(gather([i]).feeds))[output]!), text));
  }
  await session.close();
  return tensorOf("int64", [paths.length, paths[0]!.length], BigInt64Array.from(paths.flat(), BigInt));
}

const samples = samplesFrom(learned.x, 0, { labels: await labelsOf(learned.x, learned.texts) });
const test = samplesFrom(judged.x, learned.texts.length);

const CHARACTERS: ValidationMetric = {
  name: "characters",
  better: "higher",
  start() {
    const lines: { expected: string; read: string }[] = [];
    return {
      add(outputs, targets) {
        const scores = floatsOf(outputs[output]!);
        const numbers = floatsOf(targets.line!);
        const size = scores.length / numbers.length;
        for (const [i, line] of numbers.entries()) {
          const read = decodeLine(scores.subarray(i * size, (i + 1) * size), alphabet);
          lines.push({ expected: texts[line]!, read });
        }
      },
      get positions() {
        return lines.length;
      },
      get value() {
        return characterAccuracy(lines);
      },
    };
  },
};

/** The metric of a model as onnxruntime runs it. */
async function charactersOf(model: Model): Promise<number> {
  const session = await openModel(model, { threads });
  const meter = CHARACTERS.start();
  for (let i = 0; i < test.count; i++) {
    const { feeds, targets } = test.gather([i]);
    meter.add(await session.run(feeds), targets);
  }
  await session.close();
  return meter.value;
}

const CALIBRATION = 128;

async function* batches(most: number) {
  for (let i = 0; i < Math.min(most, samples.count); i++) yield samples.gather([i]).feeds;
}

const reference = await charactersOf(float);
console.log(`float ${percent(reference)}, ${modelToBytes(float).length} bytes`);

async function tell(what: string, model: Model): Promise<number> {
  const own = await charactersOf(model);
  console.log(`${what}: ${percent(own)}, ${(100 * (reference - own)).toFixed(2)} points below float`);
  return own;
}

async function int8(rounding?: Rounding): Promise<Model> {
  const { model } = await compressStatic(
    float,
    { batches },
    {
      ...({
        samples: CALIBRATION,
        method: "mse",
        percentile: 99.999,
        activationDType: "uint8",
        perChannel: true,
      } as const),
      ...({ reduceRange, equalize: "auto", smoothQuantAlpha: "auto", biasCorrection: true } as const),
      rounding,
    },
    { openModel, threads },
  );
  return model;
}

const LOSSES: Readonly<Record<string, Partial<DistillationLoss>>> = {
  labels: { klWeight: 0, labelWeight: 1 },
  self: { klWeight: 1, labelWeight: 0, temperature: 1, outputLoss: options.loss as "kl" | "mse" },
};

for (const width of options.widths.split(",")) {
  const [weights, activations] = width.split("-").map(Number) as [8 | 4 | 2, 8 | 4];
  const bits: QatOptions = {
    bits: { weights, activations },
    ...{ method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange, algorithm: "lsq" },
    ...{ samples: CALIBRATION, corrections: !options.uncorrected },
    rounding: options.rounding === "adaround" && weights < 8 ? adaround({ openModel, threads }) : undefined,
  };
  const name = `W${weights} A${activations}`;
  if (weights === 8 && !options["no-static"]) {
    await tell(`${name}, static`, await int8());
    await tell(`${name}, static with AdaRound`, await int8(adaround({ openModel, threads })));
  }
  const qat = await prepareQat(float, { batches }, bits, { openModel, threads });
  const untrained = await tell(`${name}, not trained`, qat.finish(qat.fakeQuantize([]).finish()).model);
  if (Number(options.epochs) === 0) continue;
  for (const taught of options.taught.split(",")) {
    for (const seed of options.seeds.split(",").map(Number)) {
      const began = process.cpuUsage();
      const { model, training, helped } = await trainQat(
        qat,
        {
          teacher: taught === "labels" ? null : float,
          loss: { ...DISTILLATION_LOSS, ...LOSSES[taught] },
          training: {
            ...mnistSettings({ epochs: Number(options.epochs), threads, batchSize: BATCH }),
            ...{ learningRate: Number(options.rate), schedule: SCHEDULES.cosine, weightDecay: 0, seed },
          },
          ...{ samples, validationSplit: HELD_OUT, evaluation: test, metric: CHARACTERS },
        },
        { openSession, onEpoch: (_phase, record) => process.stderr.write(`${JSON.stringify(record)}\n`) },
      );
      const { user } = process.cpuUsage(began);
      const made = await charactersOf(model);
      const { studentBefore, studentAfter } = training.metrics!;
      const simulated = helped ? studentAfter : studentBefore;
      console.log(
        `  ${name} ${taught} seed ${seed}: simulated ${percent(studentBefore)} -> ${percent(studentAfter)}${helped ? "" : " (the start goes out)"}, ` +
          `exported ${percent(made)}, apart ${(100 * Math.abs(made - simulated)).toFixed(2)}, ` +
          `${(100 * (reference - made)).toFixed(2)} points below float, ${percent((made - untrained) / (reference - untrained))} of what rounding cost recovered, ` +
          `${modelToBytes(model).length} bytes, ${(user / 1e6).toFixed(0)} s of processor time`,
      );
    }
  }
}
