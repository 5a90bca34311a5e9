import { createHash } from "node:crypto";
import type { CatalogFile } from "./catalog.ts";

/** What makes two requests, models or datasets the same. */

/** JSON with sorted keys: equal values give equal texts. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, inner) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

export function sha256Of(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** What a file is as a dataset: read in another way it is another one. */
export function datasetContent(sha256: string, suffix: string, spec: unknown): string {
  return sha256Of(canonicalJson([sha256, suffix, spec]));
}

/**
 * What an upload is one of: the same bytes, of the same key, under the same name. Under another name they get a record of their own, so that
 * who renames or deletes it changes nobody else's.
 */
export function uploadIdentity(
  content: string,
  owner: string,
  { name, metadata }: { readonly name: string; readonly metadata: Readonly<Record<string, string>> },
): string {
  return sha256Of(canonicalJson([content, owner, name, metadata]));
}

/** What a model that a job has made is one of: the same bytes made of the same model. */
export function madeIdentity(content: string, sourceModelId: string): string {
  return sha256Of(canonicalJson([content, sourceModelId]));
}

/**
 * Of one file, its own sha256: what `sha256sum` prints. Of several, the sha256 of one line `<sha256>  <name>\n` for
 * each, sorted by name: what `sha256sum * | sha256sum` prints in the C locale. The order they were sent in does not
 * matter.
 */
export function bundleSha256(files: readonly Pick<CatalogFile, "name" | "sha256">[]): string {
  if (files.length === 1) return files[0]!.sha256;
  const sorted = files.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return sha256Of(sorted.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join(""));
}
