import { PassThrough, Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { FileStore } from "@tus/file-store";
import { type Locker, Server } from "@tus/server";
import type { FastifyRequest } from "fastify";
import { PROBLEMS, type ProblemCode, ServiceError } from "../errors.ts";
import type { UploadRegistry } from "../upload-registry.ts";
import type { ApiContext } from "./context.ts";
import { endWith, watchPace } from "./upload-intake.ts";
import { CHUNK_MEDIA_TYPE, UPLOADS_PATH } from "./upload-operations.ts";

/**
 * The protocol of resumable uploads, tus 1.0 (https://tus.io/protocols/resumable-upload), by @tus/server, behind the limits and problems of
 * everything else. It is loaded for the first upload.
 */

/** How long a piece waits for the one before it to end. */
const WRITER_WAIT_MS = 30_000;
/** Between us and the protocol's handler; what a client sends by this name does not get there. */
const NEW_ID_HEADER = "x-new-upload-id";

export interface Tus {
  /** The bytes that have arrived. */
  readonly files: FileStore;
  /** What the protocol makes of a request. Throws for what it refuses. `newId`: what it is to call an upload that it creates. */
  respond(request: FastifyRequest, newId?: string): Promise<Response>;
}

export function openTus({ settings, uploads }: ApiContext): Tus {
  // Expiry counts from the last use, which the registry knows; the protocol's would count from the creation.
  const files = new FileStore({ directory: settings.uploadsDir });
  // The total must be known before the first byte, or a limit could only be enforced after the disk is full.
  files.extensions = files.extensions.filter((name) => name !== "creation-defer-length");
  const server = new Server({
    path: UPLOADS_PATH,
    datastore: files,
    maxSize: settings.maxUploadBytes,
    relativeLocation: true,
    namingFunction: (request) => request.headers.get(NEW_ID_HEADER)!,
    locker: lockerOf(uploads),
    allowedOrigins: [],
  });
  return { files, respond: (request, newId) => respond(server, settings, request, newId) };
}

/** Status codes of the protocol, as far as they have a problem code of their own. */
const CODES: Readonly<Record<number, ProblemCode>> = {
  404: "not_found",
  409: "conflict",
  410: "not_found",
  412: "precondition_failed",
  413: "too_large",
  500: "internal",
  503: "unavailable",
};

async function respond(
  server: Server,
  { uploadIdleTimeoutMs }: ApiContext["settings"],
  request: FastifyRequest,
  newId: string | undefined,
): Promise<Response> {
  const pace = watchPace(request, uploadIdleTimeoutMs);
  try {
    const response = await server.handleWeb(webRequest(request, pace.signal, newId));
    pace.signal.throwIfAborted();
    if (response.status < 400) return response;
    const code = CODES[response.status] ?? "invalid_request";
    throw new ServiceError(code, (await response.text()).trim() || PROBLEMS[code].title);
  } finally {
    pace.stop();
  }
}

function webRequest(request: FastifyRequest, signal: AbortSignal, newId: string | undefined): Request {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (typeof value === "string" && name !== "x-http-method-override") headers.set(name, value);
  }
  headers.delete(NEW_ID_HEADER);
  if (newId !== undefined) headers.set(NEW_ID_HEADER, newId);
  const url = new URL(request.url, "http://localhost");
  if (headers.get("content-type") !== CHUNK_MEDIA_TYPE) return new Request(url, { method: request.method, headers });
  // Through a stream of our own: the protocol's handler may give up on it without losing the socket for the answer.
  const body = request.raw.pipe(new PassThrough());
  endWith(body, signal);
  const init = { method: request.method, headers, body: Readable.toWeb(body) as ReadableStream, duplex: "half" };
  return new Request(url, init as RequestInit);
}

/** The protocol's lock, for all processes: who wants to write makes who writes already let go, as its client may have gone. */
function lockerOf(uploads: UploadRegistry): Locker {
  return {
    newLock(id) {
      let release = () => {};
      let held: Promise<void> | undefined;
      return {
        lock: (signal, letGo) =>
          new Promise((resolve, reject) => {
            const work = () => {
              resolve();
              return new Promise<void>((end) => {
                release = end;
              });
            };
            held = uploads.withLock(id, { waitMs: WRITER_WAIT_MS, signal, onWanted: () => void letGo() }, work);
            held.catch((error) => reject(asProtocolError(error)));
          }),
        async unlock() {
          release();
          await held;
        },
      };
    },
  };
}

/** As the protocol's handler wants its errors. */
function asProtocolError(error: unknown): unknown {
  if (!(error instanceof ServiceError)) return error;
  return Object.assign(new Error(error.message), { status_code: PROBLEMS[error.code].status, body: error.message });
}
