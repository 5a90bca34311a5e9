import { Readable } from "node:stream";
import type { HubApiError } from "@huggingface/hub";
import type { RequestInfo, RequestInit } from "undici";
import type { GuardedClient } from "../../jobs/guarded-client.ts";
import { refusalOf } from "../../jobs/webhook-target.ts";
import { isListed } from "../../listed.ts";
import { mayPass, type RemoteFile, reasonOf, sourceFailed, sourceUnavailable } from "../../remote-file.ts";
import { PRINTABLE } from "../../schemas.ts";
import type { SourceKind } from "./source-kind.ts";

/** Where the hub is, and who asks it. */
export interface HuggingFaceEndpoint {
  /** Without a slash at its end. */
  readonly url: string;
  /** Null: what everybody may read. */
  readonly token: string | null;
}

interface HubAddress {
  /** `org/name`, or `datasets/org/name`. */
  readonly repository: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  readonly path: string;
}

export interface HuggingFaceSourceOptions extends HuggingFaceEndpoint {
  /** Repositories that clients may name, `org/*` for all of an organisation. */
  readonly allowRepositories: readonly string[];
  readonly client: GuardedClient;
}

const MAX_REDIRECTS = 5;
/** `hf://[datasets/]org/name[@revision]/path`, the form that huggingface_hub's file system reads. */
const ADDRESS = /^hf:\/\/(?<repository>(?:datasets\/)?[\w.-]+\/[\w.-]+)(?:@(?<revision>[^/@]+))?\/(?<path>[^?#]+)$/;

/** Undefined for what is no address of a file in a repository. */
function parseHubAddress(text: string): HubAddress | undefined {
  const { repository, revision = "main", path } = ADDRESS.exec(text)?.groups ?? {};
  if (repository === undefined || path === undefined || !path.isWellFormed() || !PRINTABLE.test(path)) return undefined;
  const isStep = (part: string) => part === "" || part === "." || part === "..";
  if ([...repository.split("/"), ...path.split("/")].some(isStep)) return undefined;
  try {
    // A slash of a revision is written as %2F, as in refs%2Fpr%2F1.
    return { repository, revision: decodeURIComponent(revision), path };
  } catch {
    return undefined;
  }
}

/** Files of the hub of Hugging Face, or of one like it, read with our own token from repositories that are listed. */
export function createHuggingFaceSource(options: HuggingFaceSourceOptions): SourceKind {
  const { url: hubUrl, token, allowRepositories, client } = options;
  const hub = new URL(hubUrl);

  /** As `fetch`, but a redirect to another host leads to public addresses only, and our token is not told there. */
  async function guardedFetch(input: RequestInfo, init: RequestInit = {}, signal: AbortSignal) {
    let url = new URL(input as string | URL);
    const headers = new Headers(init.headers);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const own = url.origin === hub.origin;
      if (!own) headers.delete("authorization");
      const refusal = own ? undefined : refusalOf(url, []);
      if (refusal !== undefined) throw sourceFailed(`The hub redirects to where nothing is fetched from. ${refusal}`);
      const response = await client.fetch(url, { ...init, headers: [...headers], signal, redirect: "manual" });
      const location = response.headers.get("location");
      if (response.status < 300 || response.status > 399 || location === null) return response;
      await response.body?.cancel();
      url = new URL(location, url);
    }
    throw sourceFailed(`The hub redirects more than ${MAX_REDIRECTS} times.`);
  }

  async function find(address: string, signal: AbortSignal): Promise<readonly RemoteFile[]> {
    const { repository, revision, path } = parseHubAddress(address)!;
    // Few services fetch from the hub, and its library is large.
    const { downloadFile, fileDownloadInfo } = await import("@huggingface/hub");
    const asking = {
      repo: repository,
      path: path.split("/").map(encodeURIComponent).join("/"),
      revision,
      hubUrl,
      ...(token !== null && { accessToken: token }),
    };
    const within = (signal: AbortSignal) =>
      ((input: RequestInfo, init?: RequestInit) =>
        guardedFetch(input, init, signal)) as unknown as typeof globalThis.fetch;
    const told = <T>(signal: AbortSignal, work: Promise<T>) =>
      work.catch((error) => {
        throw signal.aborted ? signal.reason : asServiceError(error);
      });
    const downloadInfo = await told(signal, fileDownloadInfo({ ...asking, fetch: within(signal) }));
    if (downloadInfo === null) throw sourceFailed(`The repository ${repository} has no file ${path} at ${revision}.`);
    return [
      {
        name: path.split("/").at(-1)!,
        ...sha256In(downloadInfo.etag),
        async open(signal) {
          // In one piece over https: chunks of xet's are for clients that keep them.
          const work = downloadFile({ ...asking, fetch: within(signal), downloadInfo, xet: false });
          const blob = (await told(signal, work))!;
          return Readable.from(wholeOf(blob, downloadInfo.size));
        },
      },
    ];
  }

  return {
    refusal(address) {
      const parsed = parseHubAddress(address);
      if (parsed === undefined) {
        return "It must be hf://organisation/name/path or hf://organisation/name@revision/path (hf://datasets/… for datasets).";
      }
      if (allowRepositories.length === 0) {
        return "The operator of this service has allowed no repository: SOURCE_ALLOW_REPOSITORIES lists them.";
      }
      if (isListed(parsed.repository, allowRepositories)) return undefined;
      return `Its repository is not one that the operator has allowed (SOURCE_ALLOW_REPOSITORIES): those are ${allowRepositories.join(", ")}.`;
    },
    find,
  };
}

/** Of files that are kept outside of git the hub's ETag is their sha256. */
function sha256In(etag: string): { readonly sha256?: string } {
  const sha256 = /^"?([0-9a-f]{64})"?$/.exec(etag)?.[1];
  return sha256 === undefined ? {} : { sha256 };
}

/** The bytes of a blob. Throws when they are not as many as the hub has said. */
async function* wholeOf(blob: Blob, size: number): AsyncGenerator<Uint8Array> {
  let seen = 0;
  for await (const chunk of blob.stream()) {
    seen += chunk.length;
    yield chunk;
  }
  if (seen !== size) throw new Error(`${seen} of ${size} bytes`);
}

function asServiceError(error: unknown): unknown {
  const { name, statusCode } = error as HubApiError;
  if (name === "ServiceError") return error;
  if (statusCode === undefined) return sourceUnavailable("The hub", reasonOf(error), error);
  if (mayPass(statusCode)) return sourceUnavailable("The hub", `it answered ${statusCode}`, error);
  // To those who may not see a repository the hub says that there is none, or asks who they are.
  const hint = [401, 403, 404].includes(statusCode)
    ? ": there is no such repository or revision, or this service may not read it"
    : "";
  return sourceFailed(`The hub answered ${statusCode}${hint}.`, error);
}
