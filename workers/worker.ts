import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Config } from "../src/config.ts";
import { processName } from "../src/leftovers.ts";
import { startBlobChecks } from "../src/service/blobs/blob-checks.ts";
import { createBlobClaims } from "../src/service/blobs/claims.ts";
import { createLongTexts } from "../src/service/blobs/long-texts.ts";
import { openBlobStore } from "../src/service/blobs/open-blob-store.ts";
import { openObjects } from "../src/service/blobs/open-objects.ts";
import { createCatalog } from "../src/service/catalog.ts";
import { startDeliveries } from "../src/service/jobs/deliveries.ts";
import { consumeJobs } from "../src/service/jobs/job-consumer.ts";
import { createJobQueue } from "../src/service/jobs/queue.ts";
import { startReconciler } from "../src/service/jobs/reconciler.ts";
import { createRedisJobStore } from "../src/service/jobs/redis-job-store.ts";
import { startWebhooks } from "../src/service/jobs/webhooks.ts";
import { createMlflowClient } from "../src/service/mlflow/client.ts";
import { checkClock, closeRedis, openRedis } from "../src/service/redis.ts";
import { compileForChildren } from "../src/tasks/compile-cache.ts";
import { openSandbox } from "../src/tasks/sandbox.ts";
import { createSupervisor } from "../src/tasks/supervisor.ts";
import { describeHost } from "./host.ts";
import { createJobCache } from "./job-cache.ts";
import { createJobCheckpoints } from "./job-checkpoints.ts";
import { createJobFiles } from "./job-files.ts";
import { createJobRunner } from "./job-runner.ts";
import { createWorkerScratch } from "./scratch.ts";
import { diskProbe, freeBytes, startWorkerHealth } from "./worker-health.ts";

export interface WorkerOptions {
  readonly config: Config;
  readonly redisUrl: string;
  /** The module that runs the jobs. */
  readonly childEntry: URL;
  readonly log: Logger;
  /** The worker is stuck and must be replaced by a new process. */
  readonly onStuck: () => void;
  /** How long jobs may go on after `close`. */
  readonly drainGraceMs?: number;
}

export interface RunningWorker {
  readonly name: string;
  /** Takes no more jobs, waits a while for those that run, hands the rest back to the queue. */
  close(): Promise<void>;
}

/** Orchestrators kill 30 s after they ask; this leaves time to stop the children and to hand the jobs back. */
const DRAIN_GRACE_MS = 10_000;
/** A cancel signal is lost when the connection breaks at the wrong moment: running jobs are looked at this often in any case. */
const CHECK_INTERVAL_MS = 1_000;

/** Starts to take jobs from the queue. */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const { config, log, drainGraceMs = DRAIN_GRACE_MS } = options;
  const name = processName();
  const redis = await openRedis(options.redisUrl, "worker", log);
  const blobs = await openBlobStore(config);
  const claims = createBlobClaims(redis, blobs);
  const texts = createLongTexts(blobs, claims);
  const jobs = createRedisJobStore(redis, texts);
  const queue = createJobQueue(redis, log);
  const scratch = await createWorkerScratch(join(config.dataDir, "work"));
  const sandbox = await openSandbox({
    ...{ wanted: config.sandbox, entry: options.childEntry, directory: scratch.path, log },
  });
  compileForChildren().catch((error) => log.warn({ err: error }, "the code of child processes is not kept compiled"));
  const tasks = createSupervisor({ entry: options.childEntry, sandbox, log, tmpDir: scratch.path });
  const health = startWorkerHealth({
    probes: {
      disk: diskProbe(scratch.path, config.minFreeDiskBytes),
      "blob store": () => blobs.check(),
      "child processes": () => tasks.check(),
      clock: () => checkClock(redis),
    },
    log,
  });
  const catalog = createCatalog(redis, claims, texts, config.maxRecords);
  const runner = createJobRunner({
    jobs,
    files: createJobFiles({
      blobs,
      claims,
      catalog,
      freeBytes,
    }),
    checkpoints: createJobCheckpoints({ blobs, claims, jobs, log }),
    cache: createJobCache({ redis, blobs, claims, host: describeHost(), log }),
    ...{ tasks, health },
    limits: { timeoutMs: config.jobTimeoutMs, memoryBytes: config.jobMemoryBytes },
    threads: config.jobThreads,
    log,
  });
  const check = (id?: string) =>
    runner.checkRunning(id).catch((error) => log.warn({ err: error }, "running jobs could not be checked"));

  const consumer = consumeJobs(redis, {
    name,
    concurrency: config.workerConcurrency,
    run: (id) => runner.run(id),
    refusals: () => health.refusals(),
    onCancel: check,
    onLost: check,
    onStuck: options.onStuck,
    log,
  });
  const reconciler = startReconciler({
    ...{ redis, jobs, queue, claims, log },
    queueTimeoutMs: config.queueTimeoutMs,
    retentionMs: config.retentionMs,
  });
  const webhooks =
    config.webhookSecret === null
      ? undefined
      : startWebhooks({
          ...{ redis, jobs, log },
          secret: config.webhookSecret,
          allowHosts: config.webhookAllowHosts,
          publicUrl: config.publicUrl,
        });
  const mlflow = config.mlflow && { client: createMlflowClient(config.mlflow), experiment: config.mlflow.experiment };
  const deliveries = startDeliveries({
    ...{ redis, jobs, blobs, mlflow, log },
    models: catalog.models,
    objects: openObjects(config.s3),
    lists: config,
  });
  const blobChecks =
    config.blobCheckBytesPerSecond === 0
      ? undefined
      : startBlobChecks({ redis, blobs, claims, bytesPerSecond: config.blobCheckBytesPerSecond, log });
  const checks = setInterval(async () => {
    await check();
    await scratch.touch().catch(() => {});
  }, CHECK_INTERVAL_MS);
  log.info({ worker: name, concurrency: config.workerConcurrency, threads: config.jobThreads }, "worker started");

  return {
    name,
    async close() {
      reconciler.close();
      await blobChecks?.close();
      health.close();
      const drained = consumer.close();
      await Promise.race([drained, sleep(drainGraceMs, undefined, { ref: false })]);
      runner.stopAll("shutdown");
      await drained;
      clearInterval(checks);
      await tasks.close();
      await webhooks?.close();
      await deliveries.close();
      await mlflow?.client.close();
      jobs.close();
      await queue.close();
      await closeRedis(redis);
      await scratch.remove();
      log.info({ worker: name }, "worker stopped");
    },
  };
}
