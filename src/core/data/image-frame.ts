import { type Pixels, type Region, resample, type Size } from "./resample.ts";
import type { Encoding } from "./sample-array.ts";
import type { ImagesSpec } from "./spec.ts";

/** From the pixels of an image to those of a sample, and on to the numbers that a model takes. */

export type Framing = Pick<ImagesSpec, "size" | "layout" | "color" | "resize" | "shorter_side" | "pad_value">;

function channelsOf({ color }: Pick<ImagesSpec, "color">): 1 | 3 {
  return color === "gray" ? 1 : 3;
}

/** The shape of one sample. */
export function sampleShape({ size: [height, width], layout, color }: Framing): readonly number[] {
  const channels = channelsOf({ color });
  return layout === "NCHW" ? [channels, height, width] : [height, width, channels];
}

/** An image as a sample: resized, cropped or padded, its channels in the order and layout asked for, 8 bits each. */
export function frameImage(image: Pixels, framing: Framing): Uint8Array {
  const [height, width] = framing.size;
  const { scaled, top, left } = place(image, { height, width }, framing);
  // What of the frame the scaled image covers: all of it unless it is padded.
  const covered: Region = {
    top: Math.max(0, top),
    left: Math.max(0, left),
    height: Math.min(height, scaled.height),
    width: Math.min(width, scaled.width),
  };
  const pixels = resample(image, scaled, covered);
  const sample = new Uint8Array(height * width * channelsOf(framing)).fill(framing.pad_value ?? 0);
  putPixels(sample, pixels, { height, width, top: Math.max(0, -top), left: Math.max(0, -left) }, framing);
  return sample;
}

/** The size an image is scaled to, and where in that the frame begins; before the image where that is negative. */
interface Placement {
  readonly scaled: Size;
  readonly top: number;
  readonly left: number;
}

function place(image: Size, frame: Size, { resize, shorter_side }: Framing): Placement {
  if (resize === "stretch") return { scaled: frame, top: 0, left: 0 };
  const scaled = resize === "crop" ? coverSize(image, frame, shorter_side) : fitSize(image, frame);
  return { scaled, top: middle(scaled.height - frame.height), left: middle(scaled.width - frame.width) };
}

/**
 * The smallest size that covers the frame, or the one with the given shorter side. The other side is rounded down, as torchvision's
 * `Resize` does.
 */
function coverSize(image: Size, frame: Size, shorterSide: number | undefined): Size {
  const isTall =
    shorterSide === undefined ? image.height * frame.width >= image.width * frame.height : image.height >= image.width;
  const scale = (side: number, to: number, by: number) => Math.max(1, Math.floor((side * to) / by));
  if (isTall) {
    const width = shorterSide ?? frame.width;
    return { height: Math.max(frame.height, scale(image.height, width, image.width)), width };
  }
  const height = shorterSide ?? frame.height;
  return { height, width: Math.max(frame.width, scale(image.width, height, image.height)) };
}

/** The largest size that fits into the frame. */
function fitSize(image: Size, frame: Size): Size {
  const scale = Math.min(frame.height / image.height, frame.width / image.width);
  const side = (length: number, limit: number) => Math.min(limit, Math.max(1, Math.round(length * scale)));
  return { height: side(image.height, frame.height), width: side(image.width, frame.width) };
}

/** Half of what is left over; a half goes to the even side, as in torchvision's `CenterCrop`. */
function middle(rest: number): number {
  return rest % 2 === 0 ? rest / 2 : 2 * Math.round(rest / 4);
}

/** Where the channels of each color come from in red, green, blue. */
const ORDER = { rgb: [0, 1, 2], bgr: [2, 1, 0] } as const;

function putPixels(sample: Uint8Array, pixels: Pixels, at: Region, { layout, color }: Framing): void {
  const channels = channelsOf({ color });
  // From one channel, and from one pixel, to the next.
  const [plane, step] = layout === "NCHW" ? [at.height * at.width, 1] : [1, channels];
  const { data } = pixels;
  let from = 0;
  for (let row = 0; row < pixels.height; row++) {
    let to = ((at.top + row) * at.width + at.left) * step;
    for (let column = 0; column < pixels.width; column++, from += 3, to += step) {
      if (color === "gray") {
        sample[to] = luma(data[from]!, data[from + 1]!, data[from + 2]!);
        continue;
      }
      const [first, second, third] = ORDER[color];
      sample[to] = data[from + first]!;
      sample[to + plane] = data[from + second]!;
      sample[to + 2 * plane] = data[from + third]!;
    }
  }
}

/** ITU-R BT.601 in 16-bit integers, as Pillow's mode `L` has it; gray stays what it is. */
function luma(red: number, green: number, blue: number): number {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

/**
 * How pixels become (pixel · scale − mean) / std, computed in float64 and rounded once. There are 256 values for each channel.
 */
export function normalization(spec: Framing & Pick<ImagesSpec, "scale" | "mean" | "std">): Encoding {
  const { scale = 1 / 255, mean, std, layout, size } = spec;
  const channels = channelsOf(spec);
  const values = Array.from({ length: channels }, (_, channel) =>
    Float32Array.from({ length: 256 }, (_, pixel) => (pixel * scale - (mean?.[channel] ?? 0)) / (std?.[channel] ?? 1)),
  );
  const run = layout === "NCHW" ? size[0] * size[1] : 1;
  return {
    bytesPerElement: 1,
    decode(pixels) {
      const floats = new Float32Array(pixels.length);
      for (let start = 0, channel = 0; start < pixels.length; start += run, channel = (channel + 1) % channels) {
        const table = values[channel]!;
        for (let i = start; i < start + run; i++) floats[i] = table[pixels[i]!]!;
      }
      return new Uint8Array(floats.buffer);
    },
  };
}
