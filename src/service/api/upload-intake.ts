import { PassThrough, type Readable } from "node:stream";
import type { FastifyRequest } from "fastify";
import type { z } from "zod";
import type { Arrival, BlobRef } from "../blobs/blob-store.ts";
import type { CatalogFile } from "../catalog.ts";
import { type FieldError, ServiceError } from "../errors.ts";
import { fieldErrorsOf, whatItMustBe } from "../field-errors.ts";
import { PRINTABLE } from "../schemas.ts";
import type { ApiContext } from "./context.ts";

/**
 * Takes in the files of an upload: multipart, or one raw body. They are hashed and written as they arrive; whatever
 * goes wrong, the caller releases the claims of `owner` and nothing is left. What has arrived can be looked into while it is being stored.
 */

/** Files of one upload; exporters that write one file for each tensor make a few thousand. */
export const MAX_FILES = 4096;
const MAX_FIELDS = 16;
const MAX_FIELD_BYTES = 64 * 1024;
/** Boundary lines and part headers, per file; generous. */
const OVERHEAD_BYTES = 1024 * 1024;
/** An upload that brings fewer bytes than this in `uploadIdleTimeoutMs` is not worth its connection. */
const MIN_PROGRESS_BYTES = 1024;

export interface Intake {
  readonly files: readonly CatalogFile[];
  /** The text fields of a multipart body. */
  readonly fields: Readonly<Record<string, string>>;
}

/** Takes files in for the record `id`, by way of `storing` unless they are stored when it comes back. */
export type Take<T> = (id: string, storing: Storing) => Promise<T>;

/** The files of a request: those that have arrived are being stored while it goes on. */
export interface Storing {
  /** Puts a file into the store, claimed by the owner. Comes back when its bytes are here. */
  receive(bytes: AsyncIterable<Uint8Array>, maxBytes: number): Promise<BlobRef>;
  /** Copies a file to `path`, also one that was stored before. */
  copy(file: CatalogFile, path: string): Promise<void>;
  /** Settles when no file is being stored any more; rejects when one could not be. Only then may they be recorded, or claims on them be released. */
  stored(): Promise<void>;
}

function createStoring({ blobs, claims }: ApiContext, owner: string): Storing {
  const arrivals = new Map<string, Arrival>();
  const puts: Promise<BlobRef>[] = [];
  /** Of those, the ones whose bytes are here: of others `receive` has told what was wrong. */
  const arrivedPuts: Promise<BlobRef>[] = [];
  return {
    async receive(bytes, maxBytes) {
      const arrived = Promise.withResolvers<Arrival>();
      const put = blobs.put(bytes, {
        ...{ maxBytes, arrived: arrived.resolve },
        claim: (ref) => claims.claim(owner, ref),
      });
      // Of a store that tells of no arrival, what is stored has arrived.
      put.then((ref) => arrived.resolve({ ref, copyTo: (path) => blobs.materialize(ref, path) }), arrived.reject);
      puts.push(put);
      const arrival = await arrived.promise;
      arrivals.set(arrival.ref.sha256, arrival);
      arrivedPuts.push(put);
      return arrival.ref;
    },
    copy: (file, path) => arrivals.get(file.sha256)?.copyTo(path) ?? blobs.materialize(file, path),
    async stored() {
      await Promise.allSettled(puts);
      await Promise.all(arrivedPuts);
    },
  };
}

export interface IntakeOptions {
  /** The file name of a body that is the bytes themselves. */
  readonly rawName: string;
  readonly storing: Storing;
  /** Throws for a file name that is refused, before the file is read. */
  readonly checkName?: (filename: string) => void;
}

