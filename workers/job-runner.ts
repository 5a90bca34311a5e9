import type { Logger } from "pino";
import { isTerminal, jobError } from "../src/service/jobs/job.ts";
import type { RunEnd } from "../src/service/jobs/job-consumer.ts";
import type { JobRecord, JobStore } from "../src/service/jobs/job-store.ts";
import { untilAnswered } from "../src/service/redis.ts";
import { failureOfError, isMachineFailure } from "../src/tasks/failures.ts";
import { TaskError, type TaskFailure, type TaskLimits, type TaskRunner } from "../src/tasks/protocol.ts";
import { type Done, modelsOf } from "./conduct/conduct.ts";
import { conductOf } from "./conduct/conducts.ts";
import type { JobCache } from "./job-cache.ts";
import type { JobCheckpoints } from "./job-checkpoints.ts";
import type { JobFiles } from "./job-files.ts";
import { createPerformer } from "./job-part.ts";
import { createNewsRecorder } from "./news-recorder.ts";
import type { WorkerHealth } from "./worker-health.ts";

export interface JobRunnerOptions {
  readonly jobs: JobStore;
  readonly files: JobFiles;
  readonly checkpoints: JobCheckpoints;
  readonly cache: JobCache;
  readonly tasks: TaskRunner;
  /** Hears of attempts that failed for reasons of this machine. */
  readonly health: Pick<WorkerHealth, "failed" | "succeeded">;
  readonly limits: TaskLimits;
  readonly threads: number;
  readonly log: Logger;
}

/**
 * Why a running job is stopped: somebody cancelled it; this worker shuts down and another one is to run it; another one runs it already.
 */
export type StopReason = "cancel" | "shutdown" | "superseded";

export interface JobRunner {
  /** Runs a recorded job to its end, or to where it is handed back. While Redis is away, or refuses, it waits. */
  run(id: string): Promise<RunEnd>;
  stopAll(reason: StopReason): void;
  /** Looks whether the jobs that run (or one of them) are still ours to run, and stops those that are not. */
  checkRunning(id?: string): Promise<void>;
}

/** A job whose worker went away this often is not given to yet another one. */
const MAX_ATTEMPTS = 5;
/** How often a child may crash before the model is to blame. */
const MAX_CRASHES = 2;
/** How often a job may be handed back for reasons of machines before it is given up; with growing delays that is a quarter of an hour at least. */
const MAX_HANDED_BACK = 20;
const HAND_BACK_MS = { first: 1_000, most: 60_000 };

interface Run {
  readonly controller: AbortController;
  readonly ended: Promise<RunEnd>;
  /** 0 between attempts. */
  attempt: number;
}

/** `error` is what a failure was read from. */
type Ending = { readonly done: Done } | { readonly failure: TaskFailure; readonly error?: unknown };

