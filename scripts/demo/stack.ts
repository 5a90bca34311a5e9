import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A whole modelpress: API, worker and redis-server, as `npm start` runs them, on a free port and in a data folder of its own. */
export interface Stack {
  readonly url: string;
  readonly dataDir: string;
  /** Of the process that was started; API and worker are this process or its children. */
  readonly pid: number;
  /** What it has printed so far. */
  log(): string;
  /** Stops it the way Ctrl-C does, and removes the data folder. Throws when it had died before. */
  close(): Promise<void>;
}

const ENTRY = new URL("../start.ts", import.meta.url).pathname;
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const LOG_CHARACTERS = 100_000;

/**
 * Starts a stack and waits until it says that it is ready. `env` adds to the environment; `entry` is the program of `npm start`, of this
 * checkout unless given.
 */
export async function startStack(env: Readonly<Record<string, string>> = {}, entry = ENTRY): Promise<Stack> {
  const dataDir = await mkdtemp(join(tmpdir(), "modelpress-"));
  const port = await freePort();
  const child = spawn(process.execPath, [entry], {
    env: { ...process.env, HOST: "127.0.0.1", PORT: String(port), DATA_DIR: dataDir, API_KEYS_FILE: "", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-LOG_CHARACTERS);
    });
  }
  const url = `http://127.0.0.1:${port}`;
  const stop = async () => {
    const clean = await stopProcess(child);
    await rm(dataDir, { recursive: true, force: true });
    return clean;
  };
  try {
    await untilReady(url, child);
  } catch (error) {
    await stop();
    throw new Error(`The stack did not start: ${(error as Error).message}\n${log}`);
  }
  return {
    url,
    dataDir,
    pid: child.pid!,
    log: () => log,
    close: async () => {
      if (!(await stop())) throw new Error(`The stack did not stop cleanly (${exitOf(child)}):\n${log.slice(-4000)}`);
    },
  };
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("No free port.");
  return address.port;
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;
const exitOf = (child: ChildProcess) => child.signalCode ?? `exit code ${child.exitCode}`;

async function untilReady(url: string, child: ChildProcess): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    if (hasEnded(child)) throw new Error(`it ended with ${exitOf(child)}`);
    const answer = await fetch(`${url}/readyz`).catch(() => undefined);
    if (answer?.ok) return;
    if (Date.now() > deadline) throw new Error(`it was not ready in time: ${(await answer?.text()) ?? "no answer"}`);
    await sleep(50);
  }
}

/** SIGTERM, then SIGKILL. Whether it had been running and ended by itself. */
async function stopProcess(child: ChildProcess): Promise<boolean> {
  if (hasEnded(child)) return false;
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await ended;
  clearTimeout(timer);
  return child.exitCode === 0 || child.signalCode === "SIGTERM";
}
