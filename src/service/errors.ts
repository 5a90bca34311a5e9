import type { FieldCode } from "./field-codes.ts";

/**
 * Every refusal the service itself makes. The table is the one place that ties a code to its HTTP status, its title, what causes it and what to do about it;
 * `code` is part of the contract (`design/api.md` of the HTTP API: stable snake_case strings).
 */
export const PROBLEMS = {
  invalid_request: {
    status: 400,
    title: "The request is malformed",
    cause: "A body that is no JSON, a header that cannot be read, a cursor of another list.",
    remedy: "Read `detail`: the body is no JSON, a header is wrong, or a cursor is not from an earlier page.",
  },
  unauthorized: {
    status: 401,
    title: "A valid API key is required",
    cause: "No key, or one that is not known.",
    remedy: "Send `Authorization: Bearer <key>` with a key of the service.",
  },
  forbidden: {
    status: 403,
    title: "This key may not do that",
    cause: "A key without the scope of the operation.",
    remedy: "Use a key with the scope that `detail` names.",
  },
  invalid_link: {
    status: 403,
    title: "This link does not open the file, or not any more",
    cause: "A signed link that has expired, was changed, or whose job is gone.",
    remedy: "Ask who gave it to you for a new one (`POST /v1/jobs/{job_id}/links`).",
  },
  not_found: {
    status: 404,
    title: "No such resource",
    cause: "An id that never was, or whose resource is gone.",
    remedy: "Check the id: it was deleted, expired, or belongs to another service.",
  },
  method_not_allowed: {
    status: 405,
    title: "Method not allowed",
    cause: "A method that the path does not have.",
    remedy: "`Allow` lists the methods of the path.",
  },
  request_timeout: {
    status: 408,
    title: "The upload was too slow",
    cause: "An upload slower than the least pace.",
    remedy: "Send it again on a faster connection, or as a resumable upload.",
  },
  conflict: {
    status: 409,
    title: "The resource is in use or in the wrong state",
    cause: "Deleting what a job uses, cancelling what has ended, two writers of one upload.",
    remedy: "Wait for what uses it, or cancel that; `detail` names it.",
  },
  idempotency_conflict: {
    status: 422,
    title: "This Idempotency-Key was used for another request",
    cause: "The same key with another body or path.",
    remedy: "Use a new key for another request.",
  },
  precondition_failed: {
    status: 412,
    title: "A precondition of the request does not hold",
    cause: "`If-Match` with an older state; an upload at another offset.",
    remedy: "Ask for the present state and decide again.",
  },
  too_large: {
    status: 413,
    title: "The upload is too large",
    cause: "A body above `MAX_UPLOAD_BYTES`, or a JSON body above its limit.",
    remedy: "Send less, or have `MAX_UPLOAD_BYTES` raised.",
  },
  unsupported_media_type: {
    status: 415,
    title: "Unsupported media type",
    cause: "JSON where a file is sent, or a compression that is not known.",
    remedy: "Use a media type that the operation lists.",
  },
  source_failed: {
    status: 422,
    title: "The source could not be fetched",
    cause:
      "A file that is not at its address, a host that does not answer, or sends less than it says; an object that S3 refuses.",
    remedy:
      "`detail` says what its host, or S3, answered. Check the address, and whether a presigned one has expired; for `AccessDenied` ask the operator.",
  },
  range_not_satisfiable: {
    status: 416,
    title: "Range not satisfiable",
    cause: "A `Range` behind the end of the file.",
    remedy: "Ask for bytes that the file has; `Content-Range` says how many there are.",
  },
  validation_failed: {
    status: 422,
    title: "The request has invalid fields",
    cause: "Fields of a wrong type or value, names that nothing has, models and data that do not fit.",
    remedy: "`errors` has each wrong field with a pointer; correct all of them.",
  },
  invalid_model: {
    status: 422,
    title: "The model cannot be used",
    cause: "A file that is no ONNX model, or that onnxruntime does not load or run.",
    remedy: "`detail` names the node or tensor. Export the model again; check it with `onnx.checker`.",
  },
  invalid_dataset: {
    status: 422,
    title: "The dataset cannot be used",
    cause: "A file that is not of its format, or samples that the model does not run on.",
    remedy: "`detail` says which field or sample is wrong, or does not fit the model.",
  },
  invalid_params: {
    status: 422,
    title: "The job cannot run as asked",
    cause: "Settings that the model or the data do not allow, found when the job was planned or run.",
    remedy: "Change what `errors` points at: the model or data do not allow it.",
  },
  unsupported: {
    status: 422,
    title: "Not supported",
    cause: "A model or file in a form that is not handled.",
    remedy: "Choose another method, or leave out the node that `detail` names.",
  },
  limit_exceeded: {
    status: 422,
    title: "A limit was exceeded",
    cause: "More nodes, samples, bytes or depth than the limits allow.",
    remedy: "Make the model or the file smaller, or have the limit raised.",
  },
  rate_limited: {
    status: 429,
    title: "Too many requests",
    cause: "More requests a minute than `RATE_LIMIT_PER_MINUTE`.",
    remedy: "Wait for the seconds of `Retry-After`.",
  },
  quota_exceeded: {
    status: 429,
    title: "Too many queued jobs",
    cause: "More queued jobs than the key may have.",
    remedy: "Wait until jobs have ended, or cancel some.",
  },
  headers_too_large: {
    status: 431,
    title: "The request's headers are too large",
    cause: "Headers above 16 KB.",
    remedy: "Send shorter headers.",
  },
  internal: {
    status: 500,
    title: "Internal error",
    cause: "A fault of the service.",
    remedy: "Not your fault: report it with the `request_id`.",
  },
  unavailable: {
    status: 503,
    title: "A dependency is not available",
    cause: "Redis or the store away or full, no free worker for a question.",
    remedy: "Try again after `Retry-After`; the operator sees at `/readyz` what is missing.",
  },
  // How jobs (and inspections) end when it is not the fault of their input. They reach HTTP inside a job's `error`,
  // or as the answer to an upload whose inspection ended so.
  non_finite: {
    status: 422,
    title: "The numbers left the finite range",
    cause: "A result with NaN or infinity where the original gives numbers; a loss that diverged.",
    remedy:
      "Leave in float what overflows (`exclude_nodes`), use another method, or take NaN and infinity out of the data.",
  },
  timeout: {
    status: 422,
    title: "The work took longer than its limit",
    cause: "A large model, many samples or trials, a slow machine.",
    remedy: "Give fewer samples, epochs or trials, or have `JOB_TIMEOUT_MS` raised.",
  },
  out_of_memory: {
    status: 422,
    title: "The work needed more memory than its limit",
    cause: "A model or batch too large for `JOB_MEMORY_BYTES` or `INSPECT_MEMORY_BYTES`.",
    remedy: "Use a smaller batch or fewer samples, or have `JOB_MEMORY_BYTES` raised.",
  },
  worker_crashed: {
    status: 422,
    title: "The model crashed the runtime",
    cause: "A model that makes onnxruntime end the process.",
    remedy:
      "Twice is no chance: the model crashes the runtime. Leave out the nodes that `detail` names, or export anew.",
  },
  expired: {
    status: 422,
    title: "The job waited in the queue for too long",
    cause: "A queue that was too long for `QUEUE_TIMEOUT_MS`.",
    remedy: "Post it again when there is less to do, or have `QUEUE_TIMEOUT_MS` raised.",
  },
  cancelled: {
    status: 409,
    title: "The work was cancelled",
    cause: "`POST /v1/jobs/{id}/cancel`.",
    remedy: "Nothing; `retry` starts it anew.",
  },
} as const satisfies Record<string, { status: number; title: string; cause: string; remedy: string }>;

export type ProblemCode = keyof typeof PROBLEMS;

/** The `type` of a problem: an identifier, not an address. */
export function problemType(code: ProblemCode): string {
  return `urn:modelpress:problem:${code}`;
}

/** One wrong field: `pointer` is an RFC 6901 JSON pointer into the body, or `#/query/…`, `#/path/…`, `#/headers/…`. */
export interface FieldError {
  readonly pointer: string;
  readonly code: FieldCode;
  readonly message: string;
}

/** The pointer to what is at `path` below `prefix`. */
export function pointerOf(prefix: string, path: readonly PropertyKey[]): string {
  return prefix + path.map((key) => `/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");
}

export class ServiceError extends Error {
  override readonly name = "ServiceError";
  readonly code: ProblemCode;
  readonly fields: readonly FieldError[] | undefined;
  readonly retryAfterSeconds: number | undefined;

  constructor(
    code: ProblemCode,
    message: string,
    options: ErrorOptions & { fields?: readonly FieldError[]; retryAfterSeconds?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.fields = options.fields;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}
