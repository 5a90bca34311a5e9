import { z } from "zod";
import { IDEMPOTENCY_KEY } from "./idempotent.ts";
import { defineOperation } from "./operation.ts";

/** The operations of resumable uploads, as the API's document says them: tus 1.0 with creation, expiration and termination. */

export const UPLOADS_PATH = "/v1/uploads";
export const CHUNK_MEDIA_TYPE = "application/offset+octet-stream";

const TUS_REQUEST = z.object({ "tus-resumable": z.string().optional().meta({ description: "`1.0.0`" }) });
const TUS_RESPONSE = { "Tus-Resumable": "`1.0.0`" };
const params = z.object({ upload_id: z.string() });
const common = { tag: "Uploads", access: "write", headers: TUS_REQUEST } as const;

const getUploadOptions = defineOperation({
  ...common,
  id: "getUploadOptions",
  method: "OPTIONS",
  path: UPLOADS_PATH,
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
  path: UPLOADS_PATH,
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
  path: `${UPLOADS_PATH}/{upload_id}`,
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
  path: `${UPLOADS_PATH}/{upload_id}`,
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
  path: `${UPLOADS_PATH}/{upload_id}`,
  params,
  summary: "Throw an upload away",
  description: "Uploads that nobody uses are thrown away by themselves when they expire.",
  responses: { 204: { description: "It is gone.", headers: TUS_RESPONSE } },
  problems: ["not_found", "precondition_failed"],
});

export const UPLOAD_OPERATIONS = [getUploadOptions, createUpload, getUploadOffset, appendUpload, deleteUpload];
