/**
 * Every refusal the service itself makes. The table is the one place that ties a code to its HTTP status and title;
 * `code` is part of the contract (`design/api.md` of the HTTP API: stable snake_case strings).
 */
export const PROBLEMS = {
  invalid_request: { status: 400, title: "The request is malformed" },
  unauthorized: { status: 401, title: "A valid API key is required" },
  forbidden: { status: 403, title: "This key may not do that" },
  not_found: { status: 404, title: "No such resource" },
  method_not_allowed: { status: 405, title: "Method not allowed" },
  request_timeout: { status: 408, title: "The upload was too slow" },
  conflict: { status: 409, title: "The resource is in use or in the wrong state" },
  idempotency_conflict: { status: 422, title: "This Idempotency-Key was used for another request" },
  precondition_failed: { status: 412, title: "A precondition of the request does not hold" },
  too_large: { status: 413, title: "The upload is too large" },
  unsupported_media_type: { status: 415, title: "Unsupported media type" },
  range_not_satisfiable: { status: 416, title: "Range not satisfiable" },
  validation_failed: { status: 422, title: "The request has invalid fields" },
  invalid_model: { status: 422, title: "The model cannot be used" },
  invalid_dataset: { status: 422, title: "The dataset cannot be used" },
  invalid_params: { status: 422, title: "The job cannot run as asked" },
  unsupported: { status: 422, title: "Not supported" },
  limit_exceeded: { status: 422, title: "A limit was exceeded" },
  rate_limited: { status: 429, title: "Too many requests" },
  quota_exceeded: { status: 429, title: "Too many queued jobs" },
  headers_too_large: { status: 431, title: "The request's headers are too large" },
  internal: { status: 500, title: "Internal error" },
  unavailable: { status: 503, title: "A dependency is not available" },
  // How jobs (and inspections) end when it is not the fault of their input. They reach HTTP inside a job's `error`,
  // or as the answer to an upload whose inspection ended so.
  non_finite: { status: 422, title: "The numbers left the finite range" },
  timeout: { status: 422, title: "The work took longer than its limit" },
  out_of_memory: { status: 422, title: "The work needed more memory than its limit" },
  worker_crashed: { status: 422, title: "The model crashed the runtime" },
  expired: { status: 422, title: "The job waited in the queue for too long" },
  cancelled: { status: 409, title: "The work was cancelled" },
} as const satisfies Record<string, { status: number; title: string }>;

export type ProblemCode = keyof typeof PROBLEMS;

/** The `type` of a problem: an identifier, not an address. */
export function problemType(code: ProblemCode): string {
  return `urn:modelpress:problem:${code}`;
}

/** One wrong field: `pointer` is an RFC 6901 JSON pointer into the body, or `#/query/…`, `#/path/…`, `#/headers/…`. */
export interface FieldError {
  readonly pointer: string;
  readonly code: string;
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
