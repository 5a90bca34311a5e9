import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { chmod, copyFile, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { keepFreeOfLeftovers, ownName } from "../../leftovers.ts";
import { ServiceError } from "../errors.ts";
import type { Arrival, BlobRef, BlobStore, PutOptions } from "./blob-store.ts";

/** One write call per MiB instead of one per network packet. */
const WRITE_BUFFER_BYTES = 1024 * 1024;

/**
 * Blobs as read-only files `<directory>/<first two hex digits>/<sha256>`. Bytes arrive in `<directory>/incoming` and
 * are renamed into place, so a blob is either whole or not there. Removes what killed processes leave in `incoming`.
 */
export async function createFileBlobStore(directory: string): Promise<BlobStore> {
  const incoming = join(directory, "incoming");
  await keepFreeOfLeftovers(incoming);
  const shardOf = (ref: BlobRef) => join(directory, ref.sha256.slice(0, 2));
  const pathOf = (ref: BlobRef) => join(shardOf(ref), ref.sha256);

  const store: BlobStore = {
    async put(bytes, options) {
      const staged = await stageFile(incoming, bytes, options);
      try {
        await chmod(staged.path, 0o444);
        await options.claim?.(staged.ref);
        options.arrived?.(arrivalOf(staged, store));
        await staged.synced;
        await mkdir(shardOf(staged.ref), { recursive: true });
        // Replaces a blob of the same name, which has the same bytes: cheaper than asking first, and safe against its
        // deletion.
        await rename(staged.path, pathOf(staged.ref));
        return staged.ref;
      } catch (error) {
        await removeFile(staged.path);
        throw asServiceError(error);
      }
    },
    get: (ref, range) => readLocalFile(pathOf(ref), range),
    async materialize(ref, path) {
      try {
        await copyLocalFile(pathOf(ref), path);
      } catch (error) {
        throw asServiceError(error);
      }
    },
    async delete(ref) {
      await rm(pathOf(ref), { force: true });
    },
    async check() {
      const probe = join(incoming, ownName());
      try {
        await writeFile(probe, "ok");
        await readFile(probe);
      } finally {
        // A full disk takes the name of a file and refuses its bytes.
        await rm(probe, { force: true });
      }
    },
  };
  return store;
}

/** Never a link: who may write to one name of a file may write to them all. Shares the blocks where the file system can. */
function copyLocalFile(from: string, to: string): Promise<void> {
  return copyFile(from, to, constants.COPYFILE_FICLONE);
}

/** Bytes on the local disk that have no name in a store yet. Whoever staged them moves or removes the file. */
export interface StagedFile {
  readonly ref: BlobRef;
  readonly path: string;
  /** Settles when it survives the end of the machine, or is closed where that was not asked for. */
  readonly synced: Promise<void>;
}

/** The bytes of a staged file, which lie in `store` when the file is gone. */
export function arrivalOf({ ref, path }: StagedFile, store: BlobStore): Arrival {
  return {
    ref,
    copyTo: (to) =>
      copyLocalFile(path, to).catch((error) => {
        if (codeOf(error) === "ENOENT") return store.materialize(ref, to);
        throw asServiceError(error);
      }),
  };
}

/**
 * Writes a stream to a new file in `directory` while hashing it, and begins to sync it to the disk, unless `sync` is false. When the stream or a
 * write fails the file is removed again. Memory is bounded by the write buffer; hashing runs on the chunks as they come (about 50 us for 64
 * KiB).
 */
export async function stageFile(
  directory: string,
  bytes: AsyncIterable<Uint8Array>,
  { maxBytes, signal, sync = true }: Pick<PutOptions, "maxBytes" | "signal"> & { readonly sync?: boolean },
): Promise<StagedFile> {
  const path = join(directory, ownName());
  const file = await open(path, "wx", 0o600).catch((cause) => {
    if (codeOf(cause) !== "ENOENT") throw asServiceError(cause);
    throw new ServiceError("unavailable", "The directory of the store is gone.", { cause, retryAfterSeconds: 10 });
  });
  // Opened before anything is written, so that it hears of every write that fails later: the stream closes its own when it ends.
  const kept = await open(path, "r+").catch(async (cause) => {
    await file.close();
    await rm(path, { force: true });
    throw asServiceError(cause);
  });
  const hash = createHash("sha256");
  let size = 0;
  const measure = async function* (source: AsyncIterable<Uint8Array>) {
    for await (const chunk of source) {
      size += chunk.byteLength;
      if (size > maxBytes)
        throw new ServiceError("too_large", `The upload is larger than the limit of ${maxBytes} bytes.`);
      hash.update(chunk);
      yield chunk;
    }
  };
  try {
    const sink = file.createWriteStream({ highWaterMark: WRITE_BUFFER_BYTES });
    await pipeline(bytes, measure, sink, signal === undefined ? {} : { signal });
  } catch (error) {
    await kept.close();
    await rm(path, { force: true });
    throw asServiceError(error);
  }
  const synced = (sync ? kept.sync() : Promise.resolve()).finally(() => kept.close());
  synced.catch(() => {}); // Whoever waits for it is told.
  return { path, ref: { sha256: hash.digest("hex"), size_bytes: size }, synced };
}

/** Streams `[start, end)` of a file. Rejects before the first byte when it is not there. */
export async function readLocalFile(path: string, range?: { start: number; end: number }): Promise<Readable> {
  if (range !== undefined && range.start >= range.end) return Readable.from([]);
  try {
    const file = await open(path, "r");
    return file.createReadStream(range === undefined ? {} : { start: range.start, end: range.end - 1 });
  } catch (error) {
    throw asServiceError(error);
  }
}

/** Writes a blob's bytes to `path`, which appears only when they are whole and are the ones that `ref` names. */
export async function saveBlob(ref: BlobRef, bytes: AsyncIterable<Uint8Array>, path: string): Promise<void> {
  // The store has it: a copy that the end of the machine takes is made again.
  const staged = await stageFile(dirname(path), bytes, { maxBytes: ref.size_bytes, sync: false });
  await staged.synced;
  if (staged.ref.sha256 !== ref.sha256) {
    await rm(staged.path, { force: true });
    throw new ServiceError(
      "internal",
      `The bytes stored as ${ref.sha256} are damaged: they hash to ${staged.ref.sha256}.`,
    );
  }
  await rename(staged.path, path);
}

/** Removes a file; no error when it is gone already. */
export async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true });
}

