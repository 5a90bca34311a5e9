import { createHash } from "node:crypto";
import { closeSync, constants, existsSync, fstatSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { type FileHandle, mkdtemp, open, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { CoreError, checkCancelled } from "../src/core/errors.ts";
import type { ExternalData } from "../src/core/onnx/external-data.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { LIMITS } from "../src/core/onnx/limits.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { UNTOLD } from "../src/core/onnx/origin.ts";
import { encodeModel, type SaveOptions } from "../src/core/onnx/save.ts";
import type { EncodedFile } from "../src/core/onnx/streamed-encoding.ts";
import { openSession, type Session, type SessionOptions } from "../src/core/runtime/session.ts";
import type { LocalFile, ProducedFile } from "../src/tasks/protocol.ts";

/**
 * Models on the local disk. The `.onnx` is read whole; tensors in external data files are read when they are used, so that a model of any
 * size can be compressed in the memory of its largest tensor.
 */

/** The most bytes of one read or write: Linux moves at most 2 GiB at once, and between two a job can be cancelled. */
const MAX_IO_BYTES = 256 * 2 ** 20;
/** Small chunks are gathered into writes of this size. */
const STAGING_BYTES = 4 * 2 ** 20;

/**
 * Loads a model whose first file is the `.onnx`; the others are its external data, under the names that the model uses.
 * Throws `invalid_model` or `limit_exceeded` with the node, tensor or file at fault.
 */
export function openModel(files: readonly LocalFile[]): Model {
  const [main, ...others] = files;
  if (!main) throw new CoreError("internal", "A model has at least one file.");
  if (statSync(main.path).size > LIMITS.fileBytes) {
    throw new CoreError(
      "limit_exceeded",
      "A model file can have at most 2 GiB; larger models keep their weights in external data files.",
      main.name,
    );
  }
  return loadModel(readFileSync(main.path), externalDataIn(others));
}

/** Loads the model at `path`, with its weights in `<path>.data` where that file exists: what `writeModel` and onnxruntime write. */
export function openWrittenModel(path: string): Model {
  const main = { name: basename(path), path };
  const data = { name: `${main.name}.data`, path: `${path}.data` };
  return openModel(existsSync(data.path) ? [main, data] : [main]);
}

/** Loads a model that has no file, by way of one that is gone when it is loaded: so that its size does not matter. */
export function openTemporary(model: Model, options?: SessionOptions): Promise<Session> {
  return withTemporaryFiles(model, ([main]) => openSession({ path: main!.path }, options));
}

/** Loads a model that has no file with onnxruntime's profiler on. Answers the session, and what the profiler had written when `use` ended. */
export function profileTemporary(
  model: Model,
  use: (session: Session) => Promise<void>,
  options?: SessionOptions,
): Promise<{ readonly text: string; readonly session: Session }> {
  return withTemporaryFiles(model, async ([main]) => {
    const directory = dirname(main!.path);
    const session = await openSession({ path: main!.path }, { ...options, profilePrefix: join(directory, PROFILE) });
    try {
      await use(session);
      session.stopProfiling!();
      // onnxruntime adds the time to its name.
      const written = (await readdir(directory)).find((name) => name.startsWith(PROFILE));
      if (written === undefined) throw new CoreError("internal", "onnxruntime has written no profile.");
      return { text: await readFile(join(directory, written), "utf8"), session };
    } catch (error) {
      await session.close();
      throw error;
    }
  });
}

const PROFILE = "profile_";

/** Writes a model to files that are gone when `use` has ended. */
export async function withTemporaryFiles<T>(
  model: Model,
  use: (files: readonly LocalFile[]) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "model-"));
  try {
    return await use(await writeModel(model, directory, "model.onnx"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** External data in `files`. Each access opens the file anew: nothing has to be closed, and opening costs 20 us. */
function externalDataIn(files: readonly LocalFile[]): ExternalData {
  const paths = new Map(files.map(({ name, path }) => [name, path]));
  const sizes = new Map(files.map(({ name, path }) => [name, statSync(path).size]));
  return {
    size: (location) => sizes.get(location),
    read(location, offset, length) {
      // Slow: not from the pool that small buffers share.
      const bytes = Buffer.allocUnsafeSlow(length);
      const fd = openSync(paths.get(location)!, constants.O_RDONLY);
      try {
        for (let done = 0; done < length; ) {
          const count = readSync(fd, bytes, done, Math.min(length - done, MAX_IO_BYTES), offset + done);
          if (count === 0) {
            const { size } = fstatSync(fd);
            throw new CoreError("internal", `A data file has shrunk to ${size} bytes while it was in use.`, location);
          }
          done += count;
        }
      } finally {
        closeSync(fd);
      }
      return bytes;
    },
  };
}

/** The sha256 of a model's files as they would be written if they did not say where they come from. Equal for equal models. */
export function contentSha256(files: readonly LocalFile[]): string {
  const model = openModel(files);
  model.origin = UNTOLD;
  const { model: main, data } = encodeModel(model, { location: "data" });
  const hash = createHash("sha256");
  for (const chunk of [...main.chunks, ...(data?.chunks ?? [])]) {
    hash.update(chunk instanceof Uint8Array ? chunk : chunk.bytes);
  }
  return hash.digest("hex");
}

const MODEL_TYPE = "application/octet-stream";

export interface WriteOptions extends Pick<SaveOptions, "maxInlineBytes"> {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes a model to `directory` as `name`, with its weights in `<name>.data` when they do not fit in one file. Each tensor is computed
 * while the one before is being written. Whatever goes wrong, no file stays behind.
 */
export async function writeModel(
  model: Model,
  directory: string,
  name: string,
  options: WriteOptions = {},
): Promise<ProducedFile[]> {
  const { signal, ...saveOptions } = options;
  const location = `${name}.data`;
  const encoded = encodeModel(model, { location, ...saveOptions });
  const files: [string, EncodedFile][] = [[name, encoded.model]];
  if (encoded.data) files.push([location, encoded.data]);
  const produced = files.map(([file]) => ({
    name: file,
    path: join(directory, file),
    media_type: MODEL_TYPE,
  }));
  try {
    for (const [i, [, file]] of files.entries()) await writeFile(produced[i]!.path, file, signal);
  } catch (error) {
    await Promise.all(produced.map(({ path }) => rm(path, { force: true })));
    throw error;
  }
  return produced;
}

/**
 * Writes the first file of a model with external data to `directory` once more, as `name`: what it calls its data is `<name>.data`, so that it loads beside a copy of
 * them of that name. Throws `internal` when its data would be others.
 */
export async function writeRenamed(
  files: readonly LocalFile[],
  directory: string,
  name: string,
): Promise<ProducedFile> {
  const { model, data } = encodeModel(openModel(files), { location: `${name}.data`, maxInlineBytes: 0 });
  if (files.length !== 2 || data?.byteLength !== statSync(files[1]!.path).size) {
    throw new CoreError("internal", "The model does not have the data file that is written for it.", files[0]!.name);
  }
  const path = join(directory, name);
  await writeFile(path, model, undefined);
  return { name, path, media_type: MODEL_TYPE };
}

async function writeFile(path: string, file: EncodedFile, signal: AbortSignal | undefined): Promise<void> {
  const handle = await open(path, "w");
  try {
    const writer = new ChunkWriter(handle, signal);
    for (const chunk of file.chunks) {
      checkCancelled(signal);
      await writer.write(chunk instanceof Uint8Array ? chunk : chunk.bytes);
    }
    await writer.finish();
    const { size } = await handle.stat();
    if (size !== file.byteLength) {
      throw new CoreError("internal", `The model was written as ${size} bytes and not as ${file.byteLength}.`);
    }
  } finally {
    await handle.close();
  }
}

/** Sequential writes with one in flight: the caller prepares the next chunk meanwhile. */
class ChunkWriter {
  readonly #handle: FileHandle;
  readonly #signal: AbortSignal | undefined;
  /** Two, so that one can fill while the other is being written. */
  #staging = [Buffer.allocUnsafeSlow(STAGING_BYTES), Buffer.allocUnsafeSlow(STAGING_BYTES)] as const;
  #staged = 0;
  #inFlight: Promise<void> = Promise.resolve();

  constructor(handle: FileHandle, signal: AbortSignal | undefined) {
    this.#handle = handle;
    this.#signal = signal;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#staged + bytes.byteLength > STAGING_BYTES) await this.#flush();
    if (bytes.byteLength > STAGING_BYTES) return this.#start(bytes);
    this.#staging[0].set(bytes, this.#staged);
    this.#staged += bytes.byteLength;
  }

  async finish(): Promise<void> {
    await this.#flush();
    await this.#inFlight;
  }

  async #flush(): Promise<void> {
    if (this.#staged === 0) return;
    const [full, empty] = this.#staging;
    await this.#start(full.subarray(0, this.#staged));
    this.#staging = [empty, full];
    this.#staged = 0;
  }

  /** Waits for the write before, begins this one, and comes back without waiting for it. */
  async #start(bytes: Uint8Array): Promise<void> {
    await this.#inFlight;
    this.#inFlight = this.#writeAll(bytes);
    // The failure is thrown where the promise is awaited next; until then it must not count as unhandled.
    this.#inFlight.catch(() => {});
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength; ) {
      checkCancelled(this.#signal);
      const length = Math.min(bytes.byteLength - done, MAX_IO_BYTES);
      done += (await this.#handle.write(bytes, done, length)).bytesWritten;
    }
  }
}
