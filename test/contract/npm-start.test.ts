import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../../scripts/demo/stack.ts";

const dataDir = await mkdtemp(join(tmpdir(), "modelpress-start-"));
after(() => rm(dataDir, { recursive: true, force: true }));

test("SIGTERM to npm start, as a process manager sends it, stops the service behind it", {
  timeout: 120_000,
}, async (t) => {
  const port = await freePort();
  const npm = spawn("npm", ["start"], {
    cwd: new URL("../..", import.meta.url).pathname,
    env: { ...process.env, PORT: String(port), DATA_DIR: dataDir, LOG_LEVEL: "warn", API_KEYS_FILE: "", REDIS_URL: "" },
    ...{ stdio: "ignore", detached: true },
  });
  // npm and the service behind it are a group of processes: a test that fails leaves none of them.
  t.after(() => endGroup(npm.pid!));
  const ended = once(npm, "exit");
  const answers = () =>
    fetch(`http://127.0.0.1:${port}/healthz`).then(
      ({ ok }) => ok,
      () => false,
    );
  while (!(await answers())) {
    assert.ok(npm.exitCode === null && npm.signalCode === null, "npm start has ended");
    await sleep(100);
  }
  npm.kill("SIGTERM");
  await ended;
  for (let i = 0; i < 300 && (await answers()); i++) await sleep(100);
  assert.equal(await answers(), false);
});

/** Asks what is left of a group of processes to stop, as its private Redis must be by its parent, and kills what does not. */
async function endGroup(leader: number): Promise<void> {
  const signal = (what: NodeJS.Signals | 0) => {
    try {
      return process.kill(-leader, what);
    } catch {
      return false; // Nobody is left.
    }
  };
  signal("SIGTERM");
  for (let i = 0; i < 300 && signal(0); i++) await sleep(100);
  signal("SIGKILL");
}
