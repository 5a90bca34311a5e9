import type { BlobRef, BlobStore } from "../blobs/blob-store.ts";
import type { CatalogFile } from "../catalog.ts";
import { sha256Of } from "../identity.ts";
import type { Download } from "./download.ts";

/**
 * A tar archive of blobs that is never built: its headers are computed, so its length is known and any byte range can
 * be read from the blobs themselves. A broken download of a model of many gigabytes can go on where it stopped.
 *
 * Format: GNU tar. Each file is a 512-byte header, the bytes, and zeros up to a multiple of 512; two blocks of zeros
 * end the archive.
 */

const BLOCK = 512;
/** The name field; a longer name goes into an entry of its own before the file. */
const NAME_BYTES = 100;
/** The size field has 11 octal digits; larger sizes are written in base 256. */
const MAX_OCTAL_SIZE = 8 ** 11;

type Segment = Uint8Array | BlobRef;

export function tarDownload(blobs: BlobStore, files: readonly CatalogFile[], filename: string): Download {
  const segments: Segment[] = [...files.flatMap(entryOf), new Uint8Array(2 * BLOCK)];
  return {
    size_bytes: segments.reduce((sum, segment) => sum + lengthOf(segment), 0),
    tag: sha256Of(files.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join("")),
    sha256: undefined,
    mediaType: "application/octet-stream",
    filename,
    read: async (range) => readSegments(blobs, segments, range),
  };
}

async function* readSegments(
  blobs: BlobStore,
  segments: readonly Segment[],
  range: { start: number; end: number },
): AsyncGenerator<Uint8Array> {
  let offset = 0;
  for (const segment of segments) {
    const length = lengthOf(segment);
    const start = Math.max(0, range.start - offset);
    const end = Math.min(length, range.end - offset);
    offset += length;
    if (start >= end) continue;
    if (segment instanceof Uint8Array) yield segment.subarray(start, end);
    else yield* await blobs.get(segment, { start, end });
  }
}

function lengthOf(segment: Segment): number {
  return segment instanceof Uint8Array ? segment.byteLength : segment.size_bytes;
}

function entryOf(file: CatalogFile): Segment[] {
  const name = Buffer.from(file.name);
  const longName = name.length > NAME_BYTES ? [headerOf("././@LongLink", name.length, "L"), padded(name)] : [];
  const padding = new Uint8Array((BLOCK - (file.size_bytes % BLOCK)) % BLOCK);
  return [...longName, headerOf(name, file.size_bytes, "0"), file, padding];
}

function padded(bytes: Uint8Array): Uint8Array {
  const blocks = new Uint8Array(Math.ceil(bytes.length / BLOCK) * BLOCK);
  blocks.set(bytes);
  return blocks;
}

/** Owner, group and time are zero: the same files give the same archive. */
function headerOf(name: string | Uint8Array, size: number, type: "0" | "L"): Uint8Array {
  const header = Buffer.alloc(BLOCK);
  Buffer.from(name).copy(header, 0, 0, NAME_BYTES);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  if (size < MAX_OCTAL_SIZE) header.write(`${size.toString(8).padStart(11, "0")} `, 124);
  else {
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(size), 128);
  }
  header.write("00000000000 ", 136);
  header.write("        ", 148); // The checksum counts its own field as spaces.
  header.write(type, 156);
  header.write("ustar  \0", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}
