import { CoreError, checkCancelled } from "../errors.ts";
import { tensorOf } from "../onnx/tensor.ts";
import { type ByteSource, memorySource, type ScratchBytes } from "./byte-source.ts";
import { frameImage, normalization, sampleShape } from "./image-frame.ts";
import { checkName, LIMITS } from "./limits.ts";
import type { Pixels } from "./resample.ts";
import type { Contents, StoredArray } from "./sample-array.ts";
import type { ImagesSpec } from "./spec.ts";
import { ZipArchive, type ZipMember } from "./zip.ts";

/**
 * Reads images; implemented over a native library by who calls this one. Both throw when the file is none of the formats known, has more
 * pixels than `maxPixels` or is damaged; the message says which.
 */
export interface ImageDecoder {
  /** All pixels: upright (EXIF orientation applied), the first frame, transparency over white, 8 bits, colors as stored. */
  decode(file: Uint8Array, maxPixels: number): Promise<Pixels>;
  /** Reads the file's header only. */
  check(file: Uint8Array, maxPixels: number): Promise<void>;
}

export interface ImageOptions {
  readonly decoder: ImageDecoder;
  readonly openScratch: () => ScratchBytes;
  /** Also look into every image: its checksum and its header, and decode it if it is one of the first `LIMITS.verifiedImages`. */
  readonly verify: boolean;
}

/** Images decoded at the same time: the decoder uses more than one core, and memory for each. */
const DECODES_AT_ONCE = 4;

const SUFFIXES = [".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif"];

/** What file managers leave in archives. */
const LITTER = new Set(["__MACOSX", "Thumbs.db", "desktop.ini"]);

/**
 * The images of a .zip file as samples. Folders are classes: their sorted names are `classes`, and an image's label is the number of the
 * folder that it is in. Images that are in no folder have no labels. A folder that holds everything (`photos/cat/1.jpg`, `photos/dog/2.jpg`)
 * says nothing and is passed over.
 *
 * Samples are sorted by path, with the classes taking turns: the first of each, the second of each, and so on. So the first thousand
 * samples, which is what many jobs look at, are of all classes.
 *
 * Nothing is decoded here, unless to verify. `prepare` decodes the samples it is told, once, into scratch room of 8 bits for each value.
 */
export async function readImages(source: ByteSource, spec: ImagesSpec, options: ImageOptions): Promise<Contents> {
  const what = "the .zip archive";
  const archive = await ZipArchive.open(source, { what, maxMembers: LIMITS.images, nameOf: imagePath });
  const { samples, classes } = sortIntoClasses(archive.members);
  const shape = sampleShape(spec);
  const sampleBytes = shape.reduce((product, dim) => product * dim, 1);
  const allBytes = samples.length * sampleBytes;
  if (allBytes > LIMITS.scratchBytes) {
    throw new CoreError(
      "limit_exceeded",
      `${samples.length} images of [${shape}] are ${allBytes} bytes; at most ${LIMITS.scratchBytes} are allowed.`,
    );
  }
  const files = new ImageFiles(archive, options.decoder);
  if (options.verify) await verifyImages(samples, files);
  const { pixels, prepare } = decodedOnce(samples, files, spec, sampleBytes, options.openScratch);
  const images: StoredArray = {
    name: spec.input,
    dtype: spec.dtype,
    dims: [samples.length, ...shape],
    source: pixels,
    encoding: spec.dtype === "float32" ? normalization(spec) : undefined,
  };
  return { arrays: [images], labels: classes && labelsOf(samples, classes), classes, prepare };
}

/** An image in the archive and the folder that says its class; undefined without labels. */
interface ImageSample {
  readonly member: ZipMember;
  readonly className: string | undefined;
}

/** The path of a member that is an image; undefined for folders and litter. */
function imagePath(path: string): string | undefined {
  const segments = path.split("/");
  const file = segments.at(-1)!;
  if (file === "" || segments.some((segment) => segment.startsWith(".") || LITTER.has(segment))) return undefined;
  if (/\p{C}/u.test(path) || path.length > LIMITS.nameLength) {
    const shown = path.slice(0, 80).replace(/\p{C}/gu, "?");
    throw new CoreError("invalid_dataset", `The .zip archive has a path that is not usable: "${shown}".`, shown);
  }
  if (!SUFFIXES.some((suffix) => file.toLowerCase().endsWith(suffix))) {
    throw new CoreError(
      "invalid_dataset",
      `"${path}" is not an image that can be read; leave it out, or make it one of ${SUFFIXES.join(", ")}.`,
      path,
    );
  }
  return path;
}

