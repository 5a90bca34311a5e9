import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { FinishedStep } from "../src/service/jobs/job.ts";
import type { JobRecord } from "../src/service/jobs/job-store.ts";
import { recordedMetrics } from "../src/service/jobs/recorded-metrics.ts";
import type { JobSpec } from "../src/service/kinds/kinds.ts";
import { failureOfError, isMachineFailure } from "../src/tasks/failures.ts";
import type { JobOutcome, JobRequest, LocalFile, TaskLimits, TaskNews, TaskRunner } from "../src/tasks/protocol.ts";
import type { JobCache } from "./job-cache.ts";
import type { CheckpointRecorder, JobCheckpoints } from "./job-checkpoints.ts";
import type { JobFiles } from "./job-files.ts";
import type { NewsRecorder } from "./news-recorder.ts";
import type { WorkerHealth } from "./worker-health.ts";

/** What one child does of a job: all of it, a step of a pipeline, or the comparison at a pipeline's end. */
export interface JobPart {
  readonly spec: JobSpec;
  /** Before the names of its checkpoints, and of the steps of its progress. */
  readonly prefix: string;
  /** From which fraction of the job to which. */
  readonly span: readonly [number, number];
  /** The models that it needs, where those are not the ones that the spec names. */
  readonly models?: readonly string[];
  readonly steps?: readonly FinishedStep[];
}

interface PerformerOptions {
  readonly job: JobRecord;
  readonly files: JobFiles;
  readonly cache: JobCache;
  readonly tasks: TaskRunner;
  readonly health: Pick<WorkerHealth, "failed">;
  readonly limits: TaskLimits;
  readonly threads: number;
  readonly news: NewsRecorder;
  readonly checkpoints: Pick<JobCheckpoints, "fetch">;
  readonly saved: CheckpointRecorder;
  readonly signal: AbortSignal;
}

/** Before a result that could not be stored is stored again. */
const STORE_AGAIN_MS = { first: 1_000, most: 15_000 };
/** After this long the work is given up, and the job handed back. */
const STORE_MAX_MS = 60 * 60_000;

/**
 * Performs a part in a child process, on copies of its inputs, and gives what it has made to `publish`, which must store it: the files are
 * gone afterwards. While they cannot be stored for reasons of the machine they are kept, and only the storing is repeated. Rejects as the
 * task does, or `publish`.
 */
export type Performer = <T>(part: JobPart, publish: (outcome: JobOutcome, scratch: string) => Promise<T>) => Promise<T>;

export function createPerformer(options: PerformerOptions): Performer {
  const { job, files, cache, checkpoints, tasks, health, limits, threads, news, saved, signal } = options;

  /** Records what the child of a part says as something that its job says. */
  function listen({ prefix, span: [start, end] }: JobPart, scratch: string, cached: (news: CacheNews) => void) {
    return (it: TaskNews): void => {
      if (it.kind === "checkpoint") saved.record({ ...it, name: prefix + it.name }, scratch);
      else if (it.kind === "cache") cached(it);
      else if (it.kind === "progress") {
        const { step, fraction, message } = it.progress;
        const whole = start + fraction * (end - start);
        news.record({ kind: "progress", progress: { step: prefix + step, fraction: whole, message } });
      } else if (it.kind === "metric" && prefix !== "") {
        news.record({ kind: "metric", data: { step: prefix.slice(0, -1), ...it.data } });
      } else news.record(it);
    };
  }

  async function untilStored<T>(store: () => Promise<T>): Promise<T> {
    const start = performance.now();
    for (let delayMs = STORE_AGAIN_MS.first; ; delayMs = Math.min(2 * delayMs, STORE_AGAIN_MS.most)) {
      try {
        return await store();
      } catch (error) {
        const failure = failureOfError(error);
        const tooLate = performance.now() - start > STORE_MAX_MS;
        if (signal.aborted || tooLate || !isMachineFailure(failure)) throw error;
        health.failed(failure);
        const message = `The work is done, but its result cannot be stored now: ${failure.message} Trying again.`;
        news.record({ kind: "log", level: "warn", message });
        await sleep(delayMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  /** The checkpoints of earlier attempts at this part. */
  function fetchCheckpoints(prefix: string, directory: string): Promise<Readonly<Record<string, LocalFile>>> {
    const own = Object.entries(job.checkpoints).filter(([name]) => name.startsWith(prefix));
    const named = own.map(([name, ref]) => [name.slice(prefix.length), ref] as const);
    return checkpoints.fetch({ ...job, checkpoints: Object.fromEntries(named) }, directory);
  }

  return (part, publish) =>
    tasks.withRoom(async ({ directory, run }) => {
      const { spec, prefix } = part;
      const scratch = join(directory, "work");
      const cached: Promise<void>[] = [];
      try {
        await mkdir(scratch, { recursive: true });
        const start = performance.now();
        const inputs = await files.fetchInputs(spec, join(directory, "inputs"), part.models);
        news.record({ kind: "metric", data: { fetch_inputs_ms: Math.round(performance.now() - start) } });
        const request: JobRequest = {
          ...inputs,
          job_id: job.id,
          scratch,
          threads,
          checkpoints: await fetchCheckpoints(prefix, join(directory, "checkpoints")),
          cached: await cache.fetch({ id: job.id, spec }, join(directory, "cached")),
          steps: part.steps ?? [],
        };
        const keep = (it: CacheNews) => void cached.push(cache.store({ id: job.id, spec }, scratch, it));
        const onNews = listen(part, scratch, keep);
        const outcome = await run("run_job", request, { limits, signal, onNews });
        const kept = { ...outcome, metrics: recordedMetrics(outcome.metrics) };
        return await untilStored(() => publish(kept, scratch));
      } finally {
        await saved.finish();
        await Promise.all(cached);
      }
    }, signal);
}

type CacheNews = Extract<TaskNews, { kind: "cache" }>;
