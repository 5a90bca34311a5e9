import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { crc32, createInflateRaw, inflateRaw } from "node:zlib";
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader, type ZipFile } from "yauzl";
import { CoreError } from "../errors.ts";
import { type ByteSource, CHUNK_BYTES, chunksOf, memorySource, sliceSource } from "./byte-source.ts";
import { LIMITS } from "./limits.ts";

const STORED = 0;
const DEFLATED = 8;
/** "PK" and the number of a local file header, or of the end of an archive without members. */
const MAGICS = [0x04034b50, 0x06054b50];

/** A file in an archive, not unpacked yet. */
export interface ZipMember {
  /** What the reader calls it. */
  readonly name: string;
  readonly deflated: boolean;
  readonly bytes: number;
  readonly packedBytes: number;
  readonly crc32: number;
  /** Where in the archive its local header and its data begin. */
  readonly headerStart: number;
  readonly start: number;
}

export interface ZipOptions {
  /** What the archive is, for messages. */
  readonly what: string;
  readonly maxMembers: number;
  /** What to call the member with this path; undefined when it is to be passed over. Throws for one that must not be there. */
  nameOf(path: string): string | undefined;
}

/** Whether a file begins as a zip archive does. */
export function isZip(source: ByteSource): boolean {
  if (source.size < 4) return false;
  const bytes = source.read(0, 4);
  return MAGICS.includes(new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true));
}

/**
 * A zip archive (.zip, .npz). Its whole directory is checked when it is opened, before the first byte is unpacked: paths that are absolute
 * or lead upwards, members that overlap, are there twice, are encrypted or would grow too much. What is unpacked is counted, because headers lie.
 */
export class ZipArchive {
  readonly members: readonly ZipMember[];
  readonly #source: ByteSource;
  readonly #what: string;

  private constructor(source: ByteSource, what: string, members: readonly ZipMember[]) {
    this.members = members;
    this.#source = source;
    this.#what = what;
  }

  /** Throws `invalid_dataset` or `limit_exceeded`. */
  static async open(source: ByteSource, options: ZipOptions): Promise<ZipArchive> {
    const { what } = options;
    try {
      const zip = await fromRandomAccessReaderPromise(new SourceReader(source), source.size, {
        autoClose: false,
        lazyEntries: true,
        strictFileNames: true,
      });
      const members = await readDirectory(zip, options);
      checkGrowth(members, what);
      checkOverlaps(members, what);
      return new ZipArchive(source, what, members);
    } catch (error) {
      throw unreadable(what, error);
    }
  }

  /** A member's bytes: in place when it is stored, in memory when it is deflated. `verify` checks the checksum of stored members too. */
  async read(member: ZipMember, verify: boolean): Promise<ByteSource> {
    const packed = sliceSource(this.#source, member.start, member.packedBytes);
    try {
      if (!member.deflated) {
        if (verify) this.#checkSum(packed, member);
        return packed;
      }
      const isSmall = Math.max(member.bytes, member.packedBytes) <= CHUNK_BYTES;
      const data = memorySource(await (isSmall ? inflateSmall : inflateLarge)(packed, member));
      this.#checkSum(data, member);
      return data;
    } catch (error) {
      throw unreadable(this.#what, error);
    }
  }

  #checkSum(data: ByteSource, { name, crc32: expected }: ZipMember): void {
    let sum = 0;
    for (const chunk of chunksOf(data)) sum = crc32(chunk, sum);
    if (sum !== expected) {
      throw new CoreError("invalid_dataset", `The member "${name}" of ${this.#what} fails its checksum.`, name);
    }
  }
}

/** yauzl and zlib: a directory that is not one, a path that escapes, a truncated file, a corrupt stream. */
function unreadable(what: string, error: unknown): CoreError {
  if (error instanceof CoreError) return error;
  const reason = (error as Error).message.replace(/\p{Cc}/gu, "?");
  const sentence = `${what[0]!.toUpperCase()}${what.slice(1)} cannot be read: ${reason}.`;
  return new CoreError("invalid_dataset", sentence, undefined, { cause: error });
}

async function readDirectory(zip: ZipFile, { what, maxMembers, nameOf }: ZipOptions): Promise<ZipMember[]> {
  if (zip.entryCount > maxMembers) {
    throw new CoreError(
      "limit_exceeded",
      `There are ${zip.entryCount} members in ${what}; at most ${maxMembers} are allowed.`,
    );
  }
  const members = new Map<string, ZipMember>();
  for await (const entry of zip.eachEntry()) {
    const name = nameOf(entry.fileName);
    if (name === undefined) continue;
    const why = refusal(entry, members.has(name));
    if (why) throw new CoreError("invalid_dataset", `The member "${name}" of ${what} ${why}.`, name);
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true });
    members.set(name, {
      name,
      deflated: entry.compressionMethod === DEFLATED,
      bytes: entry.uncompressedSize,
      packedBytes: entry.compressedSize,
      crc32: entry.crc32,
      headerStart: entry.relativeOffsetOfLocalHeader,
      start: fileDataStart,
    });
  }
  return [...members.values()];
}