export function createJobRunner(options: JobRunnerOptions): JobRunner {
  const { files, checkpoints, health, log } = options;
  const jobs = patient(options.jobs);
  const runs = new Map<string, Run>();

  /** Marks a job as running here. Undefined when there is nothing to run: it has ended, or ends now. */
  async function begin(id: string): Promise<JobRecord | undefined> {
    for (;;) {
      const job = await jobs.get(id);
      if (job === undefined || isTerminal(job.status)) return undefined;
      if (job.status === "cancelling") {
        await endCancelled(job);
      } else if (job.status === "running") {
        // Its worker is gone, else the queue would not have given it to us.
        await jobs.transition(id, ["running"], "queued", { progress: null }, { attempt: job.attempt });
      } else if (job.attempt - job.handed_back >= MAX_ATTEMPTS) {
        const message = `The job was started ${job.attempt - job.handed_back} times, and its worker went away every time.`;
        await endFailed(job, { code: "worker_crashed", message });
      } else {
        const started = { attempt: job.attempt + 1, started_at: new Date().toISOString(), progress: null };
        const running = await jobs.transition(id, ["queued"], "running", started, { attempt: job.attempt });
        if (running !== undefined) return running;
      }
    }
  }

  /** One attempt: from the blob store to a directory, through children, and back. */
  async function work(job: JobRecord, signal: AbortSignal): Promise<Ending> {
    const news = createNewsRecorder(options.jobs, job.id, log);
    const saved = checkpoints.recorder(job);
    try {
      const perform = createPerformer({ ...options, job, news, saved, signal });
      return { done: await conductOf(job.spec)(job.spec, { job, perform, files, jobs, news, signal }) };
    } catch (error) {
      if (signal.aborted) return { failure: { code: "cancelled", message: "The job was stopped." } };
      const failure = failureOfError(error);
      // Not by us: a SIGTERM from outside, which a service manager sends to every process of ours when it stops the worker.
      if (failure.code === "cancelled") {
        return { failure: { code: "unavailable", message: "The process that did the work was told to stop." } };
      }
      if (failure.code === "internal") log.error({ job: job.id, err: error }, "a job failed in an unexpected way");
      return { failure, error };
    } finally {
      await news.finish();
      await saved.finish();
    }
  }

  /** Records how an attempt ended. `again` when the job is queued for one more here. */
  async function end(
    job: JobRecord,
    ending: Ending,
    stopped: StopReason | undefined,
    mayRetry: boolean,
  ): Promise<RunEnd | "again"> {
    if (stopped === "superseded") return "done";
    const guard = { attempt: job.attempt };
    if ("done" in ending) {
      const { result, models } = ending.done;
      const progress = { step: "done", fraction: 1, message: "" };
      const finished_at = new Date().toISOString();
      await jobs.transition(job.id, ["running"], "succeeded", { finished_at, progress, result }, guard);
      // Not by the answer: it may be lost with the connection, and the step is then sent again.
      const now = await jobs.get(job.id);
      if (now?.attempt !== job.attempt) return "done";
      if (now.status === "cancelling") await endCancelled(now, models);
      return "done";
    }
    const { failure } = ending;
    const handedBack = { progress: null, handed_back: job.handed_back + 1 };
    if (stopped === "shutdown" && (await jobs.transition(job.id, ["running"], "queued", handedBack, guard))) {
      return { againInMs: 0 };
    }
    if (isMachineFailure(failure) && job.handed_back < MAX_HANDED_BACK) {
      const againInMs = Math.min(HAND_BACK_MS.first * 2 ** job.handed_back, HAND_BACK_MS.most);
      const message = `${failure.message} That is not the job's fault: it is tried again in ${againInMs / 1000} s.`;
      await jobs.appendEvent(job.id, "log", { level: "warn", message });
      if (await jobs.transition(job.id, ["running"], "queued", handedBack, guard)) return { againInMs };
    }
    if (failure.code === "worker_crashed" && mayRetry) {
      await jobs.appendEvent(job.id, "log", { level: "warn", message: `${failure.message} Trying again.` });
      if (await jobs.transition(job.id, ["running"], "queued", { progress: null }, guard)) return "again";
    }
    if (failure.code === "cancelled") await endCancelled(job);
    else await endFailed(job, failure);
    return "done";
  }

  async function endCancelled(job: JobRecord, models?: Done["models"]): Promise<void> {
    const finished_at = new Date().toISOString();
    const guard = { attempt: job.attempt };
    const ended = await jobs.transition(job.id, ["running", "cancelling"], "cancelled", { finished_at }, guard);
    if (ended) await withdraw(job.id, models ?? modelsOf(ended.steps));
  }

  async function endFailed(job: JobRecord, failure: TaskFailure): Promise<void> {
    const patch = { finished_at: new Date().toISOString(), error: jobError(failure) };
    const guard = { attempt: job.attempt };
    const ended = await jobs.transition(job.id, ["queued", "running"], "failed", patch, guard);
    // When it was asked to cancel in the meantime, that is how it ends.
    if (ended === undefined) await endCancelled(job);
    // A retry of a pipeline goes on behind the steps that are finished: they keep their models and reports.
    else if (ended.steps.length === 0) await withdraw(job.id, []);
  }

  const withdraw = (id: string, models: Done["models"]) => untilAnswered(() => files.withdraw(id, models));

  async function runToEnd(id: string, run: Pick<Run, "controller" | "attempt">): Promise<RunEnd> {
    const { signal } = run.controller;
    for (let crashes = 1; ; crashes++) {
      run.attempt = 0;
      const job = await begin(id);
      if (job === undefined) {
        await checkpoints.drop(id);
        return "done";
      }
      run.attempt = job.attempt;
      const ending = await work(job, signal);
      const stopped = signal.aborted ? (signal.reason as StopReason) : undefined;
      const step = await end(job, ending, stopped, crashes < MAX_CRASHES);
      const result = "failure" in ending ? { code: ending.failure.code, message: ending.failure.message } : {};
      log.info({ job: id, attempt: job.attempt, stopped, ...result }, "attempt ended");
      tellHealth(ending);
      if (step === "again") continue;
      if (step === "done") await checkpoints.drop(id);
      return step;
    }
  }

  /** A child's word is not enough: its model may have made it say so. */
  function tellHealth(ending: Ending): void {
    if ("done" in ending) health.succeeded();
    else if (isMachineFailure(ending.failure) && !(ending.error instanceof TaskError)) health.failed(ending.failure);
  }

  return {
    run(id) {
      // After a long outage of Redis the queue may give us a job that we run already: there is one run, and both wait for it.
      const earlier = runs.get(id);
      if (earlier !== undefined) return earlier.ended;
      const run = { controller: new AbortController(), attempt: 0 };
      const ended = runToEnd(id, run).finally(() => runs.delete(id));
      runs.set(id, Object.assign(run, { ended }));
      return ended;
    },

    stopAll(reason) {
      for (const { controller } of runs.values()) controller.abort(reason);
    },

    async checkRunning(id) {
      for (const [runId, run] of id === undefined ? runs : [[id, runs.get(id)] as const]) {
        if (run === undefined) continue;
        const { attempt } = run;
        const job = await jobs.get(runId);
        if (job?.status === "cancelling") run.controller.abort("cancel");
        else if (attempt > 0 && attempt === run.attempt && job?.attempt !== attempt) run.controller.abort("superseded");
      }
    },
  };
}

/** The store, whose writes wait while Redis is away or refuses: what an attempt has come to must not be lost. */
function patient(jobs: JobStore): Pick<JobStore, "get" | "transition" | "setSteps" | "appendEvent"> {
  return {
    get: (...args) => untilAnswered(() => jobs.get(...args)),
    transition: (...args) => untilAnswered(() => jobs.transition(...args)),
    setSteps: (...args) => untilAnswered(() => jobs.setSteps(...args)),
    appendEvent: (...args) => untilAnswered(() => jobs.appendEvent(...args)),
  };
}