function sortIntoClasses(members: readonly ZipMember[]): {
  readonly samples: readonly ImageSample[];
  readonly classes: readonly string[] | undefined;
} {
  if (members.length === 0) throw new CoreError("invalid_dataset", "The .zip archive has no images.");
  const sorted = members.map((member) => ({ member, folders: member.name.split("/").slice(0, -1) }));
  sorted.sort((a, b) => compare(a.member.name, b.member.name));
  const depth = commonDepth(sorted.map(({ folders }) => folders));
  const depths = new Set(sorted.map(({ folders }) => folders.length - depth));
  if (depths.size > 1 || !(depths.has(0) || depths.has(1))) {
    const odd = sorted.find(({ folders }) => folders.length - depth !== 1)!.member.name;
    throw new CoreError(
      "invalid_dataset",
      `"${odd}" is not in the folder of a class as other images are: have one folder for each class with its images in it, or no folders at all.`,
      odd,
    );
  }
  if (depths.has(0))
    return { samples: sorted.map(({ member }) => ({ member, className: undefined })), classes: undefined };
  const byClass = Map.groupBy(sorted, ({ folders }) => folders[depth]!);
  const classes = [...byClass.keys()].sort(compare);
  for (const name of classes) checkName(name);
  const turns = [...byClass.values()].reduce((most, { length }) => Math.max(most, length), 0);
  const samples: ImageSample[] = [];
  for (let turn = 0; turn < turns; turn++) {
    for (const className of classes) {
      const image = byClass.get(className)![turn];
      if (image) samples.push({ member: image.member, className });
    }
  }
  return { samples, classes };
}

/** How many folders all paths begin with. */
function commonDepth(paths: readonly (readonly string[])[]): number {
  const first = paths[0]!;
  let depth = 0;
  while (depth < first.length && paths.every((folders) => folders[depth] === first[depth])) depth++;
  return depth;
}

/** By code units: the same everywhere, whatever the language of the machine. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function labelsOf(samples: readonly ImageSample[], classes: readonly string[]): Omit<StoredArray, "name"> {
  const numbers = new Map(classes.map((name, i) => [name, BigInt(i)]));
  const labels = BigInt64Array.from(samples, ({ className }) => numbers.get(className!)!);
  const { dtype, dims, bytes } = tensorOf("int64", [samples.length], labels);
  return { dtype, dims, source: memorySource(bytes) };
}

/** The images of an archive, with errors that say which one. */
class ImageFiles {
  readonly #archive: ZipArchive;
  readonly #decoder: ImageDecoder;

  constructor(archive: ZipArchive, decoder: ImageDecoder) {
    this.#archive = archive;
    this.#decoder = decoder;
  }

  async decode(member: ZipMember, verify: boolean): Promise<Pixels> {
    return this.#use(member, verify, (file) => this.#decoder.decode(file, LIMITS.imagePixels));
  }

  async check(member: ZipMember): Promise<void> {
    return this.#use(member, true, (file) => this.#decoder.check(file, LIMITS.imagePixels));
  }

  async #use<T>(member: ZipMember, verify: boolean, work: (file: Uint8Array) => Promise<T>): Promise<T> {
    const { name, bytes } = member;
    if (bytes > LIMITS.imageFileBytes) {
      throw new CoreError(
        "limit_exceeded",
        `"${name}" has ${bytes} bytes; an image may have at most ${LIMITS.imageFileBytes}.`,
        name,
      );
    }
    const file = await this.#archive.read(member, verify);
    try {
      return await work(file.read(0, file.size));
    } catch (error) {
      const reason = (error as Error).message.trim().split("\n")[0]!.replace(/\p{C}/gu, "?").slice(0, 200);
      throw new CoreError("invalid_dataset", `"${name}" cannot be decoded: ${reason.replace(/\.$/, "")}.`, name, {
        cause: error,
      });
    }
  }
}

async function verifyImages(samples: readonly ImageSample[], files: ImageFiles): Promise<void> {
  await eachOf(samples, async ({ member }, i) => {
    await (i < LIMITS.verifiedImages ? files.decode(member, true) : files.check(member));
  });
}

/** Scratch room for the pixels of all samples, and what fills it. */
function decodedOnce(
  samples: readonly ImageSample[],
  files: ImageFiles,
  spec: ImagesSpec,
  sampleBytes: number,
  openScratch: () => ScratchBytes,
): { readonly pixels: ByteSource; readonly prepare: NonNullable<Contents["prepare"]> } {
  const isDecoded = new Uint8Array(samples.length);
  let scratch: ScratchBytes | undefined;
  return {
    pixels: {
      size: samples.length * sampleBytes,
      read(offset, length) {
        for (let i = offset / sampleBytes; i < (offset + length) / sampleBytes; i++) {
          if (!isDecoded[i]) throw new CoreError("internal", `Sample ${i} was not prepared.`);
        }
        return scratch!.read(offset, length);
      },
    },
    async prepare(indices, signal) {
      const missing = [...new Set(Array.from(indices))].filter((i) => !isDecoded[i]);
      if (missing.length === 0) return;
      scratch ??= openScratch();
      // A few pixels in the file may be many in a sample.
      scratch.reserve(missing.length * sampleBytes);
      await eachOf(missing, async (i) => {
        checkCancelled(signal);
        const image = await files.decode(samples[i]!.member, false);
        scratch!.write(i * sampleBytes, frameImage(image, spec));
        isDecoded[i] = 1;
      });
    },
  };
}

/** Runs `work` on every item, a few at a time; rejects with the first error, in the order of the items. */
async function eachOf<T>(items: readonly T[], work: (item: T, index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const failures = new Map<number, unknown>();
  const run = async () => {
    while (next < items.length && failures.size === 0) {
      const index = next++;
      try {
        await work(items[index]!, index);
      } catch (error) {
        failures.set(index, error);
      }
    }
  };
  await Promise.all(Array.from({ length: DECODES_AT_ONCE }, run));
  if (failures.size > 0) throw failures.get(Math.min(...failures.keys()));
}
