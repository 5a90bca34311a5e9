import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import { INLINE_BYTES } from "../blobs/long-texts.ts";
import { type CatalogFile, type DatasetRecord, type DatasetSummary, newId } from "../catalog.ts";
import { DATASET_FORMATS, DatasetSpec, specMismatch } from "../dataset-spec.ts";
import { ServiceError } from "../errors.ts";
import { datasetContent, uploadIdentity } from "../identity.ts";
import { partOf } from "../pages.ts";
import { Metadata, Name } from "../schemas.ts";
import { askerOf, UNTIL_IT_ENDS } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import {
  createDataset,
  createDatasetFromUploads,
  deleteDataset,
  downloadDataset,
  getDataset,
  listDatasetClasses,
  listDatasets,
  renameDataset,
} from "./dataset-operations.ts";
import { filterOf, renamed } from "./describe.ts";
import { blobDownload, sendDownload } from "./download.ts";
import { earlierUpload } from "./earlier-upload.ts";
import { type Made, madeOnce, repeatableOf } from "./idempotent.ts";
import type { Asker } from "./inspection-lane.ts";
import type { Inspector } from "./inspector.ts";
import { route } from "./operation.ts";
import type { FinishedUploads } from "./resumable-uploads.ts";
import {
  checkFieldNames,
  type Intake,
  invalidField,
  parseField,
  parseJsonField,
  type Take,
  takeUpload,
  withClaims,
} from "./upload-intake.ts";

/** What can be read, by the suffix of the file's name. */
export const DATASET_SUFFIXES = Object.keys(DATASET_FORMATS);

/** How other operations add datasets whose files they have stored. */
export interface DatasetIntake {
  /** Adds the dataset whose files `take` stores for the id it is given. */
  add(request: FastifyRequest, asker: Asker, take: Take<TakenDataset>): Promise<Made<DatasetRecord>>;
  answer(reply: FastifyReply, made: Made<DatasetRecord>): unknown;
}

export function registerDatasets(
  app: FastifyInstance,
  context: ApiContext,
  inspector: Inspector,
  finishedUploads: FinishedUploads,
): DatasetIntake {
  const { catalog, jobs, blobs } = context;

  route(app, createDataset, async ({ query }, request, reply) => {
    if (query.spec !== undefined && request.isMultipart())
      throw invalidField("#/query/spec", "misplaced", "goes into the body");
    const added = await add(request, askerOf(request, reply), async (_id, storing) =>
      formOf(
        await takeUpload(context, request, { rawName: query.name ?? "dataset", storing, checkName: suffixOf }),
        query.spec === undefined ? {} : { spec: query.spec },
      ),
    );
    return answerAdded(reply, added);
  });

  route(app, createDatasetFromUploads, async ({ body }, request, reply) => {
    const { uploads: references, name, spec, metadata } = body;
    const asker = askerOf(request, reply);
    const added = await finishedUploads.use(
      { references, owner: request.caller!.name, request: ["dataset", body], signal: asker.signal },
      catalog.datasets.get,
      (take) =>
        add(request, { ...asker, signal: UNTIL_IT_ENDS }, async (id) => ({
          files: await take(id),
          name,
          spec,
          metadata,
        })),
    );
    return answerAdded(reply, added);
  });

  /** Adds the dataset whose file `take` stores for the id it is given. */
  function add(request: FastifyRequest, asker: Asker, take: Take<TakenDataset>) {
    const id = newId("dst");
    return withClaims(context, request, id, async (storing) => {
      const { files, name, spec, metadata } = await take(id, storing);
      const file = onlyFile(files);
      const suffix = suffixOf(file.name);
      const mismatch = specMismatch(suffix, spec);
      if (mismatch !== undefined) throw invalidField("/spec", "spec_mismatch", mismatch);
      const content = datasetContent(file.sha256, suffix, spec ?? null);
      const made = await madeOnce(
        context,
        { ...repeatableOf(request), request: ["dataset", content, name ?? null, metadata ?? {}], id },
        catalog.datasets.get,
        async () => {
          const owner = request.caller!.name;
          const earlier = await earlierUpload(catalog.datasets, content, { owner, name, metadata });
          if (earlier.record !== undefined) return { record: earlier.record, created: false };
          const facts = earlier.facts ?? (await inspector.dataset(asker, file, spec ?? null, storing.copy));
          const told = {
            name: name ?? file.name.slice(0, -suffix.length).slice(0, 200),
            metadata: metadata ?? {},
          };
          await storing.stored();
          return catalog.datasets.add({
            ...{ id, ...told, content, owner, identity: uploadIdentity(content, owner, told) },
            created_at: new Date().toISOString(),
            file,
            spec: spec ?? null,
            facts,
          });
        },
      );
      await storing.stored();
      if (made.record.id !== id) await context.claims.release(id);
      return made;
    });
  }

  async function datasetById(id: string): Promise<DatasetRecord> {
    const record = await catalog.datasets.get(id);
    if (record === undefined) throw new ServiceError("not_found", `There is no dataset ${id}.`);
    return record;
  }

  route(app, listDatasets, async ({ query }) => {
    const { limit, cursor } = query;
    const page = await catalog.datasets.list({
      limit,
      filter: filterOf(query),
      ...(cursor !== undefined && { cursor }),
    });
    return { ...page, data: page.data.map(datasetSummaryOf) };
  });

  route(app, getDataset, async ({ params }) => datasetOf(await datasetById(params.dataset_id)));

  route(app, listDatasetClasses, async ({ params, query }) => {
    const { facts } = await datasetById(params.dataset_id);
    return partOf(facts.classes ?? [], query);
  });

  route(app, downloadDataset, async ({ params }, request, reply) => {
    const { file } = await datasetById(params.dataset_id);
    const look = { filename: file.name, mediaType: "application/octet-stream" };
    return sendDownload(request, reply, blobDownload(blobs, file, look));
  });

  route(app, renameDataset, async ({ params, body }) => {
    const record = await datasetById(params.dataset_id);
    const told = renamed(record, body);
    const { content = record.identity, owner } = record;
    const identity = owner === undefined ? record.identity : uploadIdentity(content, owner, told);
    const changed = await catalog.datasets.rename(record.id, told, identity);
    if (changed === undefined) throw new ServiceError("not_found", `There is no dataset ${record.id}.`);
    return datasetOf(changed);
  });

  route(app, deleteDataset, async ({ params }, _request, reply) => {
    const users = await jobs.activeUsers(params.dataset_id);
    if (users.length > 0) throw new ServiceError("conflict", `The dataset is in use by ${users.join(", ")}.`);
    if (!(await catalog.datasets.remove(params.dataset_id))) {
      throw new ServiceError("not_found", `There is no dataset ${params.dataset_id}.`);
    }
    return reply.code(204).send();
  });

  return { add, answer: answerAdded };
}

