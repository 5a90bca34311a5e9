import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startTestRedis } from "../test/support/redis.ts";

/**
 *     node bench/start.ts [CHECKOUT ...]
 *
 * From the command until `/healthz` answers, of each checkout in turns: `npm start`, and the API alone beside a Redis that runs. The first start in a
 * data folder compiles all modules; the others find what it has left. Linux, an idle machine.
 */

const STARTS = 7;
/** Until what a start leaves for the next one is written. */
const SETTLE_MS = 3000;
const POLL_MS = 2;
const PORT = "18080";

interface Command {
  readonly title: string;
  readonly argv: readonly [string, ...string[]];
  readonly needsRedis: boolean;
}

const COMMANDS: readonly Command[] = [
  { title: "npm start", argv: ["npm", "start", "--silent"], needsRedis: false },
  { title: "API", argv: [process.execPath, "src/main.ts"], needsRedis: true },
];

/** Whether `/healthz` is answered. */
function answers(): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port: PORT, path: "/healthz", agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on("error", () => resolve(false));
  });
}

/** As Ctrl-C does: npm itself hands no signal on, and ends before what it has started. */
async function stop(child: ChildProcess, dataDir: string): Promise<void> {
  const ended = once(child, "exit");
  process.kill(-child.pid!, "SIGINT");
  await ended;
  while ((await answers()) || existsSync(join(dataDir, "redis", "lease.json"))) await sleep(50);
}

/** Milliseconds. */
async function start({ argv: [file, ...args] }: Command, root: string, dataDir: string, redisUrl: string | undefined) {
  const env = { ...process.env, HOST: "127.0.0.1", PORT, DATA_DIR: dataDir, LOG_LEVEL: "warn" };
  const started = performance.now();
  const child = spawn(file, args, {
    ...{ cwd: root, stdio: "inherit", detached: true },
    env: redisUrl === undefined ? env : { ...env, REDIS_URL: redisUrl },
  });
  while (!(await answers())) await sleep(POLL_MS);
  const ms = performance.now() - started;
  await sleep(SETTLE_MS);
  await stop(child, dataDir);
  return ms;
}

const roots = process.argv.length > 2 ? process.argv.slice(2) : [new URL("..", import.meta.url).pathname];
const folder = await mkdtemp(join(tmpdir(), "bench-start-"));
const redis = await startTestRedis();
try {
  for (const command of COMMANDS) {
    const times = roots.map(() => [] as number[]);
    for (let i = 0; i <= STARTS; i++) {
      for (const [k, root] of roots.entries()) {
        const dataDir = join(folder, `${command.needsRedis}-${k}`);
        times[k]!.push(await start(command, resolve(root), dataDir, command.needsRedis ? redis.url : undefined));
      }
    }
    for (const [k, root] of roots.entries()) {
      const [first, ...later] = times[k]!;
      const sorted = later.sort((a, b) => a - b).map((ms) => ms.toFixed(0));
      const median = sorted[Math.floor(sorted.length / 2)];
      console.log(
        `${command.title.padEnd(10)} ${root}: first ${first!.toFixed(0)} ms, later ${median} ms (${sorted[0]} to ${sorted.at(-1)})`,
      );
    }
  }
} finally {
  await redis.close();
  await rm(folder, { recursive: true, force: true });
}
