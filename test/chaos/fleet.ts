import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { access, mkdir, mkdtemp, readdir, rm, statfs, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { pino } from "pino";
import { processName } from "../../src/leftovers.ts";
import { startPrivateRedis } from "../../src/service/redis-server.ts";
import { descendants } from "../support/processes.ts";

/** Several API processes and workers over one Redis and one data directory, each kept alive, and what can be done to them. */
export interface Fleet {
  readonly urls: readonly string[];
  readonly keys: readonly string[];
  readonly redis: Redis;
  readonly dataDir: string;
  readonly redisPid: number;
  /** The processes of a program that run now. */
  pids(program: "api" | "worker"): readonly number[];
  /** Sends a signal to one of them, which ends it sooner or later; answers whether it was there. */
  signal(pid: number | undefined, signal: NodeJS.Signals): boolean;
  /** Starts a worker whose clock is 25 h ahead; resolves with its exit code. */
  runAhead(): Promise<number | null>;
  /** Takes all room on the disk of the data directory until the function that it answers is called; undefined where it has no disk of its own. */
  fillDisk(): Promise<(() => Promise<void>) | undefined>;
  /** Stops everything in order. */
  stop(): Promise<void>;
  /** What is left that should not be. To be called between `stop` and `close`. */
  orphans(): Promise<readonly string[]>;
  /** Resolves when every process that was killed has been replaced: what one leaves is removed by the next. */
  whole(): Promise<void>;
  close(): Promise<void>;
}

export interface FleetOptions {
  readonly apis: number;
  readonly workers: number;
  /** The program of a worker, with its arguments for this environment. */
  readonly worker: (env: Record<string, string>) => readonly string[];
  readonly keys: number;
  readonly diskMib: number;
}

const ROOT = new URL("../..", import.meta.url).pathname;
const START_TIMEOUT_MS = 180_000;

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const home = await mkdtemp(join(tmpdir(), "chaos-"));
  const dataDir = join(home, "data");
  await mkdir(dataDir);
  const ownDisk = mount(dataDir, options.diskMib);
  const log = pino({ level: "fatal" });
  const server = await startPrivateRedis({ dataDir: join(home, "redis"), log });
  const redis = new Redis(server.url, { maxRetriesPerRequest: null });
  redis.on("error", () => {}); // It is killed on purpose.

  const keys = Array.from({ length: options.keys }, () => randomBytes(16).toString("hex"));
  const hash = (key: string) => createHash("sha256").update(key).digest("hex");
  const apiKeysFile = join(home, "api-keys.json");
  await writeFile(apiKeysFile, JSON.stringify(keys.map((key, i) => ({ name: `key-${i}`, sha256: hash(key) }))));
  const common = {
    ...{ PATH: process.env.PATH ?? "", REDIS_URL: server.url, DATA_DIR: dataDir, API_KEYS_FILE: apiKeysFile },
    ...{ LOG_LEVEL: "fatal", MIN_FREE_DISK_BYTES: String(16 * 2 ** 20), JOB_MEMORY_BYTES: String(2 ** 30) },
    MAX_QUEUED_JOBS_PER_KEY: "100000",
  };

  let stopping = false;
  /** Processes that were told to end. They count as running until they have. */
  const ending = new Set<number>();
  const running = { api: new Map<number, ChildProcess>(), worker: new Map<number, ChildProcess>() };
  const ports = await Promise.all(Array.from({ length: options.apis }, freePort));

  /** Keeps a program running until the fleet stops. */
  async function keep(program: "api" | "worker", i: number): Promise<void> {
    while (!stopping) {
      const env: Record<string, string> = { ...common, ...(program === "api" && { PORT: String(ports[i]) }) };
      const args = program === "api" ? ["src/main.ts"] : options.worker(env);
      const child = spawn(process.execPath, args, { cwd: ROOT, env, stdio: ["ignore", "ignore", "inherit"] });
      running[program].set(child.pid!, child);
      await once(child, "exit");
      running[program].delete(child.pid!);
      ending.delete(child.pid!);
      if (!stopping) await sleep(200);
    }
  }
  const kept = [
    ...ports.map((_, i) => keep("api", i)),
    ...Array.from({ length: options.workers }, (_, i) => keep("worker", i)),
  ];

  const urls = ports.map((port) => `http://127.0.0.1:${port}`);
  for (const url of urls) await untilReady(url);

  return {
    urls,
    keys,
    redis,
    dataDir,
    get redisPid() {
      return server.pid;
    },
    pids: (program) => [...running[program].keys()],

    signal(pid, signal) {
      if (pid === undefined) return false;
      ending.add(pid);
      try {
        return process.kill(pid, signal);
      } catch {
        return false; // It was about to end.
      }
    },

    async runAhead() {
      const ahead = new URL("../support/clock-ahead.ts", import.meta.url).href;
      const args = ["--import", ahead, "workers/main.ts"];
      const child = spawn(process.execPath, args, { cwd: ROOT, env: common, stdio: "ignore" });
      const [code] = await once(child, "exit");
      return code;
    },

    async fillDisk() {
      if (!ownDisk) return undefined;
      const path = join(dataDir, "filler");
      const { bavail, bsize } = await statfs(dataDir);
      // What others free meanwhile stays free: it is as full as disks are.
      await writeFile(path, Buffer.alloc(Math.max(0, bavail * bsize - 4096))).catch(() => {});
      return () => rm(path, { force: true });
    },

    async whole() {
      while ([...running.api.keys(), ...running.worker.keys()].some((pid) => ending.has(pid))) await sleep(100);
      for (const url of urls) await untilReady(url);
      // A worker makes its directory when it has removed those of dead ones.
      const isThere = (pid: number) =>
        access(join(dataDir, "work", processName(pid))).then(
          () => true,
          () => false,
        );
      for (;;) {
        const pids = [...running.worker.keys()];
        if (pids.length === options.workers && (await Promise.all(pids.map(isThere))).every(Boolean)) return;
        await sleep(100);
      }
    },

    async stop() {
      stopping = true;
      for (const child of [...running.worker.values(), ...running.api.values()]) child.kill("SIGTERM");
      await Promise.all(kept);
    },

    async orphans() {
      const left = (await descendants(1, dataDir)).map((pid) => `process ${pid}`);
      for (const folder of ["work", "scratch", "incoming", "blobs/incoming"]) {
        const names = await readdir(join(dataDir, folder)).catch(() => []);
        left.push(...names.map((name) => `${folder}/${name}`));
      }
      for (const shard of await readdir(join(dataDir, "blobs"))) {
        if (shard.length !== 2) continue;
        for (const sha256 of await readdir(join(dataDir, "blobs", shard))) {
          if ((await redis.exists(`{modelpress}:claims:blob:${sha256}`)) === 0) left.push(`blob ${sha256}`);
        }
      }
      return left;
    },

    async close() {
      redis.disconnect();
      await server.close();
      if (ownDisk) execFileSync("umount", ["-l", dataDir]);
      await rm(home, { recursive: true, force: true });
    },
  };
}

/** A disk of its own for a directory, in memory; false where that is not permitted. */
function mount(directory: string, mib: number): boolean {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mib}m`, "chaos", directory], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

async function untilReady(url: string): Promise<void> {
  for (const start = performance.now(); performance.now() - start < START_TIMEOUT_MS; await sleep(200)) {
    const answer = await fetch(`${url}/readyz`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok) return;
  }
  throw new Error(`${url} is not ready within ${START_TIMEOUT_MS} ms`);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}
