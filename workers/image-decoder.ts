import type { ImageDecoder } from "../src/core/index.ts";
import { CoreError } from "../src/core/index.ts";

/** libvips' readers of the formats that datasets may hold. The others, SVG above all (a program that reads files), stay shut. */
const LOADERS = ["Jpeg", "Png", "Webp", "Nsgif", "Tiff", "Heif"].map((format) => `VipsForeignLoad${format}Buffer`);

let loaded: ReturnType<typeof load> | undefined;

/** Only when there are images: most work does without, and without the memory that the library takes. */
async function load() {
  const { default: sharp } = await import("sharp");
  sharp.block({ operation: ["VipsForeignLoad"] });
  sharp.unblock({ operation: LOADERS });
  // Images are decoded side by side, each by one thread, and none is asked for twice.
  sharp.concurrency(1);
  sharp.cache(false);
  return sharp;
}

async function open(file: Uint8Array, maxPixels: number) {
  loaded ??= load();
  const sharp = await loaded;
  // Profiles are ignored, as training does: a model has learned from pixels as they are stored.
  return sharp(file, { limitInputPixels: maxPixels, failOn: "error", ignoreIcc: true });
}

/** Decodes images with libvips. Of an animation it takes the first frame, of a file with pages the first page. */
export const imageDecoder: ImageDecoder = {
  async check(file, maxPixels) {
    const { width, height } = await (await open(file, maxPixels)).metadata();
    if (width * height > maxPixels) throw new CoreError("limit_exceeded", `it has ${width} × ${height} pixels`);
  },

  async decode(file, maxPixels) {
    const image = await open(file, maxPixels);
    const { data, info } = await image
      .autoOrient()
      .flatten({ background: "#ffffff" })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new CoreError("internal", `An image was decoded to ${info.channels} channels.`);
    return { height: info.height, width: info.width, data };
  },
};
