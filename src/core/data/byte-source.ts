import { CoreError } from "../errors.ts";

/** Random access to the bytes of a file. The library opens no files: who calls it implements this over one. */
export interface ByteSource {
  readonly size: number;
  /** Exactly `length` bytes from `offset`; the caller has made sure that they are there, and does not write to them. */
  read(offset: number, length: number): Uint8Array;
}

/** Room for samples that are decoded once and read often. It grows as it is written; what was never written may hold anything. */
export interface ScratchBytes extends ByteSource {
  write(offset: number, bytes: Uint8Array): void;
  /** Throws when there is no room for `bytes` more: `limit_exceeded` where there never can be. */
  reserve(bytes: number): void;
}

/** Bytes that are in memory already; what is read are views. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return { size: bytes.byteLength, read: (offset, length) => bytes.subarray(offset, offset + length) };
}

/** The range [start, start + size) of another source. */
export function sliceSource(source: ByteSource, start: number, size: number): ByteSource {
  return { size, read: (offset, length) => source.read(start + offset, length) };
}

/** Files are read and written in pieces of this size. */
export const CHUNK_BYTES = 1024 * 1024;

/** The bytes of a source, piece by piece. */
export function* chunksOf(source: ByteSource): Generator<Uint8Array> {
  for (let at = 0; at < source.size; at += CHUNK_BYTES) yield source.read(at, Math.min(CHUNK_BYTES, source.size - at));
}

/** Scratch room in memory, where there are no files. Throws `limit_exceeded` when it would grow past `maxBytes`. */
export function memoryScratch(maxBytes: number): ScratchBytes {
  let bytes = new Uint8Array(0);
  let size = 0;
  const refuse = () => {
    throw new CoreError("limit_exceeded", `The decoded samples take more than ${maxBytes} bytes of memory.`);
  };
  return {
    reserve(more) {
      if (size + more > maxBytes) refuse();
    },
    get size() {
      return size;
    },
    read: (offset, length) => bytes.subarray(offset, offset + length),
    write(offset, written) {
      const end = offset + written.byteLength;
      if (end > maxBytes) refuse();
      if (end > bytes.byteLength) {
        const larger = new Uint8Array(Math.min(maxBytes, Math.max(end, 2 * bytes.byteLength)));
        larger.set(bytes);
        bytes = larger;
      }
      bytes.set(written, offset);
      size = Math.max(size, end);
    },
  };
}
