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
