import type { CatalogFile } from "../../catalog.ts";
import { ServiceError } from "../../errors.ts";
import { createGuardedClient } from "../../jobs/guarded-client.ts";
import { isAllowedInside } from "../../jobs/webhook-target.ts";
import { type RemoteFile, reasonOf, sourceFailed } from "../../remote-file.ts";
import type { ApiContext } from "../context.ts";
import { checkFileName, invalidField, storeFile } from "../upload-intake.ts";
import { createHttpsSource } from "./https-source.ts";
import { createHuggingFaceSource } from "./hugging-face-source.ts";
import { createMlflowSource } from "./mlflow-source.ts";
import { createS3Source } from "./s3-source.ts";
import type { SourceKind } from "./source-kind.ts";

/** Fetches files from where a client says they are: in `KINDS` of ways, from what the operator has listed for each. */

export const SOURCE_KINDS = ["https", "s3", "mlflow", "huggingface"] as const;

/** A source that sends fewer bytes than this in `uploadIdleTimeoutMs` is given up. */
const MIN_PROGRESS_BYTES = 1024;

export interface SourceFile {
  readonly url: string;
  readonly filename?: string | undefined;
  readonly sha256?: string | undefined;
}

interface Source {
  readonly kind: (typeof SOURCE_KINDS)[number];
  readonly files: readonly SourceFile[];
}

/** A file that was found, as the client has named it, and where the client has named it. */
interface FoundFile {
  readonly remote: RemoteFile;
  readonly name: string;
  readonly asked: SourceFile;
  readonly pointer: string;
}

export interface Sources {
  /** Throws `validation_failed`, with pointers below `/source`, for addresses that are not fetched from. */
  check(source: Source): void;
  /**
   * Stores the files, claimed by `owner`, at most `mostFiles`. `checkName` throws for a file name that is refused. Throws `source_failed`,
   * `unavailable` for a keeper that cannot be asked now, `too_large` for all files together, and `validation_failed` for a file that is not the
   * one that was meant.
   */
  fetch(
    source: Source,
    owner: string,
    options: { readonly signal: AbortSignal; readonly mostFiles: number; readonly checkName?: (name: string) => void },
  ): Promise<readonly CatalogFile[]>;
  close(): Promise<void>;
}

export function createSources(context: ApiContext): Sources {
  const { settings, objects, mlflow } = context;
  const { maxUploadBytes, uploadIdleTimeoutMs } = settings;
  const web = createGuardedClient((url) => isAllowedInside(url, settings.sourceAllowHosts));
  // The operator has said where the hub is.
  const { origin } = new URL(settings.huggingFace.url);
  const hub = createGuardedClient((url) => url.origin === origin);
  const kinds: Readonly<Record<Source["kind"], SourceKind>> = {
    https: createHttpsSource({ allowHosts: settings.sourceAllowHosts, client: web }),
    s3: createS3Source(objects, settings.sourceAllowBuckets),
    mlflow: createMlflowSource(mlflow, settings.sourceAllowRegisteredModels),
    huggingface: createHuggingFaceSource({
      ...settings.huggingFace,
      allowRepositories: settings.sourceAllowRepositories,
      client: hub,
    }),
  };

  /** The files at all addresses, under their names. */
  async function find({ kind, files }: Source, mostFiles: number, signal: AbortSignal): Promise<readonly FoundFile[]> {
    const found: FoundFile[] = [];
    for (const [i, asked] of files.entries()) {
      const pointer = `/source/files/${i}`;
      const remotes = await kinds[kind].find(asked.url, signal);
      for (const field of ["filename", "sha256"] as const) {
        if (remotes.length === 1 || asked[field] === undefined) continue;
        const names = remotes.map(({ name }) => name).join(", ");
        throw invalidField(`${pointer}/${field}`, "no_effect", `says something of one file, and there are ${names}`);
      }
      for (const remote of remotes) {
        const name = checkFileName(asked.filename ?? remote.name);
        if (found.some((other) => other.name === name)) {
          throw invalidField(
            `${pointer}/filename`,
            "duplicate_filename",
            `two files are named ${JSON.stringify(name)}`,
          );
        }
        found.push({ remote, name, asked, pointer });
      }
    }
    if (found.length <= mostFiles) return found;
    throw sourceFailed(`There are ${found.length} files at these addresses, and at most ${mostFiles} can be taken.`);
  }

  async function fetchOne(
    { remote, asked, name, pointer }: FoundFile,
    owner: string,
    left: number,
    signal: AbortSignal,
  ): Promise<CatalogFile> {
    const body = await remote.open(signal);
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
          seen += chunk.length;
          yield chunk as Uint8Array;
        }
      } catch (error) {
        // Named here: further on it could be taken for an error of our own disk.
        throw sourceFailed(`It ended before all of its bytes had come (${reasonOf(error)}).`);
      }
    })();
    const end = () => void body.destroy(new Error("given up"));
    for (const it of [stalled.signal, signal]) it.addEventListener("abort", end, { once: true });
    try {
      const ref = await storeFile(context, owner, bytes, left);
      const { sha256 } = ref;
      if (asked.sha256 !== undefined && asked.sha256 !== sha256) {
        throw invalidField(`${pointer}/sha256`, "sha256_mismatch", `the file has the sha256 ${sha256}`);
      }
      if (remote.sha256 !== undefined && remote.sha256 !== sha256) {
        throw sourceFailed(`Its bytes are not those that its keeper names: the sha256 is ${sha256}.`);
      }
      return { ...ref, name };
    } catch (error) {
      if (stalled.signal.aborted)
        throw sourceFailed(`Fewer than ${MIN_PROGRESS_BYTES} bytes came in ${uploadIdleTimeoutMs} ms.`);
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
        const refusal = kinds[kind].refusal(url);
        const at = `/source/files/${i}/url`;
        return refusal === undefined
          ? []
          : [{ pointer: at, code: "source_refused" as const, message: `${at}: ${refusal}` }];
      });
      if (fields.length > 0) {
        throw new ServiceError("validation_failed", fields.map(({ message }) => message).join(" "), { fields });
      }
    },
    async fetch(source, owner, { signal, mostFiles, checkName }) {
      const found = await find(source, mostFiles, signal);
      for (const { name } of found) checkName?.(name);
      const fetched: CatalogFile[] = [];
      let left = maxUploadBytes;
      for (const file of found) {
        const one = await fetchOne(file, owner, left, signal);
        left -= one.size_bytes;
        fetched.push(one);
      }
      return fetched;
    },
    async close() {
      await Promise.all([web.destroy(), hub.destroy()]);
    },
  };
}
