import type { FileStore } from "@tus/file-store";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { uuidv7 } from "uuidv7";
import { removeStale } from "../blobs/fs.ts";
import type { CatalogFile } from "../catalog.ts";
import { type FieldError, ServiceError } from "../errors.ts";
import { canonicalJson, sha256Of } from "../identity.ts";
import type { ApiContext } from "./context.ts";
import { type Made, madeOnce, repeatableOf } from "./idempotent.ts";
import { type Operation, route } from "./operation.ts";
import type { Tus } from "./tus.ts";
import { checkFileName, storeFile } from "./upload-intake.ts";
import { CHUNK_MEDIA_TYPE, UPLOAD_OPERATIONS, UPLOADS_PATH } from "./upload-operations.ts";

/**
 * Resumable uploads, whose protocol is in `tus.ts`: who they belong to, how long they are kept, and how they become files of models and datasets.
 */

const ID = /^upl_[0-9a-f-]{36}$/;
const EXPIRY_CHECK_MS = 60 * 60 * 1000;

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

/** Registers the protocol, and answers how to use what it received. */
export function registerResumableUploads(app: FastifyInstance, context: ApiContext): FinishedUploads {
  const { maxUploadBytes, inspectTimeoutMs } = context.settings;
  const { uploads } = context;
  let opening: Promise<Tus> | undefined;
  const open = () => {
    opening ??= import("./tus.ts").then(({ openTus }) => openTus(context));
    return opening;
  };
  sweepExpired(app, context, open);
  // The protocol's bodies are streamed by its handler.
  app.addContentTypeParser(CHUNK_MEDIA_TYPE, (_request, _payload, done) => done(null));
  for (const operation of UPLOAD_OPERATIONS) {
    route(app, operation as Operation, (_input, request, reply) => handle(context, open, request, reply));
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
    const { files } = await open();
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
        const { files } = await open();
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

async function handle(
  context: ApiContext,
  open: () => Promise<Tus>,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { upload_id } = request.params as { upload_id?: string };
  const tus = await open();
  if (request.method === "OPTIONS") return answer(reply, await tus.respond(request));
  const owner = request.caller!.name;
  if (upload_id === undefined) return create(context, tus, request, reply, owner);
  if (!ID.test(upload_id) || !(await context.uploads.use(upload_id, owner))) {
    throw new ServiceError("not_found", `There is no upload ${upload_id}.`);
  }
  try {
    const response = await tus.respond(request);
    if (request.method === "DELETE") await context.uploads.forget(upload_id);
    if (request.method === "PATCH") expires(context, reply);
    return answer(reply, response);
  } finally {
    // Of a piece that takes long the end counts as a use.
    if (request.method === "PATCH") await context.uploads.use(upload_id, owner);
  }
}

function answer(reply: FastifyReply, { status, headers }: Response): FastifyReply {
  headers.forEach((value, name) => {
    if (!name.startsWith("access-control-") && name !== "content-length") reply.header(name, value);
  });
  return reply.code(status).send();
}

/** Starts an upload, or tells again of the one that the same request has started. */
async function create(
  context: ApiContext,
  { files, respond }: Tus,
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
      response = await respond(request, id);
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
  reply.header("tus-resumable", "1.0.0").header("location", `${UPLOADS_PATH}/${record.id}`);
  return reply.code(201).header("upload-offset", record.offset).send();
}

/** Says until when an upload that is not used is kept. */
function expires({ settings }: ApiContext, reply: FastifyReply): void {
  reply.header("upload-expires", new Date(Date.now() + settings.uploadExpiryMs).toUTCString());
}

/** Throws uploads away that were not used for too long: now, and every hour. */
function sweepExpired(app: FastifyInstance, context: ApiContext, open: () => Promise<Tus>): void {
  const { uploads, settings } = context;
  const sweep = async () => {
    try {
      for (const id of await uploads.expired()) await remove(context, (await open()).files, id);
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
