import type { BlobRef, BlobStore } from "./blob-store.ts";
import type { BlobClaims } from "./claims.ts";

/**
 * Texts of which the long ones are kept in the blob store, so that what a record takes of Redis has a bound. What stands for a long text
 * is where it is; JSON never begins like that.
 */
export interface LongTexts {
  /** What to keep in place of a JSON text: the text itself, or where it is. A long one is claimed by `owner`. */
  keep(owner: string, text: string): Promise<string>;
  /** The text that `keep` has answered for. */
  read(kept: string): Promise<string>;
  /** Says that what was kept for `owner` is written in its record: from now on only `release` ends it. */
  settle(owner: string): Promise<void>;
  release(owner: string): Promise<void>;
}

/** Longer texts are kept as blobs. */
export const INLINE_BYTES = 16 * 1024;

const MARK = "@";

export function createLongTexts(blobs: BlobStore, claims: BlobClaims): LongTexts {
  return {
    async keep(owner, text) {
      const bytes = Buffer.from(text);
      if (bytes.byteLength <= INLINE_BYTES) return text;
      const whole = (async function* () {
        yield bytes;
      })();
      const { sha256, size_bytes } = await blobs.put(whole, {
        maxBytes: bytes.byteLength,
        claim: (ref) => claims.claim(owner, ref),
      });
      return `${MARK}${sha256} ${size_bytes}`;
    },
    async read(kept) {
      if (!kept.startsWith(MARK)) return kept;
      const [sha256 = "", size] = kept.slice(MARK.length).split(" ");
      const ref: BlobRef = { sha256, size_bytes: Number(size) };
      const chunks: Uint8Array[] = [];
      for await (const chunk of await blobs.get(ref)) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    },
    settle: (owner) => claims.settle(owner),
    release: (owner) => claims.release(owner),
  };
}

/** Whether `kept` stands for a text that is somewhere else. */
export function isKeptApart(kept: string): boolean {
  return kept.startsWith(MARK);
}
