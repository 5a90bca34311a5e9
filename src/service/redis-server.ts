import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { environmentWithoutSecrets } from "../secrets.ts";
import { ServiceError } from "./errors.ts";

export interface PrivateRedis {
  readonly url: string;
  /** Pid of the server that runs now; it changes when the server had to be restarted. */
  readonly pid: number;
  close(): Promise<void>;
}

/** What is left on disk for the next start: enough to find, and to stop, a server whose owner was killed. */
interface Lease {
  readonly ownerPid: number;
  readonly url: string;
}

/** Loading a large append-only file takes its time. */
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;
const POLL_MS = 5;
const ASK_TIMEOUT_MS = 1_000;
/** Before a server that died is started again; doubled each time it dies before it has answered. */
const RESTART_DELAY_MS = 200;
const MAX_RESTART_DELAY_MS = 5_000;
/** A server that dies this often in a row before it has answered, for example for a damaged file, will not answer ever. */
const MAX_VAIN_STARTS = 6;
/** Of what the server printed, for the message when it dies or does not start. */
const LOG_TAIL_CHARS = 1_000;

/**
 * Starts a redis-server of our own, for a single machine without `REDIS_URL`: append-only file under `dataDir`, synced every
 * second, no eviction, on a free loopback port behind a random password. When it dies it is started again on the same port, with growing
 * delays; when it cannot be brought back, `onGone` is told what it printed last.
 * Throws `ServiceError("unavailable")` when redis-server is not installed, or another modelpress uses the directory.
 */
export async function startPrivateRedis(options: {
  dataDir: string;
  log: Logger;
  onGone?: (printed: string) => void;
}): Promise<PrivateRedis> {
  const { log } = options;
  const dir = join(options.dataDir, "redis");
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const leasePath = join(dir, "lease.json");
  await endLease(leasePath, options.dataDir);

  const port = await freePort();
  const password = randomBytes(24).toString("hex");
  const url = `redis://:${password}@127.0.0.1:${port}`;
  // By stdin and not by arguments: those are public.
  const settings = [
    "bind 127.0.0.1",
    `port ${port}`,
    `requirepass ${password}`,
    `dir ${JSON.stringify(dir)}`,
    "appendonly yes",
    "appendfsync everysec",
    "maxmemory-policy noeviction",
    'save ""',
    "daemonize no",
    "",
  ].join("\n");

  let closing = false;
  let server = await launch(settings);
  await writeFile(leasePath, JSON.stringify({ ownerPid: process.pid, url } satisfies Lease), { mode: 0o600 });
  await answers(url, server);
  watch(server);
  const stopWithUs = () => server.process.kill("SIGTERM");
  process.once("exit", stopWithUs);
  log.info({ port, pid: server.process.pid }, "private redis-server started");

  function watch(started: Server): void {
    started.process.once("exit", async (code, signal) => {
      if (closing) return;
      log.error({ code, signal, printed: started.printed() }, "redis-server died; starting it again");
      await restart();
    });
  }

  async function restart(): Promise<void> {
    let delayMs = RESTART_DELAY_MS;
    let printed = "";
    for (let starts = 0; starts < MAX_VAIN_STARTS; starts++) {
      await sleep(delayMs);
      delayMs = Math.min(2 * delayMs, MAX_RESTART_DELAY_MS);
      if (closing) return;
      try {
        server = await launch(settings);
        await answers(url, server);
        return watch(server);
      } catch (error) {
        if (closing) return;
        printed = (error as Error).message;
        log.error({ err: error }, "redis-server does not start");
      }
    }
    log.fatal(
      { printed },
      `redis-server died ${MAX_VAIN_STARTS} times in a row before it had answered: it is given up`,
    );
    options.onGone?.(printed);
  }

  return {
    url,
    get pid() {
      return server.process.pid ?? -1;
    },
    async close() {
      closing = true;
      process.off("exit", stopWithUs);
      await stop(server.process);
      await rm(leasePath, { force: true });
    },
  };
}

