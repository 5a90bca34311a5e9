import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { type ModelFacts, modelWarnings } from "../../core/contract.ts";
import { type CatalogFile, type ModelRecord, type ModelSummary, newId, type Told } from "../catalog.ts";
import { ServiceError } from "../errors.ts";
import { bundleSha256, uploadIdentity } from "../identity.ts";
import { unknownDim, unknownDims } from "../kinds/model-checks.ts";
import { partOf } from "../pages.ts";
import { Metadata, Name } from "../schemas.ts";
import { askerOf, UNTIL_IT_ENDS } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import { filterOf, renamed } from "./describe.ts";
import { blobDownload, sendDownload } from "./download.ts";
import { modelFileName } from "./download-names.ts";
import { earlierUpload } from "./earlier-upload.ts";
import { type Made, madeOnce, repeatableOf } from "./idempotent.ts";
import type { Asker } from "./inspection-lane.ts";
import type { Inspector } from "./inspector.ts";
import {
  createModel,
  createModelFromUploads,
  deleteModel,
  downloadModel,
  getModel,
  listModelLayers,
  listModels,
  renameModel,
} from "./model-operations.ts";
import { route } from "./operation.ts";
import type { FinishedUploads } from "./resumable-uploads.ts";
import { tarDownload } from "./tar.ts";
import {
  checkFieldNames,
  type Intake,
  parseField,
  parseJsonField,
  type Take,
  takeUpload,
  withClaims,
} from "./upload-intake.ts";

/** How other operations add models whose files they have stored. */
export interface ModelIntake {
  /** Adds the model whose files `take` stores for the id it is given. */
  add(request: FastifyRequest, asker: Asker, take: Take<TakenModel>): Promise<Made<ModelRecord>>;
  answer(reply: FastifyReply, made: Made<ModelRecord>): unknown;
}

export function registerModels(
  app: FastifyInstance,
  context: ApiContext,
  inspector: Inspector,
  finishedUploads: FinishedUploads,
): ModelIntake {
  const { catalog, jobs, blobs } = context;

  route(app, createModel, async ({ query }, request, reply) => {
    const added = await add(request, askerOf(request, reply), async (_id, storing) => ({
      name: query.name,
      ...formOf(await takeUpload(context, request, { rawName: "model.onnx", storing })),
    }));
    return answerAdded(reply, added);
  });

  route(app, createModelFromUploads, async ({ body }, request, reply) => {
    const { uploads: references, name, metadata } = body;
    const asker = askerOf(request, reply);
    const added = await finishedUploads.use(
      { references, owner: request.caller!.name, request: ["model", body], signal: asker.signal },
      catalog.models.get,
      // What is uploaded is not lost with the client: it will ask again.
      (take) =>
        add(request, { ...asker, signal: UNTIL_IT_ENDS }, async (id) => ({ files: await take(id), name, metadata })),
    );
    return answerAdded(reply, added);
  });

  /** Adds the model whose files `take` stores for the id it is given. */
  function add(request: FastifyRequest, asker: Asker, take: Take<TakenModel>) {
    const id = newId("mdl");
    return withClaims(context, request, id, async (storing) => {
      const { files: unordered, name, metadata } = await take(id, storing);
      const files = graphFirst(unordered);
      const sha256 = bundleSha256(files);
      const made = await madeOnce(
        context,
        { ...repeatableOf(request), request: ["model", sha256, name ?? null, metadata ?? {}], id },
        catalog.models.get,
        async () => {
          const owner = request.caller!.name;
          const earlier = await earlierUpload(catalog.models, sha256, { owner, name, metadata });
          if (earlier.record !== undefined) return { record: earlier.record, created: false };
          const facts = earlier.facts ?? (await inspector.upload(asker, files, storing.copy));
          const told = {
            name: name ?? files[0]!.name.replace(/\.onnx$/i, "").slice(0, 200),
            metadata: metadata ?? {},
          };
          await storing.stored();
          return catalog.models.add({
            ...{ id, ...told, content: sha256, owner, identity: uploadIdentity(sha256, owner, told) },
            created_at: new Date().toISOString(),
            sha256,
            size_bytes: files.reduce((sum, file) => sum + file.size_bytes, 0),
            files,
            facts,
            derived_from: null,
          });
        },
      );
      await storing.stored();
      if (made.record.id !== id) await context.claims.release(id);
      return made;
    });
  }

  async function modelById(id: string): Promise<ModelRecord> {
    const record = await catalog.models.get(id);
    if (record === undefined) throw new ServiceError("not_found", `There is no model ${id}.`);
    return record;
  }

  route(app, listModels, async ({ query }) => {
    const { limit, cursor } = query;
    const page = await catalog.models.list({ limit, filter: filterOf(query), ...(cursor !== undefined && { cursor }) });
    return { ...page, data: page.data.map(modelSummaryOf) };
  });

  route(app, getModel, async ({ params, query }, request, reply) => {
    const record = await modelById(params.model_id);
    if (query.dims === undefined) return modelOf(record);
    const unknown = unknownDims(query.dims, record.facts);
    if (unknown.length > 0) {
      const message = unknown.map((name) => unknownDim(name, record.facts)).join(" ");
      const fields = [{ pointer: "#/query/dims", code: "unknown_dimension", message } as const];
      throw new ServiceError("validation_failed", message, { fields });
    }
    return modelOf(record, await inspector.model(askerOf(request, reply), record, query.dims));
  });

  route(app, downloadModel, async ({ params }, request, reply) => {
    const { files, name } = await modelById(params.model_id);
    const [file] = files;
    const filename = modelFileName(name, files.length);
    const download =
      files.length === 1
        ? blobDownload(blobs, file!, { filename, mediaType: "application/octet-stream" })
        : tarDownload(blobs, files, filename);
    return sendDownload(request, reply, download);
  });

  route(app, listModelLayers, async ({ params, query }, request, reply) => {
    const model = await modelById(params.model_id);
    return partOf(await inspector.layers(askerOf(request, reply), model), query);
  });

  route(app, renameModel, async ({ params, body }) => {
    const record = await modelById(params.model_id);
    const told = renamed(record, body);
    const changed = await catalog.models.rename(record.id, told, identityOf(record, told));
    if (changed === undefined) throw new ServiceError("not_found", `There is no model ${record.id}.`);
    return modelOf(changed);
  });

  route(app, deleteModel, async ({ params }, _request, reply) => {
    const users = await jobs.activeUsers(params.model_id);
    if (users.length > 0) throw new ServiceError("conflict", `The model is in use by ${users.join(", ")}.`);
    if (!(await catalog.models.remove(params.model_id))) {
      throw new ServiceError("not_found", `There is no model ${params.model_id}.`);
    }
    return reply.code(204).send();
  });

  return { add, answer: answerAdded };
}