/** Takes the body's files in. They have arrived, and are stored when `storing.stored()` says so. */
export async function takeUpload(
  context: ApiContext,
  request: FastifyRequest,
  { rawName, storing, checkName }: IntakeOptions,
): Promise<Intake> {
  const { maxUploadBytes, uploadIdleTimeoutMs } = context.settings;
  if (/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? "")) {
    const { pathname } = new URL(request.url, "http://localhost");
    throw new ServiceError(
      "unsupported_media_type",
      `${pathname} takes files. JSON that names finished uploads goes to ${pathname}/from-uploads.`,
    );
  }
  const declared = Number(request.headers["content-length"] ?? 0);
  if (declared > maxUploadBytes + (request.isMultipart() ? OVERHEAD_BYTES : 0)) throw tooLarge(maxUploadBytes);
  const pace = watchPace(request, uploadIdleTimeoutMs);
  let left = maxUploadBytes;
  const store = async (name: string, open: () => Readable): Promise<CatalogFile> => {
    checkFileName(name);
    checkName?.(name);
    pace.signal.throwIfAborted();
    const bytes = open();
    const stop = endWith(bytes, pace.signal);
    try {
      const ref = await storing.receive(bytes, left);
      left -= ref.size_bytes;
      return { ...ref, name };
    } catch (error) {
      throw error instanceof ServiceError && error.code === "too_large" ? tooLarge(maxUploadBytes) : error;
    } finally {
      stop();
    }
  };
  try {
    if (request.isMultipart()) return await takeMultipart(request, pace.signal, store);
    // Through a stream of our own: a failing write must not destroy the socket that the answer goes to.
    const file = await store(rawName, () => request.raw.pipe(new PassThrough()));
    if (declared !== 0 && file.size_bytes !== declared) throw cutOff();
    return { files: [file], fields: {} };
  } catch (error) {
    throw pace.signal.aborted ? pace.signal.reason : error;
  } finally {
    pace.stop();
  }
}

