import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { ROW_FORMATS, ROW_KINDS } from "../../core/contract.ts";
import { INLINE_BYTES } from "../blobs/long-texts.ts";
import { type CatalogFile, type DatasetRecord, type DatasetSummary, newId } from "../catalog.ts";
import { DATASET_FORMATS, DatasetSpec, specMismatch } from "../dataset-spec.ts";
import { ServiceError } from "../errors.ts";
import { datasetContent, uploadIdentity } from "../identity.ts";
import { partOf } from "../pages.ts";
import {
  Dataset,
  DatasetClassPage,
  DatasetFromUploads,
  DatasetPage,
  DatasetParams,
  Metadata,
  Name,
  PartQuery,
} from "../schemas.ts";
import { askerOf, UNTIL_IT_ENDS } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import { filterOf, RecordsQuery, Renaming, renamed } from "./describe.ts";
import { blobDownload, DIGEST_HEADER, DOWNLOAD_HEADERS, DownloadHeaders, sendDownload } from "./download.ts";
import { earlierUpload } from "./earlier-upload.ts";
import * as examples from "./examples.ts";
import { IdempotencyHeaders, type Made, madeOnce, repeatableOf } from "./idempotent.ts";
import type { Asker } from "./inspection-lane.ts";
import type { Inspector } from "./inspector.ts";
import { defineOperation, route } from "./operation.ts";
import type { FinishedUploads } from "./resumable-uploads.ts";
import {
  checkFieldNames,
  type Intake,
  invalidField,
  parseField,
  parseJsonField,
  takeUpload,
  withClaims,
} from "./upload-intake.ts";

/** What can be read, by the suffix of the file's name. */
export const DATASET_SUFFIXES = Object.keys(DATASET_FORMATS);

export const ADDED_DATASET = {
  200: {
    description: "This file is a dataset already.",
    content: { "application/json": Dataset },
    example: examples.dataset,
  },
  201: {
    description: "The dataset was added.",
    content: { "application/json": Dataset },
    headers: { Location: "Path of the dataset." },
    links: { getDataset: { dataset_id: "id" }, deleteDataset: { dataset_id: "id" } },
    example: examples.dataset,
  },
};

export const DATASET_UPLOAD_PROBLEMS = [
  "too_large",
  "unsupported_media_type",
  "request_timeout",
  "invalid_dataset",
  "unsupported",
  "limit_exceeded",
  "timeout",
  "out_of_memory",
  "worker_crashed",
  "validation_failed",
  "idempotency_conflict",
  "conflict",
] as const;

