/**
 * Random changes of images [N, C, H, W], a different one for each sample and epoch, drawn from (seed, epoch, sample): the same run gives the
 * same images, in whatever batches, and after a resume.
 */
import { CoreError } from "../errors.ts";
import { type Tensor, tensorOf } from "../onnx/tensor.ts";
import { Random } from "../random.ts";

export interface AugmentationSpec {
  /** Mirrored left to right with probability ½. */
  readonly flip: boolean;
  /** Moved by up to this many pixels in each direction; what comes in is `fill`. */
  readonly shiftPixels: number;
  /** A square of this side, somewhere, is set to `fill` (DeVries and Taylor 2017); 0 for none. */
  readonly cutoutPixels: number;
  /** What black is after normalisation. */
  readonly fill: number;
}

/** Throws `invalid_params` unless the input holds float32 images. */
export function checkAugmentable(name: string, images: Tensor): void {
  if (images.dtype !== "float32" || images.dims.length !== 4) {
    throw new CoreError(
      "invalid_params",
      `Augmentation needs float32 images [N, C, H, W]; "${name}" is ${images.dtype} [${images.dims.join(", ")}].`,
      name,
    );
  }
}

/** `samples` are the positions of the batch's images in the dataset; of another `stream` the same ones are changed otherwise. */
export function augmentImages(
  images: Tensor,
  spec: AugmentationSpec,
  draw: {
    readonly seed: number;
    readonly epoch: number;
    readonly samples: ArrayLike<number>;
    readonly stream?: string;
  },
): Tensor {
  const [n, channels, height, width] = images.dims as [number, number, number, number];
  const source = new Float32Array(images.bytes.buffer as ArrayBuffer, images.bytes.byteOffset, images.byteLength / 4);
  const result = new Float32Array(source.length);
  const random = new Random(draw.seed, `augmentation${draw.stream ?? ""}`);
  for (let i = 0; i < n; i++) {
    // Eight words for each sample and epoch.
    random.position = 8 * (draw.epoch * 2 ** 32 + draw.samples[i]!);
    const change = {
      flip: spec.flip && random.integer(2) === 1,
      down: random.integer(2 * spec.shiftPixels + 1) - spec.shiftPixels,
      right: random.integer(2 * spec.shiftPixels + 1) - spec.shiftPixels,
    };
    for (let c = 0; c < channels; c++) {
      const at = (i * channels + c) * height * width;
      moveImage(source, result, at, height, width, change, spec.fill);
    }
    if (spec.cutoutPixels > 0) {
      const top = random.integer(height) - (spec.cutoutPixels >> 1);
      const left = random.integer(width) - (spec.cutoutPixels >> 1);
      for (let c = 0; c < channels; c++) {
        const at = (i * channels + c) * height * width;
        for (let y = Math.max(0, top); y < Math.min(height, top + spec.cutoutPixels); y++) {
          const row = at + y * width;
          result.fill(spec.fill, row + Math.max(0, left), row + Math.min(width, left + spec.cutoutPixels));
        }
      }
    }
  }
  return tensorOf("float32", images.dims, result);
}

function moveImage(
  source: Float32Array,
  result: Float32Array,
  at: number,
  height: number,
  width: number,
  change: { readonly flip: boolean; readonly down: number; readonly right: number },
  fill: number,
): void {
  for (let y = 0; y < height; y++) {
    const row = at + y * width;
    const from = y - change.down;
    if (from < 0 || from >= height) {
      result.fill(fill, row, row + width);
      continue;
    }
    const sourceRow = at + from * width;
    for (let x = 0; x < width; x++) {
      const column = x - change.right;
      const inside = column >= 0 && column < width;
      result[row + x] = inside ? source[sourceRow + (change.flip ? width - 1 - column : column)]! : fill;
    }
  }
}