/** Makes a folder in a directory, and tells its path. */
export async function makeFolder(directory: string, name: string): Promise<string> {
  const path = join(directory, name);
  await mkdir(path, { recursive: true });
  return path;
}

/** Removes the entries of `directory` that were not touched for a while and that nobody keeps. Creates it when missing. */
export async function removeStale(
  directory: string,
  untouchedMs: number,
  isKept: (name: string) => Promise<boolean>,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const oldest = Date.now() - untouchedMs;
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const facts = await stat(path).catch(() => undefined);
    if (facts === undefined || facts.mtimeMs >= oldest || (await isKept(name))) continue;
    await rm(path, { recursive: true, force: true });
  }
}

/** A small text file that an operator wrote. */
export async function readTextFile(path: string): Promise<string> {
  return readFile(path, "utf8");
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** A disk that is not there, broken, or not to be used: with a file system on the network, all of these come and go. */
const DISK_AWAY: ReadonlySet<string | undefined> = new Set([
  ...["EIO", "EROFS", "ENOTDIR", "EACCES", "EPERM", "ESTALE", "ENOTCONN", "EHOSTDOWN", "ENXIO", "ENODEV", "ETIMEDOUT"],
  ...["EMFILE", "ENFILE"],
]);

/** Gives the errors of the file system that are not bugs their name in the service. */
function asServiceError(error: unknown): unknown {
  const code = codeOf(error);
  if (code === "ENOENT")
    return new ServiceError("not_found", "These bytes are not stored here (any more).", { cause: error });
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new ServiceError("unavailable", "There is no space left to store this.", {
      cause: error,
      retryAfterSeconds: 60,
    });
  }
  if (DISK_AWAY.has(code)) {
    return new ServiceError("unavailable", `The disk of the store cannot be used now (${code}).`, {
      cause: error,
      retryAfterSeconds: 10,
    });
  }
  return error;
}
