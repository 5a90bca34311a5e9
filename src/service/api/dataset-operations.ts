import { z } from "zod";
import { ROW_FORMATS, ROW_KINDS } from "../../core/contract.ts";
import {
  Dataset,
  DatasetClassPage,
  DatasetFromUploads,
  DatasetPage,
  DatasetParams,
  Name,
  PartQuery,
} from "../schemas.ts";
import { RecordsQuery, Renaming } from "./describe.ts";
import { DIGEST_HEADER, DOWNLOAD_HEADERS, DownloadHeaders } from "./download.ts";
import * as examples from "./examples.ts";
import { IdempotencyHeaders } from "./idempotent.ts";
import { defineOperation } from "./operation.ts";

/** The operations on datasets, as data; `datasets.ts` does them. */

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

export const createDataset = defineOperation({
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

export const createDatasetFromUploads = defineOperation({
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

export const listDatasets = defineOperation({
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

export const getDataset = defineOperation({
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

export const listDatasetClasses = defineOperation({
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

export const downloadDataset = defineOperation({
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

export const renameDataset = defineOperation({
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

export const deleteDataset = defineOperation({
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