/** What a model is one of once it is called otherwise. One that a job has made stays what it is, whatever it is called. */
function identityOf({ content, identity, owner }: ModelRecord, told: Told): string {
  return owner === undefined ? identity : uploadIdentity(content ?? identity, owner, told);
}

function answerAdded(reply: FastifyReply, { record, created }: { record: ModelRecord; created: boolean }) {
  if (created) reply.code(201).header("location", `/v1/models/${record.id}`);
  return modelOf(record);
}

interface TakenModel {
  readonly files: readonly CatalogFile[];
  readonly name: string | undefined;
  readonly metadata: Readonly<Record<string, string>> | undefined;
}

function formOf({ files, fields }: Intake): Omit<TakenModel, "name"> & { name?: string } {
  checkFieldNames(fields, ["name", "metadata"]);
  return {
    files,
    metadata: parseJsonField(Metadata, fields, "metadata"),
    ...(fields.name !== undefined && { name: parseField(Name, fields.name, "name") }),
  };
}

/** The graph first, its external data after it. Throws `invalid_model` when it is not clear which file is the graph. */
function graphFirst(files: readonly CatalogFile[]): readonly CatalogFile[] {
  if (files.length === 1) return files;
  const graphs = files.filter((file) => /\.onnx$/i.test(file.name));
  if (graphs.length !== 1) {
    const found = graphs.length === 0 ? "none is" : `${graphs.map((file) => file.name).join(" and ")} are`;
    throw new ServiceError("invalid_model", `Of several files exactly one must be named .onnx; ${found}.`);
  }
  return [graphs[0]!, ...files.filter((file) => file !== graphs[0])];
}

function modelOf(record: ModelRecord, facts: ModelFacts = record.facts) {
  const { id, name, created_at, sha256, size_bytes, derived_from, metadata } = record;
  const files = record.files.map((file) => ({ name: file.name, size_bytes: file.size_bytes, sha256: file.sha256 }));
  return {
    ...{ id, object: "model", name, created_at, sha256, size_bytes, files },
    ...facts,
    // Models of earlier versions were not looked into.
    ...{ non_finite_weights: facts.non_finite_weights ?? [], warnings: modelWarnings(facts) },
    ...{ derived_from, metadata },
  };
}

function modelSummaryOf(summary: ModelSummary) {
  return { object: "model", ...summary };
}
