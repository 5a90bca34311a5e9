import type { Readable } from "node:stream";
import { PRINTABLE } from "../schemas.ts";

/**
 * Objects of buckets that the operator lists: what clients may have fetched (`source`) and what jobs may write (`deliver_to`), with the operator's own
 * credentials. So a bucket, or a folder of it, is listed for each direction by itself; what is not listed is not asked for.
 */

/** Where an object store is, and who asks it. */
export interface S3Endpoint {
  /** Null: Amazon's own. */
  readonly endpoint: string | null;
  readonly region: string;
  /** Default: found the AWS way (environment, profile, role). */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

export interface ObjectAddress {
  readonly bucket: string;
  readonly key: string;
}

export interface Objects {
  /** The bytes of an object. Throws an `ObjectError`. */
  get(address: ObjectAddress, signal: AbortSignal): Promise<Readable>;
  /** Writes an object, or nothing. Throws an `ObjectError`, and what reading `bytes` throws. */
  put(address: ObjectAddress, bytes: Readable, sizeBytes: number, signal: AbortSignal): Promise<void>;
}

/** What an object store did not do, in words that go on from a colon. They do not tell who the operator is to the store. */
export class ObjectError extends Error {
  override readonly name = "ObjectError";
  /** Whether the same request may succeed later: it was not the request that was wrong. */
  readonly mayPass: boolean;

  constructor(message: string, mayPass: boolean, cause: unknown) {
    super(message, { cause });
    this.mayPass = mayPass;
  }
}

const SCHEME = "s3://";
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{2,254}$/;
const MAX_KEY_BYTES = 1024;

export const isObjectAddress = (text: string): boolean => text.startsWith(SCHEME);

/**
 * Reads `s3://bucket/key`. The key is meant literally, as the tools of S3 do: nothing of it is decoded. Undefined for what is no such address, and
 * for keys with `.` or `..` between slashes: some stores and proxies resolve them, and the object would be another one than was judged.
 */
export function parseObjectAddress(text: string): ObjectAddress | undefined {
  if (!isObjectAddress(text)) return undefined;
  const rest = text.slice(SCHEME.length);
  const slash = rest.indexOf("/");
  const bucket = rest.slice(0, slash);
  const key = rest.slice(slash + 1);
  if (slash < 0 || !BUCKET.test(bucket) || key === "" || key.endsWith("/")) return undefined;
  // Of half a surrogate pair there is no UTF-8, which keys are in.
  if (Buffer.byteLength(key) > MAX_KEY_BYTES || !key.isWellFormed() || !PRINTABLE.test(key)) return undefined;
  return key.split("/").some((part) => part === "." || part === "..") ? undefined : { bucket, key };
}

/**
 * Why an address is not one of an object that the operator has listed in the variable; undefined for one that is. Entries are `bucket/` and
 * `bucket/folder/`.
 */
export function unlistedObject(text: string, entries: readonly string[], variable: string): string | undefined {
  const address = parseObjectAddress(text);
  if (address === undefined) {
    return "It must be s3://bucket/key, with the key as it is: not encoded, and without . or .. between slashes.";
  }
  if (entries.length === 0) {
    return `The operator of this service has allowed no bucket: ${variable} lists them, as bucket or bucket/folder/.`;
  }
  const place = `${address.bucket}/${address.key}`;
  if (entries.some((entry) => place.startsWith(entry))) return undefined;
  const listed = entries.map((entry) => SCHEME + entry).join(", ");
  return `It is in no bucket or folder that the operator has allowed (${variable}): those are ${listed}.`;
}
