import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { loadConfig } from "../src/config.ts";
import { environmentForProgram, SECRETS_FD, secretsAsJson, takeSecrets } from "../src/secrets.ts";
import { type PrivateRedis, startPrivateRedis } from "../src/service/redis-server.ts";
import { compileCacheEnvironment } from "../src/tasks/compile-cache.ts";
import { createReaper } from "../src/tasks/reaper.ts";

/**
 * The whole service on one machine: a private redis-server when REDIS_URL is unset, the API and a worker. A program that dies is started
 * again; one that cannot even start ends everything. Ctrl-C and SIGTERM drain.
 */

const PROGRAMS = ["src/main.ts", "workers/main.ts"] as const;
/** A program that exits sooner after its start has something wrong with it that another start will not cure. */
const MIN_LIFE_MS = 5_000;
const RESTART_DELAY_MS = 500;
/** The programs themselves give up after 25 s. */
const STOP_TIMEOUT_MS = 28_000;

const ROOT = new URL("..", import.meta.url).pathname;
const running = new Set<ChildProcess>();
let redis: PrivateRedis | undefined;
let stopping = false;

async function main(): Promise<void> {
  takeSecrets();
  const config = loadConfig();
  const log = pino({ level: config.logLevel, base: { program: "start" } });
  const reaper = createReaper(log);
  if (config.redisUrl === null) {
    redis = await startPrivateRedis({ dataDir: config.dataDir, log, onGone: () => void stop(1) });
  }
  const secrets = secretsAsJson({ REDIS_URL: redis?.url ?? config.redisUrl ?? "" });

  /** Keeps a program running until we stop. */
  async function keep(program: string): Promise<void> {
    while (!stopping) {
      const started = performance.now();
      // Groups of their own: Ctrl-C reaches us only, and we stop them in the right order; the reaper does it if we are killed.
      const child = spawn(process.execPath, [program], {
        ...{ cwd: ROOT, detached: true },
        // Their first file, too, is read as it was compiled before: to take the types out of one costs as much as to start node.
        env: { ...environmentForProgram(), ...compileCacheEnvironment() },
        stdio: ["inherit", "inherit", "inherit", "pipe"],
      });
      const pipe = child.stdio[SECRETS_FD] as Writable;
      pipe.on("error", () => {}); // It died before it read them: its exit says so.
      pipe.end(secrets);
      running.add(child);
      if (child.pid !== undefined) reaper.watch(child.pid);
      const { how, killed } = await new Promise<{ how: string; killed: boolean }>((resolve) => {
        child.once("exit", (code, signal) => resolve({ how: signal ?? `exit code ${code}`, killed: signal !== null }));
        child.once("error", (error) => resolve({ how: error.message, killed: false }));
      });
      running.delete(child);
      if (child.pid !== undefined) reaper.forget(child.pid);
      if (stopping) return;
      if (!killed && performance.now() - started < MIN_LIFE_MS) {
        log.fatal(`${program} does not start (${how})`);
        return stop(1);
      }
      log.error(`${program} died (${how}); starting it again`);
      await sleep(RESTART_DELAY_MS);
    }
  }
  for (const program of PROGRAMS) keep(program);
}

/** Stops the programs, then Redis, then us. */
async function stop(exitCode: number): Promise<never> {
  stopping = true;
  const ended = [...running].map((child) => new Promise((resolve) => child.once("exit", resolve)));
  for (const child of running) child.kill("SIGTERM");
  const timer = setTimeout(() => {
    for (const child of running) child.kill("SIGKILL");
  }, STOP_TIMEOUT_MS);
  await Promise.all(ended);
  clearTimeout(timer);
  await redis?.close();
  process.exit(exitCode);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    // Asked twice: somebody is in a hurry.
    if (stopping) for (const child of running) child.kill("SIGKILL");
    else stop(0);
  });
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  await stop(1);
}
