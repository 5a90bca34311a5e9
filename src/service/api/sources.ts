import { createHash } from "node:crypto";
import { request } from "undici";
import { ObjectError, parseObjectAddress, unlistedObject } from "../blobs/objects.ts";
import type { CatalogFile } from "../catalog.ts";
import { ServiceError } from "../errors.ts";
import { createWebhookAgent } from "../jobs/webhook-agent.ts";
import { isAllowedInside, unlisted } from "../jobs/webhook-target.ts";
import type { ApiContext } from "./context.ts";
import { checkFileName, invalidField, storeFile } from "./upload-intake.ts";

/**
 * Fetches files from where a client says they are. Our machines open what strangers name, so there is a list of hosts, and what is not on it is
 * not asked: see `webhook-target.ts` for what else is not. Each redirect is judged as the first address was. Objects of S3 are read with our own
 * credentials, from buckets of another list: see `blobs/objects.ts`.
 */

const MAX_REDIRECTS = 5;
/** A source that sends fewer bytes than this in `uploadIdleTimeoutMs` is given up. */
const MIN_PROGRESS_BYTES = 1024;

export interface SourceFile {
  readonly url: string;
  readonly filename?: string | undefined;
  readonly sha256?: string | undefined;
}

interface Source {
  readonly kind: "https" | "s3";
  readonly files: readonly SourceFile[];
}

export interface Sources {
  /** Throws `validation_failed`, with pointers below `/source`, for addresses that are not fetched from. */
  check(source: Source): void;
  /**
   * Stores the files, claimed by `owner`. `checkName` throws for a file name that is refused. Throws `source_failed`, `unavailable` for an
   * object store that cannot be asked now, `too_large` for all files together, and `validation_failed` for a file that is not the one that was meant.
   */
  fetch(
    source: Source,
    owner: string,
    options: { readonly signal: AbortSignal; readonly checkName?: (name: string) => void },
  ): Promise<readonly CatalogFile[]>;
  close(): Promise<void>;
}

