import { CoreError } from "../errors.ts";

/** What a dataset may be like. All of it is checked before anything is allocated or unpacked. */
export const LIMITS = {
  arrays: 256,
  rank: 16,
  /** Elements of one array: byte offsets stay exact numbers. */
  elements: 2 ** 48,
  nameLength: 512,
  npyHeaderBytes: 64 * 1024,
  safetensorsHeaderBytes: 1024 * 1024,
  /** Data that has to be unpacked or rearranged in memory, over all arrays; what is read in place has no limit. */
  memoryBytes: 2 ** 31,
  /** Decoded samples that a job keeps on disk: images, and the rows of tables. */
  scratchBytes: 2 ** 35,
  images: 2 ** 18,
  /** Of one image: compressed, and pixels before it is resized, a little more than the largest phone cameras make. */
  imageFileBytes: 64 * 1024 * 1024,
  imagePixels: 2 ** 26,
  /** Images that are decoded when the file arrives; of further ones the header is read, and damage is found by the job that comes to it. */
  verifiedImages: 8192,
  /** One line of a table; all of it is in memory at once. */
  lineBytes: 16 * 1024 * 1024,
  /** Columns of a table: all pixels of an image of 256 x 256 in colors. */
  columns: 2 ** 18,
  /** Samples, rows of tables too. Their numbers and orders are kept in memory. */
  samples: 2 ** 27,
  /** Distinct labels that are text. */
  classes: 65_536,
  /** A compressed archive may grow this many times, */
  inflationRatio: 100,
  /** unless it stays below this many bytes. */
  inflationFloorBytes: 64 * 1024 * 1024,
} as const;

/** Element count of a shape from a file; throws `invalid_dataset` for shapes that are not sizes, and `limit_exceeded`. */
export function checkDims(dims: readonly number[], name: string): number {
  if (dims.length > LIMITS.rank) {
    throw new CoreError(
      "limit_exceeded",
      `"${name}" has ${dims.length} axes; at most ${LIMITS.rank} are allowed.`,
      name,
    );
  }
  let count = 1;
  for (const dim of dims) {
    if (!Number.isSafeInteger(dim) || dim < 0) {
      throw new CoreError("invalid_dataset", `"${name}" has a dimension that is not a size.`, name);
    }
    count *= dim;
    if (count > LIMITS.elements) {
      throw new CoreError("limit_exceeded", `"${name}" has more than ${LIMITS.elements} elements.`, name);
    }
  }
  return count;
}

/** Throws `invalid_dataset` unless `name` can name an array. */
export function checkName(name: string): void {
  if (name === "" || name.length > LIMITS.nameLength || /\p{Cc}/u.test(name)) {
    const shown = name.slice(0, 40).replace(/\p{Cc}/gu, "?");
    throw new CoreError("invalid_dataset", `An array has a name that is not usable: "${shown}".`, shown);
  }
}
