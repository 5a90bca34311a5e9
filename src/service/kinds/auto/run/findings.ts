import type { JobRequest, LocalFile } from "../../../../tasks/protocol.ts";
import { cacheKeysOf } from "../../kinds.ts";
import type { SingleSpec } from "../../pipeline/steps.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { JobContext } from "../../run/job-steps.ts";
import type { AutoSpec } from "../spec.ts";
import type { Made } from "./make.ts";

/** What candidates have found out that others, and later jobs, need as well: by the keys under which jobs keep it. */
export class Findings {
  readonly #environment: JobEnvironment;
  readonly #context: JobContext;
  readonly #scratch: string;
  readonly #found = new Map<string, LocalFile>();
  /** The keys of those that jobs outside of this search have use for, by name. */
  readonly #ownKeys: Readonly<Record<string, string>>;
  #kept = 0;
  /** Networks that were trained, by their parameters. */
  readonly students = new Map<string, Made>();

  constructor({ spec, scratch, cached }: JobRequest<AutoSpec>, environment: JobEnvironment, context: JobContext) {
    this.#environment = environment;
    this.#context = context;
    this.#scratch = scratch;
    this.#ownKeys = cacheKeysOf(spec, environment.host);
    for (const [name, file] of Object.entries(cached)) {
      const key = this.#ownKeys[name];
      if (key !== undefined) this.#found.set(key, file);
    }
  }

  get(key: string): LocalFile | undefined {
    return this.#found.get(key);
  }

  /** What others have found that a candidate has use for, and how what it finds itself is kept for those that come after it. */
  sharedWith(spec: SingleSpec) {
    const keys = cacheKeysOf(spec, this.#environment.host);
    const known = Object.entries(keys).flatMap(([name, key]) => {
      const file = this.#found.get(key);
      return file ? [[name, file] as const] : [];
    });
    const found: (readonly [key: string, file: LocalFile])[] = [];
    const news: JobContext["news"] = (it) => {
      const key = it.kind === "cache" ? keys[it.name] : undefined;
      if (it.kind === "cache" && key !== undefined) found.push([key, { name: it.name, path: it.path }]);
      if (it.kind === "log") this.#context.news(it);
    };
    const keep = async () => {
      for (const [key, file] of found) await this.#keep(key, file);
    };
    return { keys, cached: Object.fromEntries(known), news, keep };
  }

  /** Keeps what a candidate has found for others, and tells of it where later jobs have use for it: of a copy, which is taken away. */
  async #keep(key: string, file: LocalFile): Promise<void> {
    this.#found.set(key, file);
    if (this.#ownKeys[file.name] !== key) return;
    const { files } = this.#environment;
    const path = await files.writeBytes(this.#scratch, `${file.name}-${this.#kept++}.cache`, files.readBytes(file));
    this.#context.news({ kind: "cache", name: file.name, path });
  }
}