interface Server {
  readonly process: ChildProcess;
  /** The end of what it has printed. */
  printed(): string;
}

/** Spawns the server and hands it its settings; rejects when the program is missing. */
async function launch(settings: string): Promise<Server> {
  // Its own process group: Ctrl-C in a terminal must reach the workers first, and Redis last.
  const server = spawn("redis-server", ["-"], {
    ...{ stdio: ["pipe", "pipe", "ignore"], detached: true, env: environmentWithoutSecrets() },
  });
  let printed = "";
  server.stdout?.setEncoding("utf8").on("data", (text: string) => {
    printed = (printed + text).slice(-LOG_TAIL_CHARS);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("spawn", resolve);
    server.once("error", (cause) =>
      reject(
        new ServiceError(
          "unavailable",
          "redis-server cannot be started. Install it (Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis; " +
            "Alpine: apk add redis), or set REDIS_URL to a server that runs already.",
          { cause },
        ),
      ),
    );
  });
  server.stdin?.on("error", () => {}); // It died before it read them; the exit handler deals with that.
  server.stdin?.end(settings);
  return { process: server, printed: () => printed.trim() };
}

async function stop(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const exited = new Promise<void>((resolve) => server.once("exit", () => resolve()));
  server.kill("SIGTERM"); // Redis flushes its append-only file on SIGTERM.
  const timer = setTimeout(() => server.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await exited;
  clearTimeout(timer);
}

/** Waits until the server has loaded its file and answers. Rejects, with what it printed last, when it ends instead. */
async function answers(url: string, { process: server, printed }: Server): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!(await ping(url))) {
    const ended = server.exitCode !== null || server.signalCode !== null;
    if (ended || performance.now() > deadline) {
      server.kill("SIGKILL");
      throw new ServiceError("unavailable", `The private redis-server does not start. It printed:\n${printed()}`);
    }
    await sleep(POLL_MS);
  }
}

const ping = async (url: string) => (await ask(url, "PING")).includes("+PONG");

/**
 * What a server of ours says to a command, in the form of its protocol; what has come until then when it takes too long or closes the connection.
 * By hand: a client takes longer to load than the server takes to start.
 */
async function ask(url: string, command: "PING" | "SHUTDOWN"): Promise<string> {
  const { hostname, port, password } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), timeout: ASK_TIMEOUT_MS });
  let said = "";
  socket.once("timeout", () => socket.destroy());
  socket.setEncoding("latin1").on("data", (text: string) => {
    said += text;
  });
  socket.end(`AUTH ${password}\r\n${command}\r\nQUIT\r\n`);
  return new Promise((resolve) => {
    socket.on("error", () => {}); // "close" follows.
    socket.once("close", () => resolve(said));
  });
}

/**
 * Two servers must never write one append-only file. A server left over by an owner that was killed is stopped;
 * one whose owner lives is a reason to refuse.
 */
async function endLease(leasePath: string, dataDir: string): Promise<void> {
  const lease = await readLease(leasePath);
  if (lease === undefined || !(await ping(lease.url))) return;
  if (isAlive(lease.ownerPid)) {
    throw new ServiceError("unavailable", `Another modelpress (process ${lease.ownerPid}) is using ${dataDir}.`);
  }
  await ask(lease.url, "SHUTDOWN");
  const deadline = performance.now() + STOP_TIMEOUT_MS;
  while (await ping(lease.url)) {
    if (performance.now() > deadline) {
      throw new ServiceError("unavailable", `A redis-server left over in ${dataDir} does not stop.`);
    }
    await sleep(50);
  }
}

async function readLease(path: string): Promise<Lease | undefined> {
  try {
    const lease = JSON.parse(await readFile(path, "utf8"));
    return typeof lease.url === "string" && Number.isInteger(lease.ownerPid) ? lease : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
