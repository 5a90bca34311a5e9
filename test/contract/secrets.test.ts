import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { descendants } from "../support/processes.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";

/** Secrets are in no environment that others can read, however a program was given them. */

const WORKER = new URL("../../workers/main.ts", import.meta.url).pathname;
const KEY = "a-secret-access-key";

let server: TestRedis;
let dataDir: string;
before(async () => {
  server = await startTestRedis();
  dataDir = await mkdtemp(join(tmpdir(), "secrets-"));
});
after(async () => {
  await server.close();
  await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
});

const environmentOf = (pid: number) => readFileSync(`/proc/${pid}/environ`, "latin1");

/** Starts a worker and, when it is ready, tells what others can see of it and its children. */
async function seenOf(env: Record<string, string>): Promise<string> {
  const worker = spawn(process.execPath, [WORKER], {
    env: { PATH: process.env.PATH ?? "", DATA_DIR: dataDir, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    let logged = "";
    for await (const chunk of worker.stdout.setEncoding("utf8")) {
      logged += chunk;
      if (logged.includes("worker started")) break;
    }
    assert.match(logged, /worker started/);
    await until("its spare child is there", async () => (await descendants(worker.pid!, "child.ts")).length > 0);
    const pids = [worker.pid!, ...(await descendants(worker.pid!, ""))];
    const seen = pids.flatMap((pid) => {
      try {
        return [environmentOf(pid)];
      } catch {
        return []; // It was about to end.
      }
    });
    return seen.join("\0");
  } finally {
    worker.kill("SIGTERM");
    await once(worker, "exit");
  }
}

test("secrets in variables are gone from what others see, and are used all the same", {
  skip: process.platform !== "linux",
}, async () => {
  const { password } = new URL(server.url);
  const seen = await seenOf({ REDIS_URL: server.url, AWS_SECRET_ACCESS_KEY: KEY });
  assert.ok(!seen.includes(password));
  assert.ok(!seen.includes(KEY));
  assert.ok(seen.includes(`DATA_DIR=${dataDir}`), "the rest is as it was");
});

test("secrets in files are used", { skip: process.platform !== "linux" }, async () => {
  const path = join(dataDir, "redis-url");
  await writeFile(path, `${server.url}\n`);
  assert.ok(!(await seenOf({ REDIS_URL_FILE: path })).includes(new URL(server.url).password));
});

test("a file that is not there, or given twice, stops the start with the reason", async () => {
  for (const [env, reason] of [
    [{ REDIS_URL_FILE: join(dataDir, "nowhere") }, /REDIS_URL_FILE cannot be read: ENOENT/],
    [{ REDIS_URL_FILE: join(dataDir, "nowhere"), REDIS_URL: server.url }, /REDIS_URL and REDIS_URL_FILE are both set/],
  ] as const) {
    const worker = spawn(process.execPath, [WORKER], {
      env: { PATH: process.env.PATH ?? "", DATA_DIR: dataDir, ...env },
      stdio: ["ignore", "ignore", "pipe"],
    });
    assert.match(Buffer.concat(await Array.fromAsync(worker.stderr)).toString(), reason);
  }
});
