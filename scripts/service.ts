import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { environmentForProgram, SECRETS_FD, secretsAsJson, takeSecrets } from "../src/secrets.ts";
import type { PrivateRedis } from "../src/service/redis-server.ts";
import { compileCacheEnvironment } from "../src/tasks/compile-cache.ts";

/**
 * The whole service on one machine: a private redis-server when REDIS_URL is unset, the API and a worker. A program that dies is started
 * again; one that cannot even start ends everything. Ctrl-C and SIGTERM drain.
 */

const API = "src/main.ts";
const WORKER = "workers/main.ts";
/** A program that exits sooner after its start has something wrong with it that another start will not cure. */
const MIN_LIFE_MS = 5_000;
const RESTART_DELAY_MS = 500;
/** Then the worker is started all the same. */
const MAX_API_START_MS = 3_000;
const POLL_MS = 10;
/** The programs themselves give up after 25 s. */
const STOP_TIMEOUT_MS = 28_000;

const ROOT = new URL("..", import.meta.url).pathname;
const running = new Set<ChildProcess>();
let redis: PrivateRedis | undefined;
let stopping = false;

/** A program that has been started. It loads its modules and then waits for its secrets. */
interface Launched {
  readonly child: ChildProcess;
  readonly at: number;
  readonly ended: Promise<{ readonly how: string; readonly killed: boolean }>;
}

function launch(program: string): Launched {
  // Groups of their own: Ctrl-C reaches us only, and we stop them in the right order; the reaper does it if we are killed.
  const child = spawn(process.execPath, [program], {
    ...{ cwd: ROOT, detached: true },
    // Their first file, too, is read as it was compiled before: to take the types out of one costs as much as to start node.
    env: { ...environmentForProgram(), ...compileCacheEnvironment() },
    stdio: ["inherit", "inherit", "inherit", "pipe"],
  });
  child.stdio[SECRETS_FD]?.on("error", () => {}); // It died before it read them: its exit says so.
  running.add(child);
  const ended = new Promise<Awaited<Launched["ended"]>>((resolve) => {
    child.once("exit", (code, signal) => resolve({ how: signal ?? `exit code ${code}`, killed: signal !== null }));
    child.once("error", (error) => resolve({ how: error.message, killed: false }));
  });
  ended.then(() => running.delete(child));
  return { child, at: performance.now(), ended };
}

async function main(): Promise<void> {
  takeSecrets();
  // It is the longest of all: it loads while we do, and while Redis starts.
  const api = launch(API);
  const [{ pino }, { loadConfig }, { createReaper }, { startPrivateRedis }] = await Promise.all([
    import("pino"),
    import("../src/config.ts"),
    import("../src/tasks/reaper.ts"),
    import("../src/service/redis-server.ts"),
  ]);
  const config = loadConfig();
  const log = pino({ level: config.logLevel, base: { program: "start" } });
  const reaper = createReaper(log);
  if (config.redisUrl === null) {
    redis = await startPrivateRedis({ dataDir: config.dataDir, log, onGone: () => void stop(1) });
  }
  const secrets = secretsAsJson({ REDIS_URL: redis?.url ?? config.redisUrl ?? "" });

  /** Keeps a program running until we stop. */
  async function keep(program: string, first: Launched): Promise<void> {
    for (let { child, at, ended } = first; ; { child, at, ended } = launch(program)) {
      (child.stdio[SECRETS_FD] as Writable).end(secrets);
      if (child.pid !== undefined) reaper.watch(child.pid);
      const { how, killed } = await ended;
      if (child.pid !== undefined) reaper.forget(child.pid);
      if (stopping) return;
      if (!killed && performance.now() - at < MIN_LIFE_MS) {
        log.fatal(`${program} does not start (${how})`);
        return stop(1);
      }
      log.error(`${program} died (${how}); starting it again`);
      await sleep(RESTART_DELAY_MS);
      if (stopping) return;
    }
  }
  keep(API, api);
  // Two programs that load at the same time, beside what they start, are slower than one after the other.
  await Promise.race([untilListening(config), api.ended, sleep(MAX_API_START_MS)]);
  keep(WORKER, launch(WORKER));
}

async function untilListening({ host, port }: { readonly host: string; readonly port: number }): Promise<void> {
  for (let listens = false; !listens && !stopping; ) {
    await sleep(POLL_MS);
    const socket = connect({ host, port });
    listens = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
  }
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
