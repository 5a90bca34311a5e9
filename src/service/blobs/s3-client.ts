import type { Readable } from "node:stream";
import { NoSuchKey, NotFound, S3Client, S3ServiceException } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import type { S3Endpoint } from "./objects.ts";

/** Memory of one upload is at most this many parts of 5 MiB. */
const PARTS_IN_FLIGHT = 3;

const UNREACHABLE: ReadonlySet<unknown> = new Set([
  ...["ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT"],
  ...["EHOSTUNREACH", "ENETUNREACH"],
]);

/** What Amazon's client calls errors of an answer without a code, and the form of a code: of others it makes a name of what it could not read. */
const NO_CODE = ["Unknown", "UnknownError"];
const CODE = /^[A-Za-z][A-Za-z0-9.]*$/;

/** For one attempt, of which there are two. */
export interface TimeLimits {
  readonly connectionTimeout: number;
  /** Without a byte in either direction. */
  readonly socketTimeout: number;
}

/** Amazon's client of an object store. */
export function createS3Client({ endpoint, region, credentials }: S3Endpoint, limits?: TimeLimits): S3Client {
  return new S3Client({
    region,
    // Other services that speak S3 know neither a host name per bucket nor Amazon's newer checksums.
    ...(endpoint === null ? {} : { endpoint, forcePathStyle: true }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(limits === undefined ? {} : { requestHandler: limits, maxAttempts: 2 }),
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
  });
}

/** Puts an object in one request, or in parts; when that fails, no part of it stays. */
export async function uploadObject(
  client: S3Client,
  at: { readonly Bucket: string; readonly Key: string },
  body: Readable | Uint8Array,
  { sizeBytes, signal }: { readonly sizeBytes: number; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const abortController = new AbortController();
  const abort = () => abortController.abort(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  const params = { ...at, Body: body, ContentLength: sizeBytes, ContentType: "application/octet-stream" };
  try {
    await new Upload({ client, queueSize: PARTS_IN_FLIGHT, abortController, params }).done();
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

export function isMissing(error: unknown): boolean {
  return error instanceof NoSuchKey || error instanceof NotFound;
}

/** Why the object store could not be reached; undefined for any other error. */
export function unreachableReason(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && UNREACHABLE.has(error.code)) return String(error.code);
  return error.name === "TimeoutError" ? error.name : undefined;
}

/**
 * What the object store answered with an error; undefined when it did not. Its code is undefined when the answer has none that S3 knows, as the page
 * of a proxy in between: Amazon's client fails to read that, with an error of no class of its own.
 */
export function answerOf(error: unknown): { readonly status: number; readonly code: string | undefined } | undefined {
  if (!(error instanceof Error) || unreachableReason(error) !== undefined) return undefined;
  const status = (error as Partial<S3ServiceException>).$metadata?.httpStatusCode;
  if (status === undefined) return undefined;
  const hasCode = error instanceof S3ServiceException && CODE.test(error.name) && !NO_CODE.includes(error.name);
  return { status, code: hasCode ? error.name : undefined };
}
