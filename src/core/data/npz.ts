import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32, createInflateRaw } from "node:zlib";
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader, type ZipFile } from "yauzl";
import { CoreError } from "../errors.ts";
import { type ByteSource, memorySource, sliceSource } from "./byte-source.ts";
import { checkName, LIMITS } from "./limits.ts";
import { readNpy } from "./npy.ts";
import type { StoredArray } from "./sample-array.ts";

const STORED = 0;
const DEFLATED = 8;
const SUFFIX = ".npy";
const READ_BYTES = 1024 * 1024;
/** "PK" and the number of a local file header, or of the end of an archive without members. */
const MAGICS = [0x04034b50, 0x06054b50];

/** Whether a file begins as a .npz, a zip archive of .npy files, does. */
export function isNpz(source: ByteSource): boolean {
  if (source.size < 4) return false;
  const bytes = source.read(0, 4);
  return MAGICS.includes(new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true));
}

/**
 * The arrays of a .npz file. The whole central directory is checked before the first byte is unpacked; what is unpacked is counted, because
 * headers lie. Stored members are read in place; deflated ones are unpacked into memory, within `LIMITS.memoryBytes`.
 * `verify` also checks the checksums of stored members, which reads them once. Throws `invalid_dataset` or `limit_exceeded`.
 */
export async function readNpz(source: ByteSource, verify: boolean): Promise<StoredArray[]> {
  try {
    const zip = await fromRandomAccessReaderPromise(new SourceReader(source), source.size, {
      autoClose: false,
      lazyEntries: true,
      strictFileNames: true,
    });
    const members = await readDirectory(zip);
    const arrays: StoredArray[] = [];
    for (const member of members) {
      const packed = sliceSource(source, member.start, member.entry.compressedSize);
      const data = member.entry.compressionMethod === STORED ? packed : await inflate(packed, member);
      if (data === packed && verify) checkSum(data, member);
      arrays.push(readNpy(data, member.name));
    }
    return arrays;
  } catch (error) {
    if (error instanceof CoreError) throw error;
    // yauzl and zlib: a directory that is not one, a truncated file, a corrupt stream.
    throw new CoreError("invalid_dataset", `The .npz archive cannot be read: ${(error as Error).message}.`, undefined, {
      cause: error,
    });
  }
}

interface Member {
  readonly name: string;
  readonly entry: Entry;
  /** Where its data begins in the file. */
  readonly start: number;
}

async function readDirectory(zip: ZipFile): Promise<Member[]> {
  if (zip.entryCount > LIMITS.arrays) {
    throw new CoreError(
      "limit_exceeded",
      `The .npz archive has ${zip.entryCount} members; at most ${LIMITS.arrays} are allowed.`,
    );
  }
  const members = new Map<string, Member>();
  let packedBytes = 0;
  let unpackedBytes = 0;
  for await (const entry of zip.eachEntry()) {
    const name = memberName(entry);
    const refuse = (why: string): never => {
      throw new CoreError("invalid_dataset", `The member "${name}" of the .npz archive ${why}.`, name);
    };
    if (members.has(name)) refuse("is there twice");
    if (entry.isEncrypted()) refuse("is encrypted");
    if (entry.compressionMethod !== STORED && entry.compressionMethod !== DEFLATED) {
      refuse(`is compressed by method ${entry.compressionMethod}; only stored and deflated members can be read`);
    }
    if (entry.compressionMethod === DEFLATED) {
      packedBytes += entry.compressedSize;
      unpackedBytes += entry.uncompressedSize;
    }
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
    members.set(name, { name, entry, start: fileDataStart });
  }
  if (unpackedBytes > LIMITS.inflationFloorBytes && unpackedBytes > packedBytes * LIMITS.inflationRatio) {
    throw new CoreError(
      "limit_exceeded",
      `The .npz archive would grow from ${packedBytes} to ${unpackedBytes} bytes; more than ${LIMITS.inflationRatio} times is not allowed.`,
    );
  }
  if (unpackedBytes > LIMITS.memoryBytes) {
    throw new CoreError(
      "limit_exceeded",
      `The compressed members of the .npz archive hold ${unpackedBytes} bytes; at most ${LIMITS.memoryBytes} can be unpacked. ` +
        "Save it with numpy.savez, which does not compress and has no such limit.",
    );
  }
  checkOverlaps([...members.values()]);
  return [...members.values()];
}

/** The array's name: the member's without `.npy`. Members in folders are refused, so nothing can point outside either. */
function memberName(entry: Entry): string {
  const name = entry.fileName.endsWith(SUFFIX) ? entry.fileName.slice(0, -SUFFIX.length) : "";
  const shown = entry.fileName.slice(0, 60).replace(/\p{Cc}/gu, "?");
  if (name === "" || /[/\\]/.test(name)) {
    throw new CoreError("invalid_dataset", `The .npz archive has a member that is not an array: "${shown}".`, shown);
  }
  checkName(name);
  return name;
}

/** Members whose bytes overlap are how a small archive unpacks to a huge one with honest-looking sizes. */
function checkOverlaps(members: readonly Member[]): void {
  const sorted = members.toSorted((a, b) => a.entry.relativeOffsetOfLocalHeader - b.entry.relativeOffsetOfLocalHeader);
  let end = 0;
  for (const { name, entry, start } of sorted) {
    if (entry.relativeOffsetOfLocalHeader < end) {
      throw new CoreError("invalid_dataset", `The member "${name}" of the .npz archive overlaps another one.`, name);
    }
    end = start + entry.compressedSize;
  }
}

async function inflate(packed: ByteSource, { name, entry }: Member): Promise<ByteSource> {
  const bytes = new Uint8Array(entry.uncompressedSize);
  let count = 0;
  await pipeline(Readable.from(chunksOf(packed)), createInflateRaw(), async (unpacked: AsyncIterable<Uint8Array>) => {
    for await (const chunk of unpacked) {
      if (count + chunk.byteLength > bytes.byteLength) {
        throw new CoreError("invalid_dataset", `The member "${name}" unpacks to more bytes than it declares.`, name);
      }
      bytes.set(chunk, count);
      count += chunk.byteLength;
    }
  });
  if (count < bytes.byteLength) {
    throw new CoreError("invalid_dataset", `The member "${name}" unpacks to fewer bytes than it declares.`, name);
  }
  const source = memorySource(bytes);
  checkSum(source, { name, entry });
  return source;
}

function checkSum(data: ByteSource, { name, entry }: Omit<Member, "start">): void {
  let sum = 0;
  for (const chunk of chunksOf(data)) sum = crc32(chunk, sum);
  if (sum !== entry.crc32) {
    throw new CoreError("invalid_dataset", `The member "${name}" of the .npz archive fails its checksum.`, name);
  }
}

function* chunksOf(source: ByteSource): Generator<Uint8Array> {
  for (let at = 0; at < source.size; at += READ_BYTES) yield source.read(at, Math.min(READ_BYTES, source.size - at));
}

/** yauzl's view of a byte source. */
class SourceReader extends RandomAccessReader {
  readonly #source: ByteSource;

  constructor(source: ByteSource) {
    super();
    this.#source = source;
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    const isInside = position >= 0 && position + length <= this.#source.size;
    if (isInside) buffer.set(this.#source.read(position, length), offset);
    callback(isInside ? null : new Error("unexpected end of file"));
  }
}
