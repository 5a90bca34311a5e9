import { readFileSync, rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JobMetrics } from "../../src/core/index.ts";
import type { Model } from "../../src/core/onnx/ir.ts";
import { loadModel } from "../../src/core/onnx/load.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import type { Report } from "../../src/report/report.ts";
import { JobRequest } from "../../src/service/api/job-schemas.ts";
import type { JobSpec } from "../../src/service/kinds/kinds.ts";
import type { JobEnvironment } from "../../src/service/kinds/run/job-environment.ts";
import type { JobRun } from "../../src/service/kinds/run/job-run.ts";
import type { JobContext } from "../../src/service/kinds/run/job-steps.ts";
import type { JobOutcome, JobPlan, LocalFile, TaskNews, JobRequest as TaskRequest } from "../../src/tasks/protocol.ts";
import { ENVIRONMENT, TASK_HANDLERS } from "../../workers/tasks.ts";
import { factsSaying } from "./jobs.ts";

/** Jobs in the process of the test, with real files and the real runtime: what a child does, without the child. */

export interface JobOptions {
  /** As it is sent; ids of models and datasets are the keys below. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly models: Readonly<Record<string, Model>>;
  readonly datasets?: Readonly<Record<string, Uint8Array>>;
  readonly checkpoints?: Readonly<Record<string, Uint8Array>>;
  readonly cached?: Readonly<Record<string, Uint8Array>>;
  readonly environment?: Partial<JobEnvironment>;
  readonly steps?: TaskRequest["steps"];
  readonly signal?: AbortSignal;
  /** Hears what the job tells, as it is told. */
  readonly onNews?: (news: TaskNews) => void;
}

/** What memory a run takes is found out in a process of its own, which takes longer than all else. */
export const NO_PEAK: Partial<JobEnvironment> = {
  measurePeak: async () => ({ peakBytes: 3_000_000, baselineBytes: 1_000_000 }),
};

/** Calls `use` with the request of a job, in a directory that is gone afterwards. */
async function withRequest<S extends JobSpec, T>(
  { body, models, datasets = {}, checkpoints = {}, cached = {}, steps = [] }: JobOptions,
  use: (request: TaskRequest<S>) => Promise<T>,
): Promise<T> {
  const scratch = await mkdtemp(join(tmpdir(), "job-"));
  const context = { signal: new AbortController().signal, news: () => {} };
  const write = async (name: string, bytes: Uint8Array): Promise<LocalFile> => {
    const path = join(scratch, `given-${name}`);
    await writeFile(path, bytes);
    return { name, path };
  };
  const each = async <A, B>(from: Readonly<Record<string, A>>, make: (id: string, it: A) => Promise<B>) =>
    Object.fromEntries(await Promise.all(Object.entries(from).map(async ([id, it]) => [id, await make(id, it)])));
  try {
    return await use({
      ...{ spec: JobRequest.parse(body) as unknown as S, job_id: "job_1", scratch, threads: 1, steps },
      models: await each(models, async (id, model) => {
        const files = [await write(`${id}.onnx`, modelToBytes(model))];
        const { inspect_model } = TASK_HANDLERS;
        return { files, facts: await inspect_model({ files, dims: {} }, context).catch(() => factsSaying("nothing")) };
      }),
      datasets: await each(datasets, async (id, bytes) => {
        const file = await write(`${id}.npz`, bytes);
        return { file, spec: null, facts: await TASK_HANDLERS.inspect_dataset({ file, spec: null }, context) };
      }),
      checkpoints: await each(checkpoints, (name, bytes) => write(`${name}.earlier`, bytes)),
      cached: await each(cached, (name, bytes) => write(`${name}.found`, bytes)),
    });
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** What a job has told, with the bytes of the files that it handed over. */
export interface Told {
  readonly news: readonly TaskNews[];
  readonly checkpoints: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  readonly caches: readonly { readonly name: string; readonly bytes: Uint8Array }[];
}

export interface Ran extends Told {
  readonly outcome: JobOutcome;
  readonly metrics: JobMetrics;
  readonly report: Report;
  readonly page: string;
  /** Everything that became an artifact, by name; models of the front of a search by that of their candidate. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** A model among them; models of tests have no external data. */
  readonly model: (name?: string) => Model;
}

/** Collects what a job tells; a checkpoint is taken away as it would be, so that there is room for the next. */
function listen({ signal = new AbortController().signal, onNews }: JobOptions): { told: Told; context: JobContext } {
  const told = {
    news: [] as TaskNews[],
    checkpoints: [] as { name: string; bytes: Uint8Array }[],
    caches: [] as { name: string; bytes: Uint8Array }[],
  };
  const news = (it: TaskNews) => {
    told.news.push(it);
    if (it.kind === "cache") told.caches.push({ name: it.name, bytes: readFileSync(it.path) });
    if (it.kind === "checkpoint") {
      told.checkpoints.push({ name: it.name, bytes: readFileSync(it.path) });
      rmSync(it.path);
    }
    onNews?.(it);
  };
  return { told, context: { signal, news } };
}

/** Runs a job of a kind; `run` is its work. */
export function runJob<S extends JobSpec>({ run }: JobRun<S>, options: JobOptions): Promise<Ran> {
  return withRequest<S, Ran>(options, async (request) => {
    const { told, context } = listen(options);
    const outcome = await run(request, { ...ENVIRONMENT, ...options.environment }, context);
    const files = new Map<string, Uint8Array>();
    for (const { name, path } of [...outcome.model, ...outcome.reports]) files.set(name, await readFile(path));
    for (const front of outcome.front ?? []) {
      for (const { name, path } of front.files) files.set(`${front.name}/${name}`, await readFile(path));
    }
    const text = (name: string) => new TextDecoder().decode(files.get(name));
    const { metrics } = outcome;
    return {
      ...{ ...told, outcome, metrics, files, report: JSON.parse(text("report.json")), page: text("report.html") },
      model: (name = "model.onnx") => loadModel(files.get(name)!),
    };
  });
}

/** What is planned for the same job. */
export function planJob<S extends JobSpec>({ plan }: JobRun<S>, options: JobOptions) {
  return withRequest<S, Extract<JobPlan, { type: S["type"] }>>(options, (request) =>
    plan(request, { ...ENVIRONMENT, ...options.environment }, listen(options).context),
  );
}
