import type { RemoteFile } from "../../remote-file.ts";

/** One way to name files that somebody else keeps. */
export interface SourceKind {
  /** Why nothing is fetched from an address; undefined for one that may be asked. It asks nobody. */
  refusal(address: string): string | undefined;
  /** The files at an address that is not refused, in most kinds one. Throws as `RemoteFile.open` does. */
  find(address: string, signal: AbortSignal): Promise<readonly RemoteFile[]>;
}
