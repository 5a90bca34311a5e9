import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { JobRecord } from "../jobs/job-store.ts";
import { methodOf } from "../kinds/kinds.ts";
import type { ApiContext } from "./context.ts";

export interface Metrics extends JobMeter {
  /** `route` is the pattern, never the URL: a label for each model would never stop growing. */
  responded(method: string, route: string, status: number, seconds: number): void;
  /** In Prometheus' text format. */
  text(): Promise<string>;
  readonly contentType: string;
}

export interface JobMeter {
  submitted(job: JobRecord): void;
}

/** What this API process has done, and how the queue and its jobs are. */
export function createMetrics({
  jobs,
  queue,
  countDamagedBlobs,
}: Pick<ApiContext, "jobs" | "queue" | "countDamagedBlobs">): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const requests = new Histogram({
    name: "modelpress_http_request_duration_seconds",
    help: "Time from the request's headers to the end of the answer.",
    labelNames: ["method", "route", "status"],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60],
    registers,
  });
  const submissions = new Counter({
    name: "modelpress_jobs_submitted_total",
    help: "Jobs that were recorded by this process.",
    labelNames: ["type", "method"],
    registers,
  });
  const waiting = new Gauge({
    name: "modelpress_queue_jobs",
    help: "Jobs in the queue, by whether a worker has them.",
    labelNames: ["state"],
    registers,
  });
  const workers = new Gauge({ name: "modelpress_workers", help: "Live worker processes.", registers });
  const refusing = new Gauge({
    name: "modelpress_workers_refusing",
    help: "Of them, those that take no jobs, for example because their disk is full.",
    registers,
  });
  const handedBack = new Counter({
    name: "modelpress_jobs_handed_back_total",
    help: "Attempts at jobs that ended for reasons of the machine, not of the job: every API process reports the same.",
    registers,
  });
  const finished = new Counter({
    name: "modelpress_jobs_finished_total",
    help: "Jobs that have ended, whoever ran them: every API process reports the same.",
    labelNames: ["status"],
    registers,
  });
  const runSeconds = new Counter({
    name: "modelpress_job_run_seconds_total",
    help: "How long they ran; over modelpress_jobs_finished_total it is the mean.",
    registers,
  });
  const damaged = new Gauge({
    name: "modelpress_blobs_damaged",
    help: "Stored files that have lost bytes, of those that were read again: the log says which. Sending one again mends it.",
    registers,
  });
  const reachable = new Gauge({
    name: "modelpress_redis_up",
    help: "1 when the numbers of jobs and workers are known.",
    registers,
  });

  async function lookAtJobs(): Promise<void> {
    // The counters are kept in Redis; here they are only shown.
    for (const metric of [waiting, workers, refusing, finished, handedBack, runSeconds, damaged]) metric.reset();
    try {
      const [counts, live, totals, blobs] = await Promise.all([
        ...([queue.counts(), queue.workers(), jobs.totals()] as const),
        countDamagedBlobs(),
      ]);
      waiting.set({ state: "waiting" }, counts.waiting);
      waiting.set({ state: "active" }, counts.active);
      waiting.set({ state: "delayed" }, counts.delayed);
      workers.set(live.length);
      refusing.set(live.filter(({ refusals }) => refusals.length > 0).length);
      handedBack.inc(totals.handedBack);
      for (const status of ["succeeded", "failed", "cancelled"] as const) finished.inc({ status }, totals[status]);
      runSeconds.inc(totals.runSeconds);
      damaged.set(blobs);
      reachable.set(1);
    } catch {
      // The other metrics matter most when something is down.
      reachable.set(0);
    }
  }

  return {
    responded: (method, route, status, seconds) => requests.observe({ method, route, status }, seconds),
    submitted: (job) => submissions.inc({ type: job.spec.type, method: methodOf(job.spec) }),
    contentType: registry.contentType,
    async text() {
      await lookAtJobs();
      return registry.metrics();
    },
  };
}
