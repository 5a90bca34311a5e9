import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** As much of Hugging Face's hub as serves files, answering as its own does: small ones at once, large ones by a redirect. */
export interface HubServer {
  readonly url: string;
  /** By `org/name/revision/path`. */
  readonly files: Map<string, HubFile>;
  /** `host path` of every request, and the token that came with it. */
  readonly seen: (readonly [string, string | undefined])[];
  close(): Promise<void>;
}

interface HubFile {
  readonly bytes: Buffer;
  /** Kept outside of git: its ETag is a sha256. */
  readonly large?: boolean;
  /** Where its bytes are, if not here. */
  readonly location?: string;
  /** What is said of it, if not the truth. */
  readonly sha256?: string;
  readonly cut?: boolean;
  readonly needsToken?: string;
}

export async function startHubServer(): Promise<HubServer> {
  const files: HubServer["files"] = new Map();
  const seen: (readonly [string, string | undefined])[] = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, "http://hub");
    const token = request.headers.authorization;
    seen.push([`${request.headers.host} ${pathname}`, token]);
    const [, repository, revision, path] =
      /^\/((?:datasets\/)?[^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(pathname) ?? [];
    const file = files.get([repository, decodeURIComponent(revision ?? ""), decodeURIComponent(path ?? "")].join("/"));
    const refuse = (status: number, code: string) =>
      response
        .writeHead(status, { "x-error-code": code, "content-type": "application/json" })
        .end(`{"error":"Of ${token}"}`);
    if (file === undefined) {
      const known = [...files.keys()].some((key) => key.startsWith(`${repository}/`));
      return known ? refuse(404, "EntryNotFound") : refuse(401, "RepoNotFound");
    }
    if (file.needsToken !== undefined && token !== `Bearer ${file.needsToken}`) return refuse(401, "GatedRepo");
    if (file.location !== undefined) return response.writeHead(302, { location: file.location }).end();
    const { bytes } = file;
    const hash = file.sha256 ?? createHash("sha256").update(bytes).digest("hex");
    const etag = file.large ? { "x-linked-etag": `"${hash}"`, "x-linked-size": String(bytes.length) } : {};
    const headers = { etag: `"${hash.slice(0, 40)}"`, ...etag };
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    if (first === undefined) {
      response.writeHead(200, { ...headers, "content-length": String(bytes.length) });
      if (!file.cut) return response.end(bytes);
      return response.write(bytes.subarray(0, 100), () => response.destroy());
    }
    const range = `bytes ${first}-${last}/${bytes.length}`;
    return response
      .writeHead(206, { ...headers, "content-range": range })
      .end(bytes.subarray(Number(first), Number(last) + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ...{ files, seen },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
