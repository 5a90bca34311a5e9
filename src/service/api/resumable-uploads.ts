import { PassThrough, Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { uuidv7 } from "uuidv7";
import { z } from "zod";
import type { CatalogFile } from "../catalog.ts";
import { type FieldError, PROBLEMS, type ProblemCode, ServiceError } from "../errors.ts";
import type { ApiContext } from "./context.ts";
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

export interface FinishedUploads {
  /**
   * Runs `add` with a function that puts the referenced uploads into the blob store for an owner; when it succeeds, the
   * uploads are used up. Throws `validation_failed` for an upload that is not there, or not finished.
   */
  use<T>(references: readonly UploadReference[], add: (take: TakeUploads) => Promise<T>): Promise<T>;
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
  description: "tus 1.0. When it is finished, name it in a JSON request to `createModel` or `createDataset`.",
  headers: TUS_REQUEST.extend({
    "upload-length": z.string().optional().meta({ description: "Bytes of the whole file." }),
    "upload-metadata": z.string().optional(),
  }),
  streams: { [CHUNK_MEDIA_TYPE]: z.file() },
  responses: {
    201: {
      description: "The upload can be sent to its Location.",
      headers: { ...TUS_RESPONSE, Location: "Path of the upload.", "Upload-Expires": "When it is thrown away." },
    },
  },
  problems: ["too_large", "precondition_failed", "request_timeout", "unsupported_media_type"],
});

const getUploadOffset = defineOperation({
  ...common,
  id: "getUploadOffset",
  method: "HEAD",
  path: `${PATH}/{upload_id}`,
  params,
  summary: "How far an upload is",
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
  headers: TUS_REQUEST.extend({
    "upload-offset": z.string().optional().meta({ description: "Where these bytes start: the offset of the upload." }),
  }),
  streams: { [CHUNK_MEDIA_TYPE]: z.file() },
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
  responses: { 204: { description: "It is gone.", headers: TUS_RESPONSE } },
  problems: ["not_found", "precondition_failed"],
});

export const UPLOAD_OPERATIONS = [getUploadOptions, createUpload, getUploadOffset, appendUpload, deleteUpload];

/** Registers the protocol, and answers how to use what it received. */
export function registerResumableUploads(app: FastifyInstance, context: ApiContext): FinishedUploads {
  const { uploadsDir, maxUploadBytes, uploadExpiryMs } = context.settings;
  const files = new FileStore({ directory: uploadsDir, expirationPeriodInMilliseconds: uploadExpiryMs });
  // The total must be known before the first byte, or a limit could only be enforced after the disk is full.
  files.extensions = files.extensions.filter((name) => name !== "creation-defer-length");
  const tus = new Server({
    path: PATH,
    datastore: files,
    maxSize: maxUploadBytes,
    relativeLocation: true,
    namingFunction: () => `upl_${uuidv7()}`,
    allowedOrigins: [],
  });
  sweepExpired(app, tus);
  // The protocol's bodies are streamed by its handler.
  app.addContentTypeParser(CHUNK_MEDIA_TYPE, (_request, _payload, done) => done(null));
  for (const operation of UPLOAD_OPERATIONS) {
    route(app, operation as Operation, (_input, request, reply) => handle(context, tus, request, reply));
  }

  return {
    async use(references, add) {
      const uploads = await Promise.all(references.map(({ upload_id }) => finishedSize(files, upload_id)));
      const fields = uploads.flatMap((upload, i) => (typeof upload === "number" ? [] : [fieldAt(i, upload)]));
      if (fields.length > 0) throw new ServiceError("validation_failed", fields[0]!.message, { fields });
      if (uploads.reduce<number>((sum, size) => sum + Number(size), 0) > maxUploadBytes) {
        throw new ServiceError("too_large", `The files together are larger than the limit of ${maxUploadBytes} bytes.`);
      }
      const result = await add(async (owner) => {
        const taken: CatalogFile[] = [];
        for (const { upload_id, filename } of references) {
          const name = checkFileName(filename);
          taken.push({ ...(await storeFile(context, owner, files.read(upload_id), maxUploadBytes)), name });
        }
        return taken;
      });
      await Promise.all(references.map(({ upload_id }) => files.remove(upload_id)));
      return result;
    },
  };
}

/** The size of a finished upload, or what is wrong with it. */
async function finishedSize(files: FileStore, id: string): Promise<number | string> {
  // The id becomes a file name.
  const upload = ID.test(id) ? await files.getUpload(id).catch(() => undefined) : undefined;
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
};

async function handle(
  context: ApiContext,
  tus: Server,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { upload_id } = request.params as { upload_id?: string };
  if (upload_id !== undefined && !ID.test(upload_id))
    throw new ServiceError("not_found", `There is no upload ${upload_id}.`);
  const pace = watchPace(request, context.settings.uploadIdleTimeoutMs);
  try {
    const response = await tus.handleWeb(webRequest(request, pace.signal));
    pace.signal.throwIfAborted();
    response.headers.forEach((value, name) => {
      if (!name.startsWith("access-control-") && name !== "content-length") reply.header(name, value);
    });
    if (response.status < 400) return reply.code(response.status).send();
    const code = CODES[response.status] ?? "invalid_request";
    throw new ServiceError(code, (await response.text()).trim() || PROBLEMS[code].title);
  } finally {
    pace.stop();
  }
}

function webRequest(request: FastifyRequest, signal: AbortSignal): Request {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (typeof value === "string" && name !== "x-http-method-override") headers.set(name, value);
  }
  const url = new URL(request.url, "http://localhost");
  if (headers.get("content-type") !== CHUNK_MEDIA_TYPE) return new Request(url, { method: request.method, headers });
  // Through a stream of our own: the protocol's handler may give up on it without losing the socket for the answer.
  const body = request.raw.pipe(new PassThrough());
  endWith(body, signal);
  const init = { method: request.method, headers, body: Readable.toWeb(body) as ReadableStream, duplex: "half" };
  return new Request(url, init as RequestInit);
}

/** Throws unfinished uploads away when they are too old: now, and every hour. */
function sweepExpired(app: FastifyInstance, tus: Server): void {
  const sweep = () =>
    tus.cleanUpExpiredUploads().catch((error) => app.log.warn({ err: error }, "expired uploads stay"));
  const timer = setInterval(sweep, EXPIRY_CHECK_MS);
  timer.unref();
  app.addHook("onReady", async () => void (await sweep()));
  app.addHook("onClose", async () => clearInterval(timer));
}
