import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { enableCompileCache } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { pino } from "pino";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { compileCacheDirectory } from "../../src/tasks/compile-cache.ts";
import type { TaskRunner } from "../../src/tasks/protocol.ts";
import { createSupervisor } from "../../src/tasks/supervisor.ts";
import { sandboxesHere } from "../support/sandboxes.ts";
import { until } from "../support/until.ts";

/** What a child that was taken over can do to others: every level of sandbox that this machine allows is tried. */

const ENTRY = new URL("../support/hostile-child.ts", import.meta.url);
const log = pino({ level: "silent" });

const directory = await mkdtemp(join(tmpdir(), "hostile-"));
after(() => rm(directory, { recursive: true }));
const secret = join(directory, "api-keys.json");
await writeFile(secret, "secret");
const blobs = await createFileBlobStore(join(directory, "blobs"));
const server = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
after(() => server.close());
/** Another process of the same user, with a secret in its environment. */
const other = spawn("sleep", ["3600"], { env: { A_SECRET: "1" } });
after(() => other.kill());

// As API and worker do: children are shown what is in it.
enableCompileCache();
const sandboxes = await sandboxesHere(ENTRY);

for (const [i, sandbox] of sandboxes.entries()) {
  describe(`a hostile child, sandbox: ${sandbox.level}`, () => {
    const runner: TaskRunner = createSupervisor({ entry: ENTRY, sandbox, log, tmpDir: join(directory, sandbox.level) });
    after(() => runner.close());
    const limits = { timeoutMs: 60_000, memoryBytes: 2 ** 31 };

    function act(name: string, seconds = "0", timeoutMs = limits.timeoutMs): Promise<string> {
      return runner.withRoom(async (room) => {
        const bytes = Buffer.from(`innocent bytes ${i}`);
        const ref = await blobs.put(
          (async function* () {
            yield bytes;
          })(),
          { maxBytes: 100 },
        );
        const input = join(room.directory, "input");
        await blobs.materialize(ref, input);
        const blob = join(directory, "blobs", ref.sha256.slice(0, 2), ref.sha256);
        const port = (server.address() as { port: number }).port;
        const path = JSON.stringify({ secret, blob, input, port, seconds });
        const facts = await room.run(
          "inspect_model",
          { files: [{ name, path }], dims: {} },
          { limits: { ...limits, timeoutMs } },
        );
        // Through its own file it never gets at the store; through the store's it does, where nothing hides that.
        const stored = await readFile(blob, "utf8");
        if (sandbox.level !== "none") assert.equal(stored, bytes.toString());
        else await rm(blob, { force: true });
        return facts.producer;
      });
    }

    test("what it reaches", async (t) => {
      const reached = JSON.parse(await act("reach")) as Record<string, boolean>;
      const what = Object.keys(reached).filter((name) => reached[name]);
      t.diagnostic(`${sandbox.level}: ${what.join(", ") || "nothing"}`);
      for (const folder of [new URL("../support", import.meta.url).pathname, compileCacheDirectory()!]) {
        rmSync(join(folder, "written-by-a-child"), { force: true });
      }
      // Its own input is a copy in its own room.
      if (sandbox.level !== "none") assert.deepEqual(what, ["its input"]);
      // Without one, this is what there is to lose: the log says so, and `secrets.test.ts` that our programs keep none there.
      else assert.ok(what.includes("environment of any process") && what.includes("the network"));
    });

    test("whatever it says ends it, and not its parent", async () => {
      const unhandled: unknown[] = [];
      const note = (error: unknown) => void unhandled.push(error);
      process.on("uncaughtException", note);
      const says = [
        "garbage",
        "null",
        "null news",
        "null progress",
        "handle of node",
        "result without facts",
        "unknown failure",
        "endless line",
      ];
      for (const name of says) {
        await assert.rejects(act(name), { code: "worker_crashed", message: /none of its messages/ }, name);
      }
      process.off("uncaughtException", note);
      assert.deepEqual(unhandled, []);
    });

    test("a flood of news takes little of its parent's memory, and leaves it time for others", async () => {
      const before = process.memoryUsage().rss;
      let most = 0;
      let turns = 0;
      const timer = setInterval(() => {
        turns++;
        most = Math.max(most, process.memoryUsage().rss);
      }, 20);
      await assert.rejects(act("flood", "0", 3_000), { code: "timeout" });
      clearInterval(timer);
      assert.ok(most - before < 300 * 2 ** 20, `${Math.round((most - before) / 2 ** 20)} MiB`);
      assert.ok(turns > 20, `${turns} turns`);
    });

    test("nothing that it started outlives it, in a session of its own neither", async () => {
      const seconds = `36${process.pid}.${i}`;
      await assert.rejects(act("outlive", seconds), { code: "unsupported" });
      const isThere = () =>
        readdirSync("/proc").some((pid) => {
          try {
            return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`sleep\0${seconds}`);
          } catch {
            return false;
          }
        });
      await until("it has ended", () => !isThere());
    });
  });
}