const createDataset = defineOperation({
  id: "createDataset",
  method: "POST",
  path: "/v1/datasets",
  tag: "Datasets",
  summary: "Upload a dataset",
  description:
    "`.npz` and `.safetensors`: arrays named after the model's inputs, first axis = samples, optionally `labels`. " +
    "The other formats need a `spec`, which says what feeds which input: `.npy` (one array), `.zip` (images, in a " +
    `folder for each class), ${[".csv", ...ROW_KINDS.map((kind) => ROW_FORMATS[kind].suffix)].map((suffix) => `\`${suffix}\``).join(", ")} (a row or line for each sample). ` +
    "Arrays of objects are refused. " +
    "The same file with the same spec answers 200 with the dataset that is there already, unless it comes with another " +
    "`name` or other `metadata`, or from another key. For the command line the raw " +
    "bytes are taken as well, as `application/octet-stream`, with `?name=` (a file name, whose suffix tells the " +
    "format) and `?spec=`.",
  access: "write",
  headers: IdempotencyHeaders,
  query: z.strictObject({
    name: Name.optional().meta({ curlOnly: true }),
    spec: z.string().max(8192).optional().meta({ curlOnly: true }),
  }),
  stream: {
    mediaType: "multipart/form-data",
    schema: z
      .object({
        file: z.file(),
        name: Name.optional(),
        spec: z.string().optional().meta({ description: "JSON, as in `DatasetSpec`." }),
        metadata: z.string().optional().meta({ description: "A JSON object of strings, as in `Metadata`." }),
      })
      .meta({ id: "DatasetForm" }),
  },
  responses: ADDED_DATASET,
  problems: DATASET_UPLOAD_PROBLEMS,
});

const createDatasetFromUploads = defineOperation({
  id: "createDatasetFromUploads",
  method: "POST",
  path: "/v1/datasets/from-uploads",
  tag: "Datasets",
  summary: "Make a dataset of a resumable upload",
  description:
    "As `createDataset`, for a file that was sent by `createUpload` and `appendUpload`: it is named and used up. The " +
    "suffix of `filename` tells the format.",
  access: "write",
  headers: IdempotencyHeaders,
  body: DatasetFromUploads,
  responses: ADDED_DATASET,
  problems: DATASET_UPLOAD_PROBLEMS,
  examples: examples.datasetFromUploads,
});

const listDatasets = defineOperation({
  id: "listDatasets",
  method: "GET",
  path: "/v1/datasets",
  tag: "Datasets",
  summary: "List datasets",
  description:
    "Page by page: `next_cursor` of one page is the `cursor` of the next. Filters narrow it down together; a page may be short, or empty, " +
    "although there is a next one: a request looks through 10,000 records at the most.",
  access: "read",
  query: RecordsQuery,
  responses: {
    200: {
      description: "Newest first.",
      content: { "application/json": DatasetPage },
      example: { data: [examples.datasetSummary], next_cursor: null },
    },
  },
  problems: ["validation_failed"],
});

const getDataset = defineOperation({
  id: "getDataset",
  method: "GET",
  path: "/v1/datasets/{dataset_id}",
  tag: "Datasets",
  summary: "Get a dataset",
  description: "What is known of it: its fields, what their values are like, and what the labels are.",
  access: "read",
  params: DatasetParams,
  responses: {
    200: { description: "The dataset.", content: { "application/json": Dataset }, example: examples.dataset },
  },
  problems: ["not_found"],
});

const listDatasetClasses = defineOperation({
  id: "listDatasetClasses",
  method: "GET",
  path: "/v1/datasets/{dataset_id}/classes",
  tag: "Datasets",
  summary: "List a dataset's classes",
  description:
    "The names that the labels are numbers of, in the order of the numbers; none where labels have no names.",
  access: "read",
  params: DatasetParams,
  query: PartQuery,
  responses: {
    200: {
      description: "Class 0 first.",
      content: { "application/json": DatasetClassPage },
      example: { data: ["cat", "dog"], next_cursor: null },
    },
  },
  problems: ["not_found", "validation_failed"],
});

const downloadDataset = defineOperation({
  id: "downloadDataset",
  method: "GET",
  path: "/v1/datasets/{dataset_id}/content",
  tag: "Datasets",
  summary: "Download a dataset",
  description: "The file as it was sent.",
  access: "read",
  params: DatasetParams,
  headers: DownloadHeaders,
  responses: {
    200: {
      description: "All bytes.",
      content: { "application/octet-stream": null },
      headers: { ...DOWNLOAD_HEADERS, ...DIGEST_HEADER },
    },
    206: {
      description: "The bytes that Range asks for.",
      content: { "application/octet-stream": null },
      headers: { ...DOWNLOAD_HEADERS, ...DIGEST_HEADER, "Content-Range": "Which bytes these are." },
    },
    304: { description: "The bytes are the ones that If-None-Match names." },
  },
  problems: ["not_found", "range_not_satisfiable"],
});

const renameDataset = defineOperation({
  id: "renameDataset",
  method: "PATCH",
  path: "/v1/datasets/{dataset_id}",
  tag: "Datasets",
  summary: "Change what a dataset is called",
  description: "Its name, its metadata, or both. Jobs that have used it, and their reports, keep the name that it had.",
  access: "write",
  params: DatasetParams,
  body: Renaming,
  responses: {
    200: {
      description: "The dataset, as it is called now.",
      content: { "application/json": Dataset },
      example: examples.dataset,
    },
  },
  problems: ["not_found", "validation_failed", "unsupported_media_type", "too_large"],
  examples: { renamed: examples.renaming },
});

const deleteDataset = defineOperation({
  id: "deleteDataset",
  method: "DELETE",
  path: "/v1/datasets/{dataset_id}",
  tag: "Datasets",
  summary: "Delete a dataset",
  description: "A dataset that a job is using stays (409).",
  access: "write",
  params: DatasetParams,
  responses: { 204: { description: "The dataset is gone." } },
  problems: ["not_found", "conflict"],
});

export const DATASET_OPERATIONS = [
  createDataset,
  createDatasetFromUploads,
  listDatasets,
  getDataset,
  listDatasetClasses,
  downloadDataset,
  renameDataset,
  deleteDataset,
];

/** How other operations add datasets whose files they have stored. */
export interface DatasetIntake {
  /** Adds the dataset whose files \`take\` stores for the id it is given. */
  add(request: FastifyRequest, asker: Asker, take: (id: string) => Promise<TakenDataset>): Promise<Made<DatasetRecord>>;
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
    const added = await add(request, askerOf(request, reply), async (id) =>
      formOf(
        await takeUpload(context, request, id, { rawName: query.name ?? "dataset", checkName: suffixOf }),
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
  function add(request: FastifyRequest, asker: Asker, take: (id: string) => Promise<TakenDataset>) {
    const id = newId("dst");
    return withClaims(context, request, id, async () => {
      const { files, name, spec, metadata } = await take(id);
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
          const facts = earlier.facts ?? (await inspector.dataset(asker, file, spec ?? null));
          const told = {
            name: name ?? file.name.slice(0, -suffix.length).slice(0, 200),
            metadata: metadata ?? {},
          };
          return catalog.datasets.add({
            ...{ id, ...told, content, owner, identity: uploadIdentity(content, owner, told) },
            created_at: new Date().toISOString(),
            file,
            spec: spec ?? null,
            facts,
          });
        },
      );
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
