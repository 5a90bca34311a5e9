import type { Readable } from "node:stream";
import { DeleteObjectCommand, GetObjectCommand, HeadObjectCommand } from "@aws-sdk/client-s3";
import { keepFreeOfLeftovers } from "../../leftovers.ts";
import { ServiceError } from "../errors.ts";
import type { BlobRef, BlobStore } from "./blob-store.ts";
import { arrivalOf, readLocalFile, removeFile, saveBlob, stageFile } from "./fs.ts";
import type { S3Endpoint } from "./objects.ts";
import { answerOf, createS3Client, isMissing, unreachableReason, uploadObject } from "./s3-client.ts";

export interface S3Options extends S3Endpoint {
  readonly bucket: string;
  /** Where uploads wait on the local disk until their name is known. */
  readonly incoming: string;
}

/**
 * Blobs as objects `blobs/<sha256>` of a bucket. An object's name is the hash of its bytes, which is known only after
 * the last one, and S3 cannot rename: uploads are staged on the local disk, and bytes that the bucket has already are
 * not sent again.
 */
export async function createS3BlobStore(options: S3Options): Promise<BlobStore> {
  await keepFreeOfLeftovers(options.incoming);
  const client = createS3Client(options);
  const at = (key: string) => ({ Bucket: options.bucket, Key: key });
  const keyOf = (ref: BlobRef) => `blobs/${ref.sha256}`;

  async function exists(key: string): Promise<boolean> {
    try {
      await client.send(new HeadObjectCommand(at(key)));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  const upload = (key: string, body: Readable | Uint8Array, sizeBytes: number, signal?: AbortSignal) =>
    uploadObject(client, at(key), body, { sizeBytes, signal });

  const store: BlobStore = {
    async put(bytes, { maxBytes, signal, claim, arrived }) {
      const staged = await stageFile(options.incoming, bytes, { maxBytes, sync: false, ...(signal && { signal }) });
      const { path, ref } = staged;
      try {
        await staged.synced;
        await claim?.(ref);
        arrived?.(arrivalOf(staged, store));
        if (!(await exists(keyOf(ref)))) await upload(keyOf(ref), await readLocalFile(path), ref.size_bytes, signal);
        return ref;
      } catch (error) {
        throw asServiceError(error);
      } finally {
        await removeFile(path);
      }
    },
    async get(ref, range) {
      const empty = range !== undefined && range.start >= range.end;
      // S3 has no way to ask for no bytes; still a missing blob must be told from an empty answer.
      const Range = range && `bytes=${range.start}-${range.end - 1}`;
      try {
        if (empty) {
          await client.send(new HeadObjectCommand(at(keyOf(ref))));
          return (async function* () {})();
        }
        const { Body } = await client.send(new GetObjectCommand({ ...at(keyOf(ref)), ...(Range && { Range }) }));
        return Body as Readable;
      } catch (error) {
        throw asServiceError(error);
      }
    },
    async materialize(ref, path) {
      try {
        await saveBlob(ref, await store.get(ref), path);
      } catch (error) {
        throw asServiceError(error);
      }
    },
    async delete(ref) {
      try {
        await client.send(new DeleteObjectCommand(at(keyOf(ref))));
      } catch (error) {
        if (!isMissing(error)) throw asServiceError(error);
      }
    },
    async check() {
      try {
        const key = `check/${crypto.randomUUID()}`;
        await upload(key, Buffer.from("ok"), 2);
        await client.send(new HeadObjectCommand(at(key)));
        await client.send(new DeleteObjectCommand(at(key)));
      } catch (error) {
        throw asServiceError(error);
      }
    },
  };
  return store;
}

function asServiceError(error: unknown): unknown {
  if (isMissing(error))
    return new ServiceError("not_found", "These bytes are not stored here (any more).", { cause: error });
  if (unreachableReason(error) !== undefined || answerOf(error) !== undefined) {
    return new ServiceError("unavailable", "The object store did not do as asked.", {
      cause: error,
      retryAfterSeconds: 10,
    });
  }
  return error;
}
