import { ObjectError, type Objects, parseObjectAddress, unlistedObject } from "../../blobs/objects.ts";
import { sourceFailed, sourceUnavailable } from "../../remote-file.ts";
import type { SourceKind } from "./source-kind.ts";

/** Objects of S3, `s3://bucket/key`: read with our own credentials from buckets that are listed, see `blobs/objects.ts`. */
export function createS3Source(objects: Objects, allowBuckets: readonly string[]): SourceKind {
  async function open(address: string, signal: AbortSignal) {
    try {
      return await objects.get(parseObjectAddress(address)!, signal);
    } catch (error) {
      if (!(error instanceof ObjectError)) throw error;
      throw error.mayPass
        ? sourceUnavailable("The object store", error.message, error)
        : sourceFailed(`${error.message}.`);
    }
  }
  return {
    refusal: (address) => unlistedObject(address, allowBuckets, "SOURCE_ALLOW_BUCKETS"),
    find: async (address) => [{ name: address.split("/").at(-1)!, open: (signal) => open(address, signal) }],
  };
}
