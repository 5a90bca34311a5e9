import { openAsBlob } from "node:fs";
import { mkdir, mkdtemp, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { JobMetrics } from "../src/core/contract.ts";
import { type FieldError, pointerOf } from "../src/service/errors.ts";
import type { JobSpec } from "../src/service/kinds/kinds.ts";
import { type Reference, referencesIn } from "../src/service/kinds/resources.ts";
import { modelFiles } from "./local-jobs.ts";
import { UsageError } from "./options.ts";
import type { Outcome } from "./summary.ts";

/** The same jobs, done by a service: files are uploaded, what is made is downloaded. */

const POLL_MS = 500;

export interface RemoteService {
  readonly url: string;
  readonly key: string | undefined;
}

interface RemoteOptions {
  readonly directory: string;
  readonly force: boolean;
  readonly reading: unknown;
  readonly onProgress: (fraction: number, message: string) => void;
}

interface WireJob {
  readonly id: string;
  readonly status: string;
  readonly progress: { readonly fraction: number; readonly step: string; readonly message: string } | null;
  readonly error: { readonly code: string; readonly detail: string } | null;
  readonly result: {
    readonly accepted: boolean;
    readonly metrics: JobMetrics;
    readonly artifacts: readonly { readonly name: string; readonly url: string }[];
  } | null;
}

/** What the service refused, in its own words. */
export class ServiceRefusal extends Error {
  override readonly name = "ServiceRefusal";
  readonly code: string;
  readonly fields: readonly FieldError[] | undefined;

  constructor(code: string, message: string, fields?: readonly FieldError[]) {
    super(message);
    this.code = code;
    this.fields = fields;
  }
}

export function openService({ url, key }: RemoteService, signal: AbortSignal) {
  const base = url.replace(/\/+$/, "");
  const authorization = key === undefined ? {} : { authorization: `Bearer ${key}` };

  async function ask(path: string, init: RequestInit = {}): Promise<Response> {
    let response: Response;
    try {
      const headers = { ...authorization, ...(init.headers as Record<string, string> | undefined) };
      response = await fetch(`${base}${path}`, { signal, ...init, headers });
    } catch (error) {
      if (signal.aborted) throw error;
      const reason = (error as Error).cause instanceof Error ? ((error as Error).cause as Error).message : error;
      throw new ServiceRefusal("unreachable", `${base} cannot be reached: ${reason}`);
    }
    if (response.ok) return response;
    const { code, detail, errors } = (await response.json().catch(() => ({}))) as {
      readonly code?: string;
      readonly detail?: string;
      readonly errors?: readonly FieldError[];
    };
    throw new ServiceRefusal(code ?? String(response.status), detail ?? `${path}: ${response.status}`, errors);
  }

  async function post<T>(path: string, body: unknown): Promise<T> {
    const headers = { "content-type": "application/json" };
    return (await (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json()) as T;
  }

  /** The id of what a reference names: of the file there, once it is uploaded, or what is an id already. */
  async function idOf({ kind, id: path }: Reference, reading: unknown): Promise<string> {
    if (!(await stat(path).catch(() => undefined))?.isFile()) {
      if (/^(mdl|dst)_/.test(path)) return path;
      throw new UsageError(`There is no file ${path}, and it is no id.`);
    }
    const form = new FormData();
    form.set("name", basename(path));
    if (kind === "dataset" && reading !== null) form.set("spec", JSON.stringify(reading));
    const files = kind === "model" ? modelFiles(path) : [{ name: basename(path), path }];
    for (const file of files) form.append("file", await openAsBlob(file.path), file.name);
    const answer = await ask(`/v1/${kind}s`, { method: "POST", body: form });
    return ((await answer.json()) as { id: string }).id;
  }

  async function uploaded(spec: JobSpec, reading: unknown): Promise<JobSpec> {
    const own = structuredClone(spec) as JobSpec;
    const ids = new Map<string, string>();
    for (const reference of referencesIn(spec)) {
      const name = `${reference.kind} ${reference.id}`;
      if (!ids.has(name)) ids.set(name, await idOf(reference, reading));
      let at = own as unknown as Record<string, unknown>;
      for (const key of reference.path.slice(0, -1)) at = at[key] as Record<string, unknown>;
      at[reference.path.at(-1)!] = ids.get(name);
    }
    return own;
  }

  async function download(path: string, target: string): Promise<void> {
    const response = await ask(path);
    await mkdir(dirname(target), { recursive: true });
    const file = await open(target, "wx");
    try {
      for await (const chunk of response.body!) await file.write(chunk as Uint8Array);
    } finally {
      await file.close();
    }
  }

  return {
    async inspect(path: string): Promise<unknown> {
      const id = await idOf({ kind: "model", id: path, path: [] }, null);
      return (await ask(`/v1/models/${encodeURIComponent(id)}`)).json();
    },

    async plan(spec: JobSpec, reading: unknown): Promise<unknown> {
      return post("/v1/jobs/plan", await uploaded(spec, reading));
    },

    /** As for local files: all that the job makes, or nothing. An interrupt cancels the job. */
    async run(spec: JobSpec, { directory, force, reading, onProgress }: RemoteOptions): Promise<Outcome> {
      const target = resolve(directory);
      if (!force && (await stat(target).catch(() => undefined))) {
        throw new UsageError(`${directory} exists: name another --output, or replace it with --force.`);
      }
      let job = await post<WireJob>("/v1/jobs", await uploaded(spec, reading));
      const cancel = () =>
        fetch(`${base}/v1/jobs/${job.id}/cancel`, { method: "POST", headers: authorization }).catch(() => undefined);
      try {
        while (job.result === null && job.error === null && job.status !== "cancelled") {
          const { progress, status } = job;
          onProgress(progress?.fraction ?? 0, progress ? progress.message || progress.step : status);
          await sleep(POLL_MS, undefined, { signal });
          job = (await (await ask(`/v1/jobs/${job.id}`)).json()) as WireJob;
        }
      } catch (error) {
        if (signal.aborted) await cancel();
        throw error;
      }
      if (job.result === null) {
        throw new ServiceRefusal(job.error?.code ?? job.status, job.error?.detail ?? `The job is ${job.status}.`);
      }
      const { accepted, metrics, artifacts } = job.result;
      await mkdir(dirname(target), { recursive: true });
      const made = await mkdtemp(join(dirname(target), ".modelpress-"));
      try {
        const whole = join(made, "whole");
        for (const { name, url } of artifacts) {
          if (name.split("/").includes("..")) throw new ServiceRefusal("internal", `The service named a file ${name}.`);
          await download(url, join(whole, name));
        }
        if (force) await rm(target, { recursive: true, force: true });
        await rename(whole, target);
      } finally {
        await rm(made, { recursive: true, force: true });
      }
      return { accepted, metrics, directory, files: artifacts.map(({ name }) => name) };
    },
  };
}

/** Where a wrong field of a request is: `--flag` for a pointer into the body. */
export function flagAt(pointer: string, flagOf: (path: readonly string[]) => string): string {
  return pointer === pointerOf("", ["model_id"]) ? "MODEL" : `--${flagOf(pointer.split("/").slice(1))}`;
}
