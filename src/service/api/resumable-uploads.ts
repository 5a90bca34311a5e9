import { PassThrough, Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { FileStore } from "@tus/file-store";
import { type Locker, Server } from "@tus/server";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { uuidv7 } from "uuidv7";
import { z } from "zod";
import { removeStale } from "../blobs/fs.ts";
import type { CatalogFile } from "../catalog.ts";
import { type FieldError, PROBLEMS, type ProblemCode, ServiceError } from "../errors.ts";
import { canonicalJson, sha256Of } from "../identity.ts";
import type { UploadRegistry } from "../upload-registry.ts";
import type { ApiContext } from "./context.ts";
import { IDEMPOTENCY_KEY, type Made, madeOnce, repeatableOf } from "./idempotent.ts";
import { defineOperation, type Operation, route } from "./operation.ts";
import { checkFileName, endWith, storeFile, watchPace } from "./upload-intake.ts";

/**
 * Resumable uploads: tus 1.0 (https://tus.io/protocols/resumable-upload) with creation, expiration and termination. The
 * protocol is @tus/server's; this puts it behind the same keys, limits and problems as everything else.
 */

const PATH = "/v1/uploads";
const ID = /^upl_[0-9a-f-]{36}$/;
const CHUNK_MEDIA_TYPE = "application/offset+octet-stream";
const EXPIRY_CHECK_MS = 60 * 60 * 1000;
/** How long a piece waits for the one before it to end. */
const WRITER_WAIT_MS = 30_000;
/** Between us and the protocol's handler; what a client sends by this name does not get there. */
const NEW_ID_HEADER = "x-new-upload-id";

export interface FinishedUploads {
  /**
   * Runs `add` with a function that puts the referenced uploads into the blob store for an owner; when it succeeds, the uploads are used up.
   * The same request again, for a day, gets what the first one has made; those that come at the same time wait for it. Throws
   * `validation_failed` for an upload that is not there, is somebody else's, is not finished, or was used for something else.
   */
  use<R extends { readonly id: string }>(
    use: UploadUse,
    find: (id: string) => Promise<R | undefined>,
    add: (take: TakeUploads) => Promise<Made<R>>,
  ): Promise<Made<R>>;
}

export interface UploadUse {
  readonly references: readonly UploadReference[];
  readonly owner: string;
  /** What must be the same in a request that is sent again. */
  readonly request: unknown;
  /** Of the client, while others have the uploads. What has begun goes on without it: it will ask again. */
  readonly signal: AbortSignal;
}

export interface UploadReference {
  readonly upload_id: string;
  readonly filename: string;
}

type TakeUploads = (owner: string) => Promise<CatalogFile[]>;

const TUS_REQUEST = z.object({ "tus-resumable": z.string().optional().meta({ description: "`1.0.0`" }) });
const TUS_RESPONSE = { "Tus-Resumable": "`1.0.0`" };
const params = z.object({ upload_id: z.string() });
const common = { tag: "Uploads", access: "write", headers: TUS_REQUEST } as const;

const getUploadOptions = defineOperation({
  ...common,
  id: "getUploadOptions",
  method: "OPTIONS",
  path: PATH,
  access: "open",
  summary: "What the upload protocol can do here",
  description: "tus 1.0: the answer is in its headers.",
  responses: {
    204: {
      description: "See the headers.",
      headers: {
        ...TUS_RESPONSE,
        "Tus-Version": "`1.0.0`",
        "Tus-Extension": "Supported extensions.",
        "Tus-Max-Size": "Bytes.",
      },
    },
  },
  problems: [],
});

const createUpload = defineOperation({
  ...common,
  id: "createUpload",
  method: "POST",
  path: PATH,
  summary: "Start a resumable upload",
  description: "tus 1.0. When it is finished, name it to `createModelFromUploads` or `createDatasetFromUploads`.",
  headers: TUS_REQUEST.extend({
    "idempotency-key": IDEMPOTENCY_KEY,
    "upload-length": z.string().optional().meta({ description: "Bytes of the whole file." }),
    "upload-metadata": z.string().optional(),
  }),
  stream: { mediaType: CHUNK_MEDIA_TYPE, schema: z.file() },
  responses: {
    201: {
      description: "The upload can be sent to its Location.",
      headers: { ...TUS_RESPONSE, Location: "Path of the upload.", "Upload-Expires": "When it is thrown away." },
    },
  },
  problems: [
    "too_large",
    "precondition_failed",
    "request_timeout",
    "unsupported_media_type",
    "quota_exceeded",
    "idempotency_conflict",
  ],
});

const getUploadOffset = defineOperation({
  ...common,
  id: "getUploadOffset",
  method: "HEAD",
  path: `${PATH}/{upload_id}`,
  params,
  summary: "How far an upload is",
  description: "tus 1.0: ask before going on with an upload that was cut off.",
  responses: {
    200: {
      description: "See the headers.",
      headers: { ...TUS_RESPONSE, "Upload-Offset": "Bytes that have arrived.", "Upload-Length": "Bytes of the whole." },
    },
  },
  problems: ["not_found", "precondition_failed"],
});

const appendUpload = defineOperation({
  ...common,
  id: "appendUpload",
  method: "PATCH",
  path: `${PATH}/{upload_id}`,
  params,
  summary: "Send the next bytes of an upload",
  description: "tus 1.0. What has arrived stays, whatever happens to the connection.",
  headers: TUS_REQUEST.extend({
    "upload-offset": z.string().optional().meta({ description: "Where these bytes start: the offset of the upload." }),
  }),
  stream: { mediaType: CHUNK_MEDIA_TYPE, schema: z.file() },
  responses: {
    204: {
      description: "The bytes have arrived.",
      headers: { ...TUS_RESPONSE, "Upload-Offset": "Where the next bytes start." },
    },
  },
  problems: ["not_found", "conflict", "too_large", "precondition_failed", "request_timeout", "unsupported_media_type"],
});

const deleteUpload = defineOperation({
  ...common,
  id: "deleteUpload",
  method: "DELETE",
  path: `${PATH}/{upload_id}`,
  params,
  summary: "Throw an upload away",
  description: "Uploads that nobody uses are thrown away by themselves when they expire.",
  responses: { 204: { description: "It is gone.", headers: TUS_RESPONSE } },
  problems: ["not_found", "precondition_failed"],
});

export const UPLOAD_OPERATIONS = [getUploadOptions, createUpload, getUploadOffset, appendUpload, deleteUpload];

/** Registers the protocol, and answers how to use what it received. */
export function registerResumableUploads(app: FastifyInstance, context: ApiContext): FinishedUploads {
  const { uploadsDir, maxUploadBytes, inspectTimeoutMs } = context.settings;
  const { uploads } = context;
  // Expiry counts from the last use, which the registry knows; the protocol's would count from the creation.
  const files = new FileStore({ directory: uploadsDir });
  // The total must be known before the first byte, or a limit could only be enforced after the disk is full.
  files.extensions = files.extensions.filter((name) => name !== "creation-defer-length");
  const tus = new Server({
    path: PATH,
    datastore: files,
    maxSize: maxUploadBytes,
    relativeLocation: true,
    namingFunction: (request) => request.headers.get(NEW_ID_HEADER)!,
    locker: lockerOf(uploads),
    allowedOrigins: [],
  });
  sweepExpired(app, context, files);
  // The protocol's bodies are streamed by its handler.
  app.addContentTypeParser(CHUNK_MEDIA_TYPE, (_request, _payload, done) => done(null));
  for (const operation of UPLOAD_OPERATIONS) {
    route(app, operation as Operation, (_input, request, reply) => handle(context, tus, files, request, reply));
  }

  /** What the same request has made before. */
  async function madeBefore<R>(
    { references, owner }: UploadUse,
    fingerprint: string,
    find: (id: string) => Promise<R | undefined>,
  ): Promise<R | undefined> {
    const outcomes = await Promise.all(references.map(({ upload_id }) => uploads.outcome(upload_id)));
    const [first] = outcomes;
    const isSame = outcomes.every((it) => it?.fingerprint === fingerprint && it.owner === owner);
    return first !== undefined && isSame ? find(first.resource) : undefined;
  }

  async function checkFinished({ references, owner }: UploadUse): Promise<void> {
    const sizes = await Promise.all(references.map(({ upload_id }) => finishedSize(context, files, upload_id, owner)));
    const fields = sizes.flatMap((size, i) => (typeof size === "number" ? [] : [fieldAt(i, size)]));
    if (fields.length > 0) throw new ServiceError("validation_failed", fields[0]!.message, { fields });
    if (sizes.reduce<number>((sum, size) => sum + Number(size), 0) > maxUploadBytes) {
      throw new ServiceError("too_large", `The files together are larger than the limit of ${maxUploadBytes} bytes.`);
    }
  }

  return {
    async use(use, find, add) {
      const { references, owner, signal } = use;
      const fingerprint = sha256Of(canonicalJson(use.request));
      const before = await madeBefore(use, fingerprint, find);
      if (before !== undefined) return { record: before, created: false };
      await checkFinished(use);
      const ids = [...new Set(references.map(({ upload_id }) => upload_id))].sort();
      // In order, so that two requests never wait for each other.
      const lockAll = <T>(from: number, work: () => Promise<T>): Promise<T> => {
        const id = ids[from];
        if (id === undefined) return work();
        return uploads.withLock(id, { waitMs: 2 * inspectTimeoutMs, signal }, () => lockAll(from + 1, work));
      };
      return lockAll(0, async () => {
        const meanwhile = await madeBefore(use, fingerprint, find);
        if (meanwhile !== undefined) return { record: meanwhile, created: false };
        await checkFinished(use);
        const made = await add(async (blobOwner) => {
          const taken: CatalogFile[] = [];
          for (const { upload_id, filename } of references) {
            const name = checkFileName(filename);
            taken.push({ ...(await storeFile(context, blobOwner, files.read(upload_id), maxUploadBytes)), name });
          }
          return taken;
        });
        for (const id of ids) await uploads.remember(id, { resource: made.record.id, owner, fingerprint });
        for (const id of ids) await remove(context, files, id);
        return made;
      });
    },
  };
}

/** Removes an upload, whether it has a file or not. */
async function remove({ uploads }: ApiContext, files: FileStore, id: string): Promise<void> {
  await files.remove(id).catch(() => {}); // Another process has its file, or has removed it.
  await uploads.forget(id);
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

/** The size of a finished upload, or what is wrong with it. */
async function finishedSize(
  { uploads }: ApiContext,
  files: FileStore,
  id: string,
  owner: string,
): Promise<number | string> {
  const outcome = await uploads.outcome(id);
  if (outcome?.owner === owner) return `Upload ${id} was used for ${outcome.resource} by another request.`;
  // The id becomes a file name.
  const isOwn = ID.test(id) && (await uploads.use(id, owner));
  const upload = isOwn ? await files.getUpload(id).catch(() => undefined) : undefined;
  if (upload === undefined) return `There is no upload ${JSON.stringify(id)}.`;
  if (upload.offset !== upload.size)
    return `Of upload ${id} only ${upload.offset} of ${upload.size} bytes have arrived.`;
  return upload.offset;
}

function fieldAt(index: number, message: string): FieldError {
  return { pointer: `/uploads/${index}/upload_id`, code: "upload_not_finished", message };
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

async function handle(
  context: ApiContext,
  tus: Server,
  files: FileStore,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { upload_id } = request.params as { upload_id?: string };
  if (request.method === "OPTIONS") return answer(reply, await protocol(context, tus, request));
  const owner = request.caller!.name;
  if (upload_id === undefined) return create(context, tus, files, request, reply, owner);
  if (!ID.test(upload_id) || !(await context.uploads.use(upload_id, owner))) {
    throw new ServiceError("not_found", `There is no upload ${upload_id}.`);
  }
  try {
    const response = await protocol(context, tus, request);
    if (request.method === "DELETE") await context.uploads.forget(upload_id);
    if (request.method === "PATCH") expires(context, reply);
    return answer(reply, response);
  } finally {
    // Of a piece that takes long the end counts as a use.
    if (request.method === "PATCH") await context.uploads.use(upload_id, owner);
  }
}

/** Starts an upload, or tells again of the one that the same request has started. */
async function create(
  context: ApiContext,
  tus: Server,
  files: FileStore,
  request: FastifyRequest,
  reply: FastifyReply,
  owner: string,
): Promise<FastifyReply> {
  const length = request.headers["upload-length"];
  const bytes = typeof length === "string" && /^\d{1,15}$/.test(length) ? Number(length) : undefined;
  const id = `upl_${uuidv7()}`;
  expires(context, reply);
  const find = async (earlier: string) => {
    const upload =
      (await context.uploads.use(earlier, owner)) && (await files.getUpload(earlier).catch(() => undefined));
    return upload ? { id: earlier, offset: upload.offset } : undefined;
  };
  let response: Response | undefined;
  const make = async () => {
    // What the protocol refuses is not counted.
    const counts = bytes !== undefined && bytes <= context.settings.maxUploadBytes;
    if (counts) await context.uploads.open(id, owner, bytes);
    try {
      response = await protocol(context, tus, request, id);
    } catch (error) {
      if (counts) await remove(context, files, id);
      throw error;
    }
    return { record: { id, offset: 0 }, created: true };
  };
  const repeatable = {
    ...repeatableOf(request),
    request: ["upload", length ?? null, request.headers["upload-metadata"] ?? null],
    id,
  };
  const { record } = await madeOnce(context, repeatable, find, make);
  if (response !== undefined) return answer(reply, response);
  reply.header("tus-resumable", "1.0.0").header("location", `${PATH}/${record.id}`);
  return reply.code(201).header("upload-offset", record.offset).send();
}

/** Says until when an upload that is not used is kept. */
function expires({ settings }: ApiContext, reply: FastifyReply): void {
  reply.header("upload-expires", new Date(Date.now() + settings.uploadExpiryMs).toUTCString());
}

/** What the protocol's handler makes of a request. Throws for what it refuses. `newId`: what it is to call an upload that it creates. */
async function protocol(context: ApiContext, tus: Server, request: FastifyRequest, newId?: string): Promise<Response> {
  const pace = watchPace(request, context.settings.uploadIdleTimeoutMs);
  try {
    const response = await tus.handleWeb(webRequest(request, pace.signal, newId));
    pace.signal.throwIfAborted();
    if (response.status < 400) return response;
    const code = CODES[response.status] ?? "invalid_request";
    throw new ServiceError(code, (await response.text()).trim() || PROBLEMS[code].title);
  } finally {
    pace.stop();
  }
}

function answer(reply: FastifyReply, { status, headers }: Response): FastifyReply {
  headers.forEach((value, name) => {
    if (!name.startsWith("access-control-") && name !== "content-length") reply.header(name, value);
  });
  return reply.code(status).send();
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

/** Throws uploads away that were not used for too long: now, and every hour. */
function sweepExpired(app: FastifyInstance, context: ApiContext, files: FileStore): void {
  const { uploads, settings } = context;
  const sweep = async () => {
    try {
      for (const id of await uploads.expired()) await remove(context, files, id);
      // What the registry does not know was never recorded, or is of a version before it.
      await removeStale(settings.uploadsDir, settings.uploadExpiryMs, (name) => uploads.isKnown(name.split(".")[0]!));
    } catch (error) {
      app.log.warn({ err: error }, "expired uploads stay");
    }
  };
  const timer = setInterval(sweep, EXPIRY_CHECK_MS);
  timer.unref();
  app.addHook("onReady", sweep);
  app.addHook("onClose", async () => clearInterval(timer));
}