function answerAdded(reply: FastifyReply, { record, created }: { record: DatasetRecord; created: boolean }) {
  if (created) reply.code(201).header("location", `/v1/datasets/${record.id}`);
  return datasetOf(record);
}

interface TakenDataset {
  readonly files: readonly CatalogFile[];
  readonly name: string | undefined;
  readonly spec: z.output<typeof DatasetSpec> | undefined;
  readonly metadata: Readonly<Record<string, string>> | undefined;
}

/** `raw` has the fields of a body without any. */
function formOf({ files, fields: sent }: Intake, raw: Intake["fields"]): TakenDataset {
  const fields = { ...raw, ...sent };
  checkFieldNames(fields, ["name", "spec", "metadata"]);
  return {
    files,
    name: fields.name === undefined ? undefined : parseField(Name, fields.name, "name"),
    spec: parseJsonField(DatasetSpec, fields, "spec"),
    metadata: parseJsonField(Metadata, fields, "metadata"),
  };
}

function onlyFile(files: readonly CatalogFile[]): CatalogFile {
  if (files.length === 1) return files[0]!;
  throw new ServiceError("invalid_dataset", `A dataset is one file; there are ${files.length}.`);
}

/** Throws `unsupported_media_type` for a file that no reader is for. */
export function suffixOf(filename: string): string {
  const suffix = DATASET_SUFFIXES.find(
    (known) => filename.toLowerCase().endsWith(known) && filename.length > known.length,
  );
  if (suffix !== undefined) return suffix;
  const known = DATASET_SUFFIXES.join(", ");
  throw new ServiceError(
    "unsupported_media_type",
    `A dataset's file name must end in one of ${known}; this is ${filename}.`,
  );
}

function datasetOf({ id, name, created_at, file, facts, metadata }: DatasetRecord) {
  const { sha256, size_bytes } = file;
  const { samples, fields, has_labels, classes, labels = null, warnings = [] } = facts;
  const areShort = Buffer.byteLength(JSON.stringify(classes)) <= INLINE_BYTES;
  return {
    ...{ id, object: "dataset", name, created_at, size_bytes, sha256, samples },
    fields: fields.map((field) => ({ content: null, ...field })),
    ...{ has_labels, classes: areShort ? classes : null, class_count: classes?.length ?? null },
    ...{ labels, warnings, metadata },
  };
}

function datasetSummaryOf(summary: DatasetSummary) {
  return { object: "dataset", ...summary };
}
