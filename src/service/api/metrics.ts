import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { JobRecord } from "../jobs/job-store.ts";
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

/** What this API process has done, and how the queue is now. Workers' own numbers are not here: they are other processes. */
export function createMetrics({ jobs, queue }: Pick<ApiContext, "jobs" | "queue">): Metrics {
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
  const byStatus = new Gauge({
    name: "modelpress_jobs",
    help: "Unfinished jobs.",
    labelNames: ["status"],
    registers,
  });
  const workers = new Gauge({ name: "modelpress_workers", help: "Live worker processes.", registers });
  const reachable = new Gauge({
    name: "modelpress_redis_up",
    help: "1 when the numbers of jobs and workers are known.",
    registers,
  });

  async function lookAtQueue(): Promise<void> {
    byStatus.reset();
    workers.reset();
    try {
      for (const status of ["queued", "running", "cancelling"] as const) {
        byStatus.set({ status }, (await jobs.active(status)).length);
      }
      workers.set(await queue.liveWorkers());
      reachable.set(1);
    } catch {
      // The other metrics matter most when something is down.
      reachable.set(0);
    }
  }

  return {
    responded: (method, route, status, seconds) => requests.observe({ method, route, status }, seconds),
    submitted: (job) => submissions.inc({ type: job.spec.type, method: job.spec.params.method }),
    contentType: registry.contentType,
    async text() {
      await lookAtQueue();
      return registry.metrics();
    },
  };
}
