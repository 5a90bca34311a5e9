import { join } from "node:path";
import type { BlobStore } from "./blob-store.ts";
import { createFileBlobStore } from "./fs.ts";
import type { S3Options } from "./s3.ts";

export interface BlobStoreConfig {
  readonly dataDir: string;
  readonly blobStore: { readonly kind: "file" } | ({ readonly kind: "s3" } & Omit<S3Options, "incoming">);
}

/** The blob store that is configured. Rejects, with the reason, when it cannot be used. */
export async function openBlobStore({ blobStore, dataDir }: BlobStoreConfig): Promise<BlobStore> {
  if (blobStore.kind === "file") return createFileBlobStore(join(dataDir, "blobs"));
  // Amazon's client is large, and services that keep files have no use for it.
  const { createS3BlobStore } = await import("./s3.ts");
  return createS3BlobStore({ ...blobStore, incoming: join(dataDir, "incoming") });
}