export function createSources(context: ApiContext): Sources {
  const { sourceAllowHosts, sourceAllowBuckets, maxUploadBytes, uploadIdleTimeoutMs } = context.settings;
  const outside = createWebhookAgent({ inside: false });
  const inside = createWebhookAgent({ inside: true });

  /** The body of the answer to a GET, redirects followed. Throws `source_failed`. */
  async function openUrl(text: string, signal: AbortSignal) {
    let url = new URL(text);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const refusal = unlisted(url, sourceAllowHosts);
      if (refusal !== undefined) throw failed(`It redirects to where nothing is fetched from. ${refusal}`);
      const dispatcher = isAllowedInside(url, sourceAllowHosts) ? inside : outside;
      const headers = { "user-agent": "modelpress", accept: "*/*" };
      const {
        statusCode,
        headers: told,
        body,
      } = await request(url, { dispatcher, signal, headers }).catch((error) => {
        throw signal.aborted ? signal.reason : failed(`Its host could not be reached (${reasonOf(error)}).`);
      });
      if (statusCode === 200) return body;
      await body.dump({ limit: 16_384 }).catch(() => {}); // What it says is nothing to us.
      const location = told.location;
      if (![301, 302, 303, 307, 308].includes(statusCode) || typeof location !== "string") {
        throw failed(`Its host answered ${statusCode}.`);
      }
      const next: URL | null = URL.parse(location, url.href);
      if (next === null) throw failed("It redirects to what is no URL.");
      url = next;
    }
    throw failed(`It redirects more than ${MAX_REDIRECTS} times.`);
  }

  /** The bytes of an object of a bucket on the list. Throws `source_failed`, and `unavailable` for what is not the client's fault. */
  async function openObject(text: string, signal: AbortSignal) {
    try {
      return await context.objects.get(parseObjectAddress(text)!, signal);
    } catch (error) {
      if (!(error instanceof ObjectError)) throw error;
      if (!error.mayPass) throw failed(`${error.message}.`);
      const message = `The object store cannot be asked now: ${error.message}.`;
      throw new ServiceError("unavailable", message, { cause: error, retryAfterSeconds: 10 });
    }
  }

  async function fetchOne(
    kind: Source["kind"],
    file: SourceFile,
    name: string,
    pointer: string,
    owner: string,
    left: number,
    signal: AbortSignal,
  ) {
    const body = await (kind === "s3" ? openObject : openUrl)(file.url, signal);
    const hash = createHash("sha256");
    const stalled = new AbortController();
    let seen = 0;
    let before = 0;
    const pace = setInterval(() => {
      if (seen - before < MIN_PROGRESS_BYTES) stalled.abort();
      before = seen;
    }, uploadIdleTimeoutMs);
    const bytes = (async function* () {
      try {
        for await (const chunk of body) {
          hash.update(chunk);
          seen += chunk.length;
          yield chunk as Uint8Array;
        }
      } catch (error) {
        // Named here: further on it could be taken for an error of our own disk.
        throw failed(`It ended before all of its bytes had come (${reasonOf(error)}).`);
      }
    })();
    const end = () => void body.destroy(new Error("given up"));
    for (const it of [stalled.signal, signal]) it.addEventListener("abort", end, { once: true });
    try {
      const ref = await storeFile(context, owner, bytes, left);
      if (file.sha256 !== undefined && hash.digest("hex") !== file.sha256) {
        throw invalidField(`${pointer}/sha256`, "sha256_mismatch", `the file has the sha256 ${ref.sha256}`);
      }
      return { ...ref, name };
    } catch (error) {
      if (stalled.signal.aborted)
        throw failed(`Fewer than ${MIN_PROGRESS_BYTES} bytes came in ${uploadIdleTimeoutMs} ms.`);
      throw signal.aborted ? signal.reason : error;
    } finally {
      clearInterval(pace);
      signal.removeEventListener("abort", end);
      body.destroy();
    }
  }

  return {
    check({ kind, files }) {
      const fields = files.flatMap(({ url }, i) => {
        const refusal =
          kind === "s3"
            ? unlistedObject(url, sourceAllowBuckets, "SOURCE_ALLOW_BUCKETS")
            : unlisted(URL.parse(url), sourceAllowHosts);
        const at = `/source/files/${i}/url`;
        return refusal === undefined
          ? []
          : [{ pointer: at, code: "source_refused" as const, message: `${at}: ${refusal}` }];
      });
      if (fields.length > 0) {
        throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
      }
    },
    async fetch({ kind, files }, owner, { signal, checkName }) {
      const names = files.map((file) => checkFileName(nameOf(kind, file)));
      for (const [i, name] of names.entries()) {
        checkName?.(name);
        if (names.indexOf(name) < i) {
          const pointer = `/source/files/${i}/filename`;
          throw invalidField(pointer, "duplicate_filename", `two files are named ${JSON.stringify(name)}`);
        }
      }
      const fetched: CatalogFile[] = [];
      let left = maxUploadBytes;
      for (const [i, file] of files.entries()) {
        const one = await fetchOne(kind, file, names[i]!, `/source/files/${i}`, owner, left, signal);
        left -= one.size_bytes;
        fetched.push(one);
      }
      return fetched;
    },
    async close() {
      await Promise.all([outside.destroy(), inside.destroy()]);
    },
  };
}

/** What a file is called: as the client says, or as its address ends. */
function nameOf(kind: Source["kind"], { url, filename }: SourceFile): string {
  if (filename !== undefined) return filename;
  if (kind === "s3") return url.split("/").at(-1)!;
  const last = new URL(url).pathname.split("/").at(-1)!;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}

function failed(message: string): ServiceError {
  return new ServiceError("source_failed", message);
}

function reasonOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : (error as Error).name;
}