function refusal(entry: Entry, isTwice: boolean): string | undefined {
  const { compressionMethod: method } = entry;
  if (isTwice) return "is there twice";
  if (entry.isEncrypted()) return "is encrypted";
  if (method !== STORED && method !== DEFLATED) {
    return `is compressed by method ${method}; only stored and deflated members can be read`;
  }
  return undefined;
}

function checkGrowth(members: readonly ZipMember[], what: string): void {
  const deflated = members.filter((member) => member.deflated);
  const packedBytes = deflated.reduce((sum, member) => sum + member.packedBytes, 0);
  const bytes = deflated.reduce((sum, member) => sum + member.bytes, 0);
  if (bytes > LIMITS.inflationFloorBytes && bytes > packedBytes * LIMITS.inflationRatio) {
    throw new CoreError(
      "limit_exceeded",
      `Unpacking ${what} would grow it from ${packedBytes} to ${bytes} bytes; more than ${LIMITS.inflationRatio} times is not allowed.`,
    );
  }
}

/** Members whose bytes overlap are how a small archive unpacks to a huge one with honest-looking sizes. */
function checkOverlaps(members: readonly ZipMember[], what: string): void {
  let end = 0;
  for (const { name, headerStart, start, packedBytes } of members.toSorted((a, b) => a.headerStart - b.headerStart)) {
    if (headerStart < end) {
      throw new CoreError("invalid_dataset", `The member "${name}" of ${what} overlaps another one.`, name);
    }
    end = start + packedBytes;
  }
}

/** At once, off this thread: for members of which there are many. */
async function inflateSmall(packed: ByteSource, { name, bytes }: ZipMember): Promise<Uint8Array> {
  const unpacked = await new Promise<Uint8Array>((resolve, reject) => {
    // One more than declared, so that a member that lies can be told from one that does not.
    inflateRaw(packed.read(0, packed.size), { maxOutputLength: bytes + 1 }, (error, result) => {
      if (error === null) resolve(result);
      else reject((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE" ? wrongSize(name, "more") : error);
    });
  });
  if (unpacked.byteLength !== bytes) throw wrongSize(name, unpacked.byteLength > bytes ? "more" : "fewer");
  return unpacked;
}

/** Piece by piece into one allocation of the declared size. */
async function inflateLarge(packed: ByteSource, { name, bytes }: ZipMember): Promise<Uint8Array> {
  const unpacked = new Uint8Array(bytes);
  let count = 0;
  await pipeline(Readable.from(chunksOf(packed)), createInflateRaw(), async (chunks: AsyncIterable<Uint8Array>) => {
    for await (const chunk of chunks) {
      if (count + chunk.byteLength > bytes) throw wrongSize(name, "more");
      unpacked.set(chunk, count);
      count += chunk.byteLength;
    }
  });
  if (count < bytes) throw wrongSize(name, "fewer");
  return unpacked;
}

function wrongSize(name: string, how: "more" | "fewer"): CoreError {
  return new CoreError("invalid_dataset", `The member "${name}" unpacks to ${how} bytes than it declares.`, name);
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
