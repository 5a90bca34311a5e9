/** Names bytes by what they are: the same bytes are stored once. */
export interface BlobRef {
  readonly sha256: string;
  readonly size_bytes: number;
}

export interface PutOptions {
  readonly maxBytes: number;
  readonly signal?: AbortSignal;
  /**
   * Called when all bytes have arrived and their name is known, before they become visible under it. Whoever will need
   * the blob claims it here (`BlobClaims`): a claim made later could come after a delete that saw none.
   */
  readonly claim?: (ref: BlobRef) => Promise<void>;
  /**
   * Called when all bytes are here and claimed, while they are being stored: who only wants to read them need not wait for that. A blob counts as
   * stored when `put` has resolved, and not before.
   */
  readonly arrived?: (arrival: Arrival) => void;
}

/** Bytes that are being stored. */
export interface Arrival {
  readonly ref: BlobRef;
  /** As `materialize`, from now on; when `put` has failed it rejects. */
  copyTo(path: string): Promise<void>;
}

/**
 * Content-addressed bytes. An implementation passes `test/contract/blob-store.ts`.
 * Who still needs a blob is not known here: `BlobClaims` counts and calls `delete` when the last claim is gone.
 */
export interface BlobStore {
  /**
   * Stores a stream while hashing it. Throws `ServiceError("too_large")` as soon as `maxBytes` is passed; whatever the
   * reason of a failure (limit, aborted signal, broken stream, full disk, refused claim), nothing of it stays behind.
   */
  put(bytes: AsyncIterable<Uint8Array>, options: PutOptions): Promise<BlobRef>;
  /** Streams `[start, end)` of a blob; the whole of it by default. Throws `ServiceError("not_found")`. */
  get(ref: BlobRef, range?: { start: number; end: number }): Promise<AsyncIterable<Uint8Array>>;
  /** Copies the blob to `path`: what is done to that file never reaches the store. */
  materialize(ref: BlobRef, path: string): Promise<void>;
  /** Forgets the bytes; no error when they are gone already. */
  delete(ref: BlobRef): Promise<void>;
  /** Resolves when bytes can be written and read back; rejects with the reason. */
  check(): Promise<void>;
}
