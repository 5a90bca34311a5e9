/** The networks that static quantization is measured on, each with data for it. PP-OCR is real; the others are seasoned. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { useDemoFont } from "../scripts/demo/font.ts";
import { detectionInput, recognitionInput } from "../scripts/demo/ocr.ts";
import { drawTextLines, type Picture, pageOf, type TextLine } from "../scripts/demo/text-lines.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";
import { type RealModel, readRealModel } from "../test/support/real-models.ts";
import { naturalImages } from "./natural-images.ts";
import { type EncoderShape, encoder, mobileNetV2, resNet, season } from "./seasoned-nets.ts";

export interface QuantizeNet {
  /** Samples to calibrate with, and as many others to judge by. */
  readonly samples: number;
  model(): Promise<Model>;
  /** Inputs by name, stacked: [count, …]. Other seeds give other samples. */
  data(count: number, seed: number): Promise<Record<string, Tensor>>;
  /** What is read off the output and compared with the float model's: the largest along the last axis, or where it is above a half. */
  readonly answer: "argmax" | "mask";
}

const IMAGE_SIZE = 224;
const SEASONING_SAMPLES = 16;
/** None of the seeds that samples are judged or calibrated with. */
const SEASONING_SEED = 77;

export const NETS: Readonly<Record<string, QuantizeNet>> = {
  resnet18: imageNet(() => resNet([2, 2, 2, 2], false), 32),
  resnet50: imageNet(() => resNet([3, 4, 6, 3], true), 16),
  mobilenetv2: imageNet(() => mobileNetV2(), 32),
  encoder: tagger({ layers: 4, width: 384, heads: 6, length: 128, vocabulary: 8000, norm: "before" }, 32),
  "bert-base": tagger({ layers: 12, width: 768, heads: 12, length: 128, vocabulary: 30522, norm: "after" }, 16),
  "ppocr-rec": ocr("ppocr-rec", 32, "argmax", async (count, seed) =>
    recognitionInput(await crops(count, seed, 320), 320),
  ),
  "ppocr-det": ocr("ppocr-det", 16, "mask", async (count, seed) => detectionInput(await pages(count, seed))),
  "ppocr-cls": ocr("ppocr-cls", 32, "argmax", async (count, seed) =>
    recognitionInput(
      (await crops(count, seed, 192)).map((crop, i) => (i % 2 ? upsideDown(crop) : crop)),
      192,
    ),
  ),
};

const SMALL_IMAGE_SIZE = 96;

/** What 8 bits gain least for: layers of a few microseconds. */
export const SMALL_NETS: Readonly<Record<string, QuantizeNet>> = {
  "mobilenetv2-96": imageNet(() => mobileNetV2(SMALL_IMAGE_SIZE), 32, SMALL_IMAGE_SIZE),
  "encoder-small": tagger({ layers: 2, width: 128, heads: 2, length: 32, vocabulary: 1000, norm: "after" }, 32),
};

function imageNet(build: () => Model, samples: number, size = IMAGE_SIZE): QuantizeNet {
  const data = async (count: number, seed: number) => ({ x: naturalImages(count, size, seed) });
  return seasoned(build, data, samples);
}

function tagger(shape: EncoderShape, samples: number): QuantizeNet {
  const data = async (count: number, seed: number) => sentences(count, shape, seed);
  return seasoned(() => encoder(shape), data, samples);
}

function seasoned(build: () => Model, data: QuantizeNet["data"], samples: number): QuantizeNet {
  const model = async () => season(build(), await data(SEASONING_SAMPLES, SEASONING_SEED));
  return { samples, model, data, answer: "argmax" };
}

function ocr(
  name: RealModel,
  samples: number,
  answer: QuantizeNet["answer"],
  pictures: (count: number, seed: number) => Promise<{ dims: readonly number[]; data: Float32Array<ArrayBuffer> }>,
): QuantizeNet {
  return {
    samples,
    answer,
    model: async () => loadModel(readRealModel(name)),
    data: async (count, seed) => {
      const { dims, data } = await pictures(count, seed);
      return { x: tensorOf("float32", dims, data) };
    },
  };
}

/**
 * Token ids whose frequencies follow Zipf's law and that come back within a sentence, padded from some length on: ids and mask,
 * int64 [count, length].
 */
function sentences(count: number, { length, vocabulary }: EncoderShape, seed: number): Record<string, Tensor> {
  const random = new Random(seed, "sentences");
  const ids = new BigInt64Array(count * length);
  const mask = new BigInt64Array(count * length);
  for (let i = 0; i < count; i++) {
    const words = i % 2 ? length : Math.ceil(length * (0.3 + 0.7 * random.uniform()));
    for (let t = 0; t < words; t++) {
      const repeated = t > 0 && random.uniform() < 0.2;
      ids[i * length + t] = repeated
        ? ids[i * length + random.integer(t)]!
        : BigInt(Math.min(vocabulary - 1, Math.floor(vocabulary ** random.uniform())));
      mask[i * length + t] = 1n;
    }
  }
  return { ids: tensorOf("int64", [count, length], ids), mask: tensorOf("int64", [count, length], mask) };
}

async function crops(count: number, seed: number, maxWidth: number): Promise<Picture[]> {
  return (await lines(count, seed, maxWidth)).map(({ picture }) => picture);
}

const LINES_ON_PAGE = 6;
const PAGE_SIZE = 480;

async function pages(count: number, seed: number): Promise<Picture[]> {
  const drawn = await lines(LINES_ON_PAGE * count, seed, 320);
  const random = new Random(seed, "pages");
  return Array.from({ length: count }, (_, i) =>
    pageOf(drawn.slice(LINES_ON_PAGE * i, LINES_ON_PAGE * (i + 1)), PAGE_SIZE, random),
  );
}

async function lines(count: number, seed: number, maxWidth: number): Promise<TextLine[]> {
  const folder = await mkdtemp(join(tmpdir(), "fonts-"));
  try {
    await useDemoFont(folder);
    return await drawTextLines(count, new Random(seed, "lines"), maxWidth);
  } finally {
    await rm(folder, { recursive: true });
  }
}

function upsideDown({ width, height, rgb }: Picture): Picture {
  const turned = new Uint8Array(rgb.length);
  const pixels = width * height;
  for (let p = 0; p < pixels; p++) turned.set(rgb.subarray(3 * p, 3 * p + 3), 3 * (pixels - 1 - p));
  return { width, height, rgb: turned };
}
