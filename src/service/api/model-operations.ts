import { z } from "zod";
import { Dims, LayerList, Model, ModelFromUploads, ModelPage, ModelParams, Name, PartQuery } from "../schemas.ts";
import { RecordsQuery, Renaming } from "./describe.ts";
import { DIGEST_HEADER, DOWNLOAD_HEADERS, DownloadHeaders } from "./download.ts";
import * as examples from "./examples.ts";
import { IdempotencyHeaders } from "./idempotent.ts";
import { defineOperation } from "./operation.ts";

/** The operations on models, as data; `models.ts` does them. */

export const MODEL_UPLOAD_PROBLEMS = [
  "too_large",
  "unsupported_media_type",
  "request_timeout",
  "invalid_model",
  "unsupported",
  "limit_exceeded",
  "timeout",
  "out_of_memory",
  "worker_crashed",
] as const;

export const ADDED_MODEL = {
  200: {
    description: "These bytes are a model already.",
    content: { "application/json": Model },
    example: examples.model,
  },
  201: {
    description: "The model was added.",
    content: { "application/json": Model },
    headers: { Location: "Path of the model." },
    links: { getModel: { model_id: "id" }, listModelLayers: { model_id: "id" }, deleteModel: { model_id: "id" } },
    example: examples.model,
  },
};

export const createModel = defineOperation({
  id: "createModel",
  method: "POST",
  path: "/v1/models",
  tag: "Models",
  summary: "Upload a model",
  description:
    "Sends an ONNX model as a form: one part named `file` for each file; the filename of external data is the " +
    "`location` that the model names. It is loaded once in the runtime before it is accepted. The same bytes again " +
    "answer 200 with the model that is there already, unless they come with another `name` or other `metadata`, or from " +
    "another key: then they are a model of their own. For the command line the raw bytes of one `.onnx` are taken as " +
    "well, as `application/octet-stream`, with `?name=`.",
  access: "write",
  headers: IdempotencyHeaders,
  query: z.strictObject({ name: Name.optional().meta({ curlOnly: true }) }),
  stream: {
    mediaType: "multipart/form-data",
    schema: z
      .object({
        file: z.array(z.file()).meta({ description: "Once for each file of the model." }),
        name: Name.optional(),
        metadata: z.string().optional().meta({ description: "A JSON object of strings, as in `Metadata`." }),
      })
      .meta({ id: "ModelForm" }),
  },
  responses: ADDED_MODEL,
  problems: [...MODEL_UPLOAD_PROBLEMS, "validation_failed", "idempotency_conflict", "conflict"],
});

export const createModelFromUploads = defineOperation({
  id: "createModelFromUploads",
  method: "POST",
  path: "/v1/models/from-uploads",
  tag: "Models",
  summary: "Make a model of resumable uploads",
  description:
    "As `createModel`, for files that were sent by `createUpload` and `appendUpload`: they are named, with the " +
    "filename that each has in the model, and used up.",
  access: "write",
  headers: IdempotencyHeaders,
  body: ModelFromUploads,
  responses: ADDED_MODEL,
  problems: [...MODEL_UPLOAD_PROBLEMS, "validation_failed", "idempotency_conflict", "conflict"],
  examples: { uploaded: examples.modelFromUploads },
});

export const listModels = defineOperation({
  id: "listModels",
  method: "GET",
  path: "/v1/models",
  tag: "Models",
  summary: "List models",
  description:
    "Page by page: `next_cursor` of one page is the `cursor` of the next. Filters narrow it down together; a page may be short, or empty, " +
    "although there is a next one: a request looks through 10,000 records at the most.",
  access: "read",
  query: RecordsQuery,
  responses: {
    200: {
      description: "Newest first.",
      content: { "application/json": ModelPage },
      example: { data: [examples.modelSummary], next_cursor: null },
    },
  },
  problems: ["validation_failed"],
});

export const getModel = defineOperation({
  id: "getModel",
  method: "GET",
  path: "/v1/models/{model_id}",
  tag: "Models",
  summary: "Get a model",
  description: "What is known of it: inputs and outputs, operators, weights, whether it can be trained.",
  access: "read",
  params: ModelParams,
  query: z.strictObject({ dims: Dims.optional() }),
  responses: { 200: { description: "The model.", content: { "application/json": Model }, example: examples.model } },
  problems: ["not_found", "validation_failed", "timeout", "out_of_memory", "worker_crashed", "invalid_model"],
});

export const downloadModel = defineOperation({
  id: "downloadModel",
  method: "GET",
  path: "/v1/models/{model_id}/content",
  tag: "Models",
  summary: "Download a model",
  description:
    "The `.onnx`; a `.tar` of all files when the model has external data (then without `Repr-Digest`): the file's name " +
    "in `Content-Disposition` tells which.",
  access: "read",
  params: ModelParams,
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
      headers: { ...DOWNLOAD_HEADERS, "Content-Range": "Which bytes these are." },
    },
    304: { description: "The bytes are the ones that If-None-Match names." },
  },
  problems: ["not_found", "range_not_satisfiable"],
});

export const listModelLayers = defineOperation({
  id: "listModelLayers",
  method: "GET",
  path: "/v1/models/{model_id}/layers",
  tag: "Models",
  summary: "List a model's layers",
  description: "One row for each node that holds weights.",
  access: "read",
  params: ModelParams,
  query: PartQuery,
  responses: {
    200: {
      description: "In the order of the graph.",
      content: { "application/json": LayerList },
      example: { data: [examples.layer], next_cursor: null },
    },
  },
  problems: ["not_found", "validation_failed", "timeout", "out_of_memory", "worker_crashed", "invalid_model"],
});

export const renameModel = defineOperation({
  id: "renameModel",
  method: "PATCH",
  path: "/v1/models/{model_id}",
  tag: "Models",
  summary: "Change what a model is called",
  description: "Its name, its metadata, or both. Jobs that have used it, and their reports, keep the name that it had.",
  access: "write",
  params: ModelParams,
  body: Renaming,
  responses: {
    200: {
      description: "The model, as it is called now.",
      content: { "application/json": Model },
      example: examples.model,
    },
  },
  problems: ["not_found", "validation_failed", "unsupported_media_type", "too_large"],
  examples: { renamed: examples.renaming },
});

export const deleteModel = defineOperation({
  id: "deleteModel",
  method: "DELETE",
  path: "/v1/models/{model_id}",
  tag: "Models",
  summary: "Delete a model",
  description:
    "Jobs that it was made by, and models that were made of it, stay. A model that a job is using stays, too (409).",
  access: "write",
  params: ModelParams,
  responses: { 204: { description: "The model is gone." } },
  problems: ["not_found", "conflict"],
});

export const MODEL_OPERATIONS = [
  createModel,
  createModelFromUploads,
  listModels,
  getModel,
  downloadModel,
  listModelLayers,
  renameModel,
  deleteModel,
];