/** Puts one file into the blob store, claimed by `owner`. */
export function storeFile(
  context: ApiContext,
  owner: string,
  bytes: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<BlobRef> {
  return context.blobs.put(bytes, { maxBytes, claim: (ref) => context.claims.claim(owner, ref) });
}

/** Runs `make`, which claims blobs for `owner`; when it fails, the claims are released and nothing of it stays. What could not be stored is the first reason. */
export async function withClaims<T>(
  context: ApiContext,
  request: FastifyRequest,
  owner: string,
  make: (storing: Storing) => Promise<T>,
): Promise<T> {
  const storing = createStoring(context, owner);
  try {
    try {
      return await make(storing);
    } finally {
      await storing.stored();
    }
  } catch (error) {
    // When even that fails, the sweep releases them later; the reason of the first failure is what the client must see.
    await context.claims
      .abandon(owner)
      .catch((cause) => request.log.warn({ err: cause, owner }, "claims not released"));
    throw error;
  }
}

async function takeMultipart(
  request: FastifyRequest,
  signal: AbortSignal,
  store: (name: string, open: () => Readable) => Promise<CatalogFile>,
): Promise<Intake> {
  const files: CatalogFile[] = [];
  const fields: Record<string, string> = {};
  const parts = request.parts({
    preservePath: true,
    limits: {
      fileSize: Number.POSITIVE_INFINITY, // The store counts.
      files: MAX_FILES,
      fields: MAX_FIELDS,
      parts: MAX_FILES + MAX_FIELDS,
      fieldSize: MAX_FIELD_BYTES,
      fieldNameSize: 100,
      headerPairs: 20,
    },
  });
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  aborted.promise.catch(() => {});
  try {
    for (;;) {
      const { value: part, done } = await Promise.race([parts.next(), aborted.promise]);
      if (done === true) break;
      if (part.type === "file") {
        const refusal = fileRefusal(part.fieldname, part.filename, files);
        if (refusal !== undefined) throw refusal;
        files.push(await store(part.filename ?? "", () => part.file));
        if (part.file.truncated) throw cutOff();
      } else if (part.fieldname === "file") {
        throw invalidField("/file", "not_a_file", "`file` must be a file part, with a filename");
      } else if (part.valueTruncated || part.fieldnameTruncated) {
        throw new ServiceError("too_large", `A form field is larger than ${MAX_FIELD_BYTES} bytes.`);
      } else {
        fields[part.fieldname] = typeof part.value === "string" ? part.value : JSON.stringify(part.value);
      }
    }
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    if ("code" in error && error.code === "ERR_STREAM_PREMATURE_CLOSE") throw cutOff();
    // The parser's complaints about a body that is not multipart, or ends too early, are plain Errors.
    const ofTheParser = error.constructor === Error && !("code" in error);
    throw ofTheParser
      ? new ServiceError("invalid_request", `The multipart body is malformed: ${error.message}.`)
      : error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
  if (files.length === 0) throw invalidField("/file", "missing", "send the file in a part named `file`");
  return { files, fields };
}

function fileRefusal(
  field: string,
  filename: string | undefined,
  before: readonly CatalogFile[],
): ServiceError | undefined {
  if (field !== "file") return invalidField(`/${field}`, "unrecognized_key", "files are sent in parts named `file`");
  if (before.some(({ name }) => name === filename)) {
    return invalidField("/file", "duplicate_filename", `two files are named ${JSON.stringify(filename)}`);
  }
  return undefined;
}

/**
 * Accepts plain file names only. They become names in scratch directories, archives and headers; a model that wants its
 * external data in a folder cannot be had this way. Throws `validation_failed`.
 */
export function checkFileName(name: string): string {
  const plain =
    name !== "" &&
    Buffer.byteLength(name) <= 255 &&
    PRINTABLE.test(name) &&
    !/[/\\]/.test(name) &&
    !/^\.{1,2}$/.test(name);
  if (plain) return name;
  throw invalidField("/file", "invalid_filename", `${JSON.stringify(name.slice(0, 300))} is not a plain file name`);
}

/** Parses a text field that holds JSON. */
export function parseJsonField<T>(
  schema: z.ZodType<T>,
  fields: Readonly<Record<string, string>>,
  name: string,
): T | undefined {
  const text = fields[name];
  if (text === undefined || text === "") return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw invalidField(`/${name}`, "invalid_json", "must be JSON");
  }
  return parseField(schema, json, name);
}

/** Parses a value that came in a text field. */
export function parseField<T>(schema: z.ZodType<T>, value: unknown, name: string): T {
  const parsed = schema.safeParse(value, { error: whatItMustBe });
  if (parsed.success) return parsed.data;
  const fields = fieldErrorsOf(parsed.error, `/${name}`);
  throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
}

/** Throws for fields that nobody reads: a typo must not pass silently. */
export function checkFieldNames(fields: Readonly<Record<string, string>>, known: readonly string[]): void {
  const unknown = Object.keys(fields).filter((name) => !known.includes(name));
  if (unknown.length === 0) return;
  const errors: FieldError[] = unknown.map((name) => ({
    pointer: `/${name}`,
    code: "unrecognized_key",
    message: `/${name}: there is no such field.`,
  }));
  throw new ServiceError("validation_failed", errors.map(({ message }) => message).join(" "), { fields: errors });
}

/** A refusal of one field: `message` goes on from its pointer. */
export function invalidField(pointer: string, code: FieldError["code"], message: string): ServiceError {
  const field: FieldError = { pointer, code, message: `${pointer}: ${message}.` };
  return new ServiceError("validation_failed", field.message, { fields: [field] });
}

function tooLarge(maxBytes: number): ServiceError {
  return new ServiceError("too_large", `The upload is larger than the limit of ${maxBytes} bytes.`);
}

function cutOff(): ServiceError {
  return new ServiceError("invalid_request", "The upload ended before all of its bytes had arrived.");
}

/** Makes a stream fail when the signal fires, until the function that is answered is called. */
export function endWith(bytes: Readable, signal: AbortSignal): () => void {
  const end = () => void bytes.destroy(signal.reason);
  signal.addEventListener("abort", end, { once: true });
  // It may fail before its reader has opened a file and listens; the reader finds it failed then.
  bytes.on("error", () => {});
  return () => signal.removeEventListener("abort", end);
}

/** A signal that fires when the client has gone, or sends next to nothing although we could read more. */
export function watchPace(request: FastifyRequest, windowMs: number): { readonly signal: AbortSignal; stop(): void } {
  const { raw } = request;
  const aborter = new AbortController();
  let seen = raw.socket.bytesRead;
  const timer = setInterval(() => {
    const read = raw.socket.bytesRead;
    // A full buffer means that it is our disk that is slow.
    const starved = raw.readableLength < raw.readableHighWaterMark;
    if (!raw.complete && starved && read - seen < MIN_PROGRESS_BYTES) {
      aborter.abort(
        new ServiceError("request_timeout", `Fewer than ${MIN_PROGRESS_BYTES} bytes came in ${windowMs} ms.`),
      );
    }
    seen = read;
  }, windowMs);
  const gone = () => {
    if (!raw.complete) aborter.abort(cutOff());
  };
  raw.once("close", gone);
  return {
    signal: aborter.signal,
    stop() {
      clearInterval(timer);
      raw.off("close", gone);
    },
  };
}
