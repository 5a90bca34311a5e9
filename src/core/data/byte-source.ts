/** Random access to the bytes of a file. The library opens no files: who calls it implements this over one. */
export interface ByteSource {
  readonly size: number;
  /** Exactly `length` bytes from `offset`; the caller has made sure that they are there, and does not write to them. */
  read(offset: number, length: number): Uint8Array;
}

/** Bytes that are in memory already; what is read are views. */
export function memorySource(bytes: Uint8Array): ByteSource {
  return { size: bytes.byteLength, read: (offset, length) => bytes.subarray(offset, offset + length) };
}

/** The range [start, start + size) of another source. */
export function sliceSource(source: ByteSource, start: number, size: number): ByteSource {
  return { size, read: (offset, length) => source.read(start + offset, length) };
}
