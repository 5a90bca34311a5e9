/**
 * PP-OCR's recognizer in 8 bits and fewer, without labels: quantized after training with all that a static job does, and trained with the rounding
 * in it on the float model's own answers. What counts is the share of characters that are read right, on lines that nothing was learned
 * from; of what was trained, in the simulation and by the model that comes out.
 *
 *   node bench/qat-lines.ts FOLDER [lines] [epochs] [widths: 8-8,4-8,2-8] [seeds] [learning rate]
 *
 * FOLDER keeps the font's files. Weights keep a bit free, as on processors without 8-bit dot products.
 */
import { characterAccuracy } from "../scripts/demo/ocr.ts";
import { DISTILLATION_LOSS } from "../src/core/distill/objective.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { prepareQat, type QatOptions, trainQat } from "../src/core/qat/qat.ts";
import { compressStatic } from "../src/core/quantize/static/pipeline.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { type Samples, samplesOf } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import type { ValidationMetric } from "../src/core/train/validate.ts";
import { openModel } from "../test/support/open-model.ts";
import { readRealModel } from "../test/support/real-models.ts";
import { mnistSettings } from "./mnist.ts";
import { lineReader, readableLines } from "./static-subjects.ts";

const [folder, count = "384", epochs = "2", widths = "8-8,4-8,2-8", seeds = "1", rate = "0.0002"] =
  process.argv.slice(2);
if (!folder) throw new Error("Where are fonts kept? node bench/qat-lines.ts FOLDER");

const TEST_LINES = 384;
const BATCH = 16;
const HELD_OUT = 0.1;
const float = loadModel(readRealModel("ppocr-rec"));
const output = float.graph.outputs[0]!.name;
const [input] = float.graph.inputs.filter(({ constant }) => !constant);
const learned = await readableLines(folder, Number(count), "lines to learn from");
const judged = await readableLines(folder, TEST_LINES, "lines to judge by");
const read = await lineReader();
const texts = [...learned.texts, ...judged.texts];
const percent = (x: number) => `${(100 * x).toFixed(2)} %`;

/** Lines with their numbers in `texts` as targets, by which the metric knows what is written there. */
function samplesFrom(x: Tensor, first: number): Samples {
  const numbers = Float32Array.from({ length: x.dims[0]! }, (_, i) => first + i);
  return samplesOf({ [input!.name]: x }, { line: tensorOf("float32", [numbers.length], numbers) });
}

const samples = samplesFrom(learned.x, 0);
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
          lines.push({ expected: texts[line]!, read: read(scores.subarray(i * size, (i + 1) * size)) });
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
  const session = await openModel(model, { threads: 1 });
  const meter = CHARACTERS.start();
  for (let i = 0; i < test.count; i++) {
    const { feeds, targets } = test.gather([i]);
    meter.add(await session.run(feeds), targets);
  }
  await session.close();
  return meter.value;
}

async function* batches(most = 128) {
  for (let i = 0; i < Math.min(most, samples.count); i++) yield samples.gather([i]).feeds;
}

const reference = await charactersOf(float);
console.log(`float ${percent(reference)}, ${modelToBytes(float).length} bytes`);

async function tell(what: string, model: Model): Promise<number> {
  const own = await charactersOf(model);
  console.log(`${what}: ${percent(own)}, ${(100 * (reference - own)).toFixed(2)} points below float`);
  return own;
}

async function int8(): Promise<Model> {
  const { model } = await compressStatic(
    float,
    { batches },
    {
      ...({ samples: 128, method: "mse", percentile: 99.999, activationDType: "uint8", perChannel: true } as const),
      ...({ reduceRange: true, equalize: "auto", smoothQuantAlpha: "auto", biasCorrection: true } as const),
    },
    { openModel, threads: 1 },
  );
  return model;
}

for (const width of widths.split(",")) {
  const [weights, activations] = width.split("-").map(Number) as [8 | 4 | 2, 8 | 4];
  const options: QatOptions = {
    bits: { weights, activations },
    ...{ method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange: true, algorithm: "lsq" },
  };
  const name = `W${weights} A${activations}`;
  if (weights === 8) await tell(`${name}, static`, await int8());
  const qat = await prepareQat(float, () => batches(), options, { openModel });
  const untrained = await tell(`${name}, not trained`, qat.finish(qat.fakeQuantize([]).finish()).model);
  for (const seed of seeds.split(",").map(Number)) {
    const began = process.cpuUsage();
    const { model, training, helped } = await trainQat(
      qat,
      {
        teacher: float,
        loss: { ...DISTILLATION_LOSS, klWeight: 1, labelWeight: 0, temperature: 1 },
        training: {
          ...mnistSettings({ epochs: Number(epochs), threads: 1, batchSize: BATCH, learningRate: Number(rate) }),
          ...{ schedule: SCHEDULES.cosine, weightDecay: 0, seed },
        },
        ...{ samples, validationSplit: HELD_OUT, evaluation: test, metric: CHARACTERS },
      },
      { openSession, onProgress: ({ message }) => process.stderr.write(`${message}\n`) },
    );
    const { user } = process.cpuUsage(began);
    const made = await charactersOf(model);
    const { studentBefore, studentAfter } = training.metrics!;
    const simulated = helped ? studentAfter : studentBefore;
    console.log(
      `  ${name} seed ${seed}: simulated ${percent(studentBefore)} -> ${percent(simulated)}${helped ? "" : " (the start)"}, exported ${percent(made)}, ` +
        `${(100 * (reference - made)).toFixed(2)} points below float, ${percent((made - untrained) / (reference - untrained))} of what rounding cost recovered, ` +
        `${modelToBytes(model).length} bytes, ${(user / 1e6).toFixed(0)} s of processor time`,
    );
  }
}
