import type { Logger } from "pino";
import type { Progress } from "../src/service/jobs/job.ts";
import type { JobStore } from "../src/service/jobs/job-store.ts";
import type { TaskNews } from "../src/tasks/protocol.ts";

const PROGRESS_INTERVAL_MS = 250;
/** Of one attempt: a child could say more than anybody wants to keep. */
const MAX_ENTRIES = 2_000;

/** Records what a child says, in its order: every log line and metric up to a limit, progress at most once in 250 ms, that of a new step at once. */
export interface NewsRecorder {
  record(news: Exclude<TaskNews, { kind: "checkpoint" | "cache" }>): void;
  /** Resolves when all that was said is recorded; nothing is recorded after that. */
  finish(): Promise<void>;
}

export function createNewsRecorder(jobs: JobStore, id: string, log: Logger): NewsRecorder {
  let writes = Promise.resolve();
  let entries = 0;
  let pending: Progress | undefined;
  /** Of the newest progress. */
  let step: string | undefined;
  let timer: NodeJS.Timeout | undefined;
  let finished = false;

  function enqueue(write: () => Promise<void>): void {
    writes = writes.then(write).catch((error) => log.warn({ job: id, err: error }, "news of a job were lost"));
  }

  /** Records what is pending; says whether anything was. */
  function flush(): boolean {
    const progress = pending;
    pending = undefined;
    if (progress === undefined) return false;
    enqueue(() => jobs.setProgress(id, progress));
    return true;
  }

  function writeProgress(): void {
    timer = flush() ? setTimeout(writeProgress, PROGRESS_INTERVAL_MS) : undefined;
  }

  return {
    record(news) {
      if (finished) return;
      if (news.kind === "progress") {
        // When a step begins is told at once, and its progress does not replace the last one of the step before.
        if (news.progress.step !== step) {
          flush();
          clearTimeout(timer);
          timer = undefined;
          step = news.progress.step;
        }
        pending = news.progress;
        if (timer === undefined) writeProgress();
        return;
      }
      if (entries++ >= MAX_ENTRIES) return;
      if (news.kind === "metric") enqueue(() => jobs.appendEvent(id, "metric", news.data));
      else enqueue(() => jobs.appendEvent(id, "log", { level: news.level, message: news.message }));
    },
    finish() {
      finished = true;
      clearTimeout(timer);
      flush();
      return writes;
    },
  };
}
