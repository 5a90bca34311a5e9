import { createHash } from "node:crypto";
import { request } from "undici";
import type { CatalogFile } from "../catalog.ts";
import { ServiceError } from "../errors.ts";
import { createWebhookAgent } from "../jobs/webhook-agent.ts";
import { isAllowedInside, unlisted } from "../jobs/webhook-target.ts";
import type { ApiContext } from "./context.ts";
import { checkFileName, invalidField, storeFile } from "./upload-intake.ts";

/**
 * Fetches files from where a client says they are. Our machines open what strangers name, so there is a list of hosts, and what is not on it is
 * not asked: see `webhook-target.ts` for what else is not. Each redirect is judged as the first address was.
 */

const MAX_REDIRECTS = 5;
/** A source that sends fewer bytes than this in `uploadIdleTimeoutMs` is given up. */
const MIN_PROGRESS_BYTES = 1024;

export interface SourceFile {
  readonly url: string;
  readonly filename?: string | undefined;
  readonly sha256?: string | undefined;
}

export interface Sources {
  /** Throws `validation_failed`, with pointers below `pointer`, for addresses that are not fetched from. */
  check(files: readonly SourceFile[], pointer: string): void;
  /**
   * Stores the files, claimed by `owner`. `checkName` throws for a file name that is refused. Throws `source_failed`, `too_large` for all
   * files together, and `validation_failed` for a file that is not the one that was meant.
   */
  fetch(
    files: readonly SourceFile[],
    owner: string,
    options: { readonly signal: AbortSignal; readonly checkName?: (name: string) => void },
  ): Promise<readonly CatalogFile[]>;
  close(): Promise<void>;
}

export function createSources(context: ApiContext): Sources {
  const { sourceAllowHosts, maxUploadBytes, uploadIdleTimeoutMs } = context.settings;
  const outside = createWebhookAgent({ inside: false });
  const inside = createWebhookAgent({ inside: true });

  /** The answer to a GET, redirects followed. Throws `source_failed`. */
  async function open(text: string, signal: AbortSignal) {
    let url = new URL(text);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const refusal = unlisted(url, sourceAllowHosts);
      if (refusal !== undefined) throw failed(`It redirects to where nothing is fetched from. ${refusal}`);
      const dispatcher = isAllowedInside(url, sourceAllowHosts) ? inside : outside;
      const headers = { "user-agent": "modelpress", accept: "*/*" };
      const answer = await request(url, { dispatcher, signal, headers }).catch((error) => {
        throw signal.aborted ? signal.reason : failed(`Its host could not be reached (${reasonOf(error)}).`);
      });
      const { statusCode, headers: told, body } = answer;
      if (statusCode === 200) return answer;
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

  async function fetchOne(
    file: SourceFile,
    name: string,
    pointer: string,
    owner: string,
    left: number,
    signal: AbortSignal,
  ) {
    const { body } = await open(file.url, signal);
    const hash = createHash("sha256");
    const stalled = new AbortController();
    let seen = 0;
    let before = 0;
    const pace = setInterval(() => {
      if (seen - before < MIN_PROGRESS_BYTES) stalled.abort();
      before = seen;
    }, uploadIdleTimeoutMs);
    const bytes = (async function* () {
      for await (const chunk of body) {
        hash.update(chunk);
        seen += chunk.length;
        yield chunk as Uint8Array;
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
      if (error instanceof ServiceError) throw error;
      throw signal.aborted ? signal.reason : failed(`It ended before all of its bytes had come (${reasonOf(error)}).`);
    } finally {
      clearInterval(pace);
      signal.removeEventListener("abort", end);
      body.destroy();
    }
  }

  return {
    check(files, pointer) {
      const fields = files.flatMap(({ url }, i) => {
        const refusal = unlisted(URL.parse(url), sourceAllowHosts);
        const at = `${pointer}/${i}/url`;
        return refusal === undefined
          ? []
          : [{ pointer: at, code: "source_refused" as const, message: `${at}: ${refusal}` }];
      });
      if (fields.length > 0) {
        throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
      }
    },
    async fetch(files, owner, { signal, checkName }) {
      const names = files.map((file) => checkFileName(nameOf(file)));
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
        const one = await fetchOne(file, names[i]!, `/source/files/${i}`, owner, left, signal);
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

/** What a file is called: as the client says, or as the path of its address ends. */
function nameOf({ url, filename }: SourceFile): string {
  if (filename !== undefined) return filename;
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
