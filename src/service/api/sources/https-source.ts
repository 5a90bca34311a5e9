import type { Readable } from "node:stream";
import type { GuardedClient } from "../../jobs/guarded-client.ts";
import { unlisted } from "../../jobs/webhook-target.ts";
import { reasonOf, sourceFailed } from "../../remote-file.ts";
import type { SourceKind } from "./source-kind.ts";

const MAX_REDIRECTS = 5;

export interface HttpsSourceOptions {
  readonly allowHosts: readonly string[];
  readonly client: GuardedClient;
}

/**
 * Files at web addresses. Our machines open what strangers name, so there is a list of hosts, and what is not on it is not asked: see
 * `webhook-target.ts` for what else is not. Each redirect is judged as the first address was.
 */
export function createHttpsSource({ allowHosts, client }: HttpsSourceOptions): SourceKind {
  /** The body of the answer to a GET, redirects followed. Throws `source_failed`. */
  async function open(address: string, signal: AbortSignal): Promise<Readable> {
    let url = new URL(address);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const refusal = unlisted(url, allowHosts);
      if (refusal !== undefined) throw sourceFailed(`It redirects to where nothing is fetched from. ${refusal}`);
      const headers = { "user-agent": "modelpress", accept: "*/*" };
      const {
        statusCode,
        headers: told,
        body,
      } = await client.request(url, { signal, headers }).catch((error) => {
        throw signal.aborted ? signal.reason : sourceFailed(`Its host could not be reached (${reasonOf(error)}).`);
      });
      if (statusCode === 200) return body;
      await body.dump({ limit: 16_384 }).catch(() => {}); // What it says is nothing to us.
      const location = told.location;
      if (![301, 302, 303, 307, 308].includes(statusCode) || typeof location !== "string") {
        throw sourceFailed(`Its host answered ${statusCode}.`);
      }
      const next: URL | null = URL.parse(location, url.href);
      if (next === null) throw sourceFailed("It redirects to what is no URL.");
      url = next;
    }
    throw sourceFailed(`It redirects more than ${MAX_REDIRECTS} times.`);
  }

  return {
    refusal: (address) => unlisted(URL.parse(address), allowHosts),
    find: async (address) => [{ name: nameIn(address), open: (signal) => open(address, signal) }],
  };
}

/** What a file is called whose address this is. */
function nameIn(address: string): string {
  const last = new URL(address).pathname.split("/").at(-1)!;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}
