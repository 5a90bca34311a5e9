import { readFileSync, statSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { availableParallelism, tmpdir, totalmem } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { pino } from "pino";
import type { DatasetFacts, ModelFacts } from "../src/core/contract.ts";
import { checkJob } from "../src/service/kinds/checks.ts";
import { exclusionsIn } from "../src/service/kinds/exclusions.ts";
import { type JobSpec, sourceModelId } from "../src/service/kinds/kinds.ts";
import { referencesIn } from "../src/service/kinds/resources.ts";
import type { StoredResources } from "../src/service/kinds/stored-resources.ts";
import {
  type JobInputs,
  type JobPlan,
  type LocalFile,
  type Room,
  TaskError,
  type TaskNews,
} from "../src/tasks/protocol.ts";
import { NO_SANDBOX } from "../src/tasks/sandbox.ts";
import { createSupervisor } from "../src/tasks/supervisor.ts";
import { UsageError } from "./options.ts";
import type { Outcome } from "./summary.ts";
import { tellingNames } from "./telling-names.ts";

/** Jobs on local files, each in a child process of this one. Files are what ids are for the service. */

const CHILD = new URL("../workers/child.ts", import.meta.url);
/** Nobody waits for a queue here, and nothing else shares the machine by its rules. */
const LIMITS = { timeoutMs: 2 ** 31 - 1, memoryBytes: totalmem() };

export interface LocalJobs {
  inspect(path: string): Promise<ModelFacts>;
  plan(spec: JobSpec, reading: unknown): Promise<JobPlan>;
  /** Runs a job and puts what it makes into `directory`, all of it or nothing. */
  run(spec: JobSpec, options: RunOptions): Promise<Outcome>;
  close(): Promise<void>;
}

interface RunOptions {
  readonly directory: string;
  readonly force: boolean;
  readonly threads: number | undefined;
  /** How datasets are to be read, where their files do not say it. */
  readonly reading: unknown;
  readonly onNews: (news: TaskNews) => void;
}

/** Children work in a directory below `parent`, from where what they have made is moved to its place. It is gone when the jobs are closed. */
export async function openLocalJobs(signal: AbortSignal, parent = tmpdir()): Promise<LocalJobs> {
  await mkdir(parent, { recursive: true });
  const scratch = await mkdtemp(join(parent, ".modelpress-"));
  // What is on this machine is its user's own, as the rights of the process are: there is nobody to protect it from.
  const tasks = createSupervisor({
    entry: CHILD,
    sandbox: NO_SANDBOX,
    log: pino({ level: "silent" }),
    tmpDir: scratch,
  });
  tasks.prepare();
  const ask: Room["run"] = (kind, request, options) =>
    tasks.withRoom(({ run }) => run(kind, request, { signal, ...options }), signal);

  /** Reads what the spec names, and refuses what does not go together, as the service does. */
  async function gather<S extends JobSpec>(spec: S, reading: unknown): Promise<JobInputs<S>> {
    const models: Record<string, JobInputs["models"][string]> = {};
    const datasets: Record<string, JobInputs["datasets"][string]> = {};
    const references = referencesIn(spec);
    const names = tellingNames(references.flatMap(({ kind, id }) => (kind === "model" ? [id] : [])));
    for (const { kind, id: path } of references) {
      if (kind === "model") {
        const files = modelFiles(path);
        models[path] ??= {
          ...{ files, name: names.get(path)! },
          facts: await ask("inspect_model", { files, dims: {} }, { limits: LIMITS }),
        };
      } else {
        const file = { name: basename(path), path: existing(path) };
        datasets[path] ??= {
          ...{ file, spec: reading },
          facts: await ask("inspect_dataset", { file, spec: reading }, { limits: LIMITS }),
        };
      }
    }
    const wrong = checkJob(spec, storedOf(models, datasets));
    const exclude = exclusionsIn(spec);
    const unknown =
      exclude && wrong.length === 0
        ? await ask("check_exclusions", { files: models[sourceModelId(spec)]!.files, exclude }, { limits: LIMITS })
        : [];
    const refused = [...wrong, ...unknown];
    if (refused.length > 0) {
      const message = refused.map((field) => field.message).join("\n");
      throw new TaskError({ code: "validation_failed", message, fields: refused });
    }
    return { spec, models, datasets };
  }

  return {
    async inspect(path) {
      return ask("inspect_model", { files: modelFiles(path), dims: {} }, { limits: LIMITS });
    },

    async plan(spec, reading) {
      return ask("plan_job", await gather(spec, reading), { limits: LIMITS });
    },

    async run(spec, { directory, force, threads, reading, onNews }) {
      const target = resolve(directory);
      if (!force && statSync(target, { throwIfNoEntry: false })) {
        throw new UsageError(`${directory} exists: name another --output, or replace it with --force.`);
      }
      const inputs = await gather(spec, reading);
      return tasks.withRoom(async ({ directory: room, run }) => {
        const work = join(room, "work");
        await mkdir(work);
        const request = {
          ...inputs,
          ...{ job_id: basename(target), scratch: work, threads: threads ?? availableParallelism() },
          ...{ checkpoints: {}, cached: {}, steps: [] },
        };
        const keep = (news: TaskNews) => {
          // Nobody goes on from it: it only has to make room for the next one.
          if (news.kind === "checkpoint") void rm(news.path, { force: true });
          onNews(news);
        };
        const {
          model,
          front = [],
          reports,
          accepted,
          metrics,
        } = await run("run_job", request, {
          limits: LIMITS,
          signal,
          onNews: keep,
        });
        signal.throwIfAborted();
        const whole = join(room, "whole");
        // Models of a search in folders of their own: external data is called by name in them. The recommended one stands beside the report, too.
        const recommended = front.find(({ name }) => name === metrics.auto?.recommendation.candidate);
        const files = [
          ...[...model, ...(recommended?.files ?? []), ...reports],
          ...front.flatMap((it) => it.files.map(({ name, path }) => ({ name: join(it.name, name), path }))),
        ];
        for (const { name, path } of files) {
          await mkdir(dirname(join(whole, name)), { recursive: true });
          await copyFile(path, join(whole, name));
        }
        if (force) await rm(target, { recursive: true, force: true });
        await rename(whole, target);
        return { accepted, metrics, directory, files: files.map(({ name }) => name) };
      }, signal);
    },

    async close() {
      await tasks.close();
      await rm(scratch, { recursive: true, force: true });
    },
  };
}

/** As the service would have recorded them: checks read no more than the facts and the id. */
function storedOf(models: JobInputs["models"], datasets: JobInputs["datasets"]): StoredResources {
  const record = (id: string) => ({
    id,
    name: id,
    created_at: "",
    identity: id,
    sha256: "",
    size_bytes: 0,
    metadata: {},
  });
  const noFile = { name: "", sha256: "", size_bytes: 0 };
  return {
    models: new Map(
      Object.entries(models).map(([id, { facts }]) => [id, { ...record(id), files: [], facts, derived_from: null }]),
    ),
    datasets: new Map(
      Object.entries(datasets).map(([id, { facts, spec }]: [string, { facts: DatasetFacts; spec: unknown }]) => [
        id,
        { ...record(id), file: noFile, spec, facts },
      ]),
    ),
  };
}

function existing(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found?.isFile()) throw new UsageError(`There is no file ${path}.`);
  return resolve(path);
}

/** The `.onnx` and the files beside it that it can have its weights in: those whose names are in it. */
export function modelFiles(path: string): LocalFile[] {
  const main = existing(path);
  const files = [{ name: basename(main), path: main }];
  for (const name of externalNames(readFileSync(main))) {
    const beside = join(dirname(main), name);
    if (statSync(beside, { throwIfNoEntry: false })?.isFile()) files.push({ name, path: beside });
  }
  return files;
}

/** Values of `location` entries of external data: a key of 8 bytes, then the value as a field of its own, as protobuf writes them. */
function externalNames(bytes: Buffer): ReadonlySet<string> {
  const key = Buffer.from("\x0a\x08location\x12", "latin1");
  const names = new Set<string>();
  for (let at = bytes.indexOf(key); at >= 0; at = bytes.indexOf(key, at + key.length)) {
    const [high, low] = [bytes[at + key.length + 1] ?? 0, bytes[at + key.length] ?? 0];
    const [length, start] = low < 0x80 ? [low, 1] : [(low & 0x7f) | (high << 7), 2];
    const from = at + key.length + start;
    names.add(bytes.toString("utf8", from, from + length));
  }
  return names;
}
