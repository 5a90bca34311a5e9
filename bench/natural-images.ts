/**
 * Pictures with the statistics of natural ones, for networks that have no data: the dead leaves model (A. B. Lee, D. Mumford, J. Huang,
 * "Occlusion Models for Natural Images", 2001). Discs of many sizes, radii distributed as r⁻³, lie on top of each other, which gives edges,
 * flat regions and a power spectrum that falls as 1/f²; shading and grain are laid over them.
 */
import { type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";

/** ImageNet's mean and deviation, which image networks take their input in. */
const MEAN = [0.485, 0.456, 0.406] as const;
const DEVIATION = [0.229, 0.224, 0.225] as const;

const DISCS = 500;
/** Of the smallest discs, which differ from picture to picture: from fine to coarse. */
const SMALLEST = [2, 24] as const;

/** [count, 3, size, size], normalized. */
export function naturalImages(count: number, size: number, seed: number): Tensor {
  const data = new Float32Array(count * 3 * size * size);
  const random = new Random(seed, "images");
  for (let i = 0; i < count; i++) {
    const rgb = data.subarray(i * 3 * size * size, (i + 1) * 3 * size * size);
    deadLeaves(rgb, size, random);
    finish(rgb, size, random);
  }
  return tensorOf("float32", [count, 3, size, size], data);
}

/** Colours in [0, 1], the planes one after the other. Later discs lie on top of earlier ones. */
function deadLeaves(rgb: Float32Array, size: number, random: Random): void {
  const largest = size / 2;
  const smallest = SMALLEST[0] * (SMALLEST[1] / SMALLEST[0]) ** random.uniform();
  // Each picture has a colour, a brightness and a contrast of its own, as scenes have: these are what tells pictures as a whole apart.
  const scene = MEAN.map(() => random.uniform());
  const contrast = 0.3 + 0.7 * random.uniform();
  const plane = size * size;
  for (let disc = 0; disc < DISCS; disc++) {
    // Inverse of the cumulative distribution of r⁻³ between both radii.
    const u = random.uniform();
    const radius = 1 / Math.sqrt(u / smallest ** 2 + (1 - u) / largest ** 2);
    const [cx, cy] = [random.uniform() * size, random.uniform() * size];
    const brightness = random.uniform() - 0.5;
    const colour = scene.map((middle) =>
      clamp(0.2 + 0.6 * middle + contrast * (0.7 * brightness + 0.4 * (random.uniform() - 0.5))),
    );
    const [slopeX, slopeY] = [0.3 * (random.uniform() - 0.5), 0.3 * (random.uniform() - 0.5)];
    for (let y = Math.max(0, Math.ceil(cy - radius)); y <= Math.min(size - 1, cy + radius); y++) {
      const half = Math.sqrt(Math.max(0, radius ** 2 - (y - cy) ** 2));
      for (let x = Math.max(0, Math.ceil(cx - half)); x <= Math.min(size - 1, cx + half); x++) {
        const shade = (slopeX * (x - cx) + slopeY * (y - cy)) / radius;
        for (let c = 0; c < 3; c++) rgb[c * plane + y * size + x] = colour[c]! + shade;
      }
    }
  }
}

/** Light that falls off to one side, grain, and the normalization. */
function finish(rgb: Float32Array, size: number, random: Random): void {
  const grain = new Float32Array(size * size);
  random.fillNormal(grain);
  const [exposure, tilt] = [0.7 + 0.6 * random.uniform(), 0.5 * (random.uniform() - 0.5)];
  const plane = size * size;
  for (let c = 0; c < 3; c++) {
    for (let p = 0; p < plane; p++) {
      const light = exposure * (1 + tilt * ((p % size) / size - 0.5));
      rgb[c * plane + p] = (clamp(rgb[c * plane + p]! * light + 0.015 * grain[p]!) - MEAN[c]!) / DEVIATION[c]!;
    }
  }
}

function clamp(x: number): number {
  return Math.min(Math.max(x, 0), 1);
}
