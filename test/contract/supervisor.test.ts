import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pino } from "pino";
import type { ModelFacts } from "../../src/core/index.ts";
import type { Room, TaskNews, TaskRunner, Tasks } from "../../src/tasks/protocol.ts";
import { NO_SANDBOX } from "../../src/tasks/sandbox.ts";
import { createSupervisor } from "../../src/tasks/supervisor.ts";
import { hasEnded, isRunning } from "../support/processes.ts";
import { sandboxesHere } from "../support/sandboxes.ts";
import { until } from "../support/until.ts";

const ENTRY = new URL("../support/acting-child.ts", import.meta.url);
const log = pino({ level: "silent" });
const MIB = 2 ** 20;

/** One task, with the room that it needs. */
function runTask(
  runner: TaskRunner,
  request: Tasks["inspect_model"]["request"],
  options: Parameters<Room["run"]>[2],
): Promise<ModelFacts> {
  return runner.withRoom((room) => room.run("inspect_model", request, options), options.signal);
}

/** Those that this machine allows: without bubblewrap or user namespaces the others are tested nowhere but where they work. */
const [strongest] = await sandboxesHere(ENTRY);
const sandboxes = strongest!.level === "none" ? [NO_SANDBOX] : [strongest!, NO_SANDBOX];

for (const sandbox of sandboxes)
  describe(`the supervisor, sandbox: ${sandbox.level}`, () => {
    const isNone = sandbox.level === "none";
    let runner: TaskRunner;
    before(() => {
      runner = createSupervisor({ entry: ENTRY, sandbox, log, killGraceMs: 400 });
    });
    after(() => runner.close());

    interface Options {
      timeoutMs?: number;
      memoryBytes?: number;
      signal?: AbortSignal;
      onNews?: (news: TaskNews) => void;
    }
    async function act(name: string, argument: string | number = "", options: Options = {}): Promise<string> {
      const { timeoutMs = 120_000, memoryBytes = 2048 * MIB, ...rest } = options;
      const request = { files: [{ name, path: String(argument) }], dims: {} };
      const facts = await runTask(runner, request, { limits: { timeoutMs, memoryBytes }, ...rest });
      return facts.producer;
    }

    test("returns the result, task after task", async () => {
      for (let i = 0; i < 3; i++) assert.equal(await act("echo", i), String(i));
    });

    test("gives a child none of our environment, and the allocator's settings", async () => {
      const env = JSON.parse(await act("environment"));
      assert.equal(env.MALLOC_MMAP_THRESHOLD_, "1073741824");
      assert.equal(env.MALLOC_TRIM_THRESHOLD_, "4294967296");
      for (const name of ["HOME", "USER", "REDIS_URL", "AWS_SECRET_ACCESS_KEY"]) assert.equal(env[name], undefined);
    });

    test("a child leaves no core dumps, and dies before its parent when memory runs out", async () => {
      if (process.platform !== "linux") return;
      assert.match(await act("own file", "/proc/self/limits"), /^Max core file size +0 +0 /m);
      assert.equal((await act("own file", "/proc/self/oom_score_adj")).trim(), "800");
    });

    test("a refusal keeps its code, message and subject", async () => {
      await assert.rejects(act("refuse", "node 7"), {
        name: "TaskError",
        code: "invalid_model",
        message: "It is not a model.",
        subject: "node 7",
      });
    });

    test("a bug is internal, also when it is thrown in a callback", async () => {
      await assert.rejects(act("bug"), { code: "internal", message: /x is not a function/ });
      await assert.rejects(act("late bug"), { code: "internal", message: /thrown in a callback/ });
    });

    test("a crash is told by its signal or exit code, and the next task works", async () => {
      await assert.rejects(act("segfault"), { code: "worker_crashed", message: /SIGSEGV/ });
      await assert.rejects(act("abort"), { code: "worker_crashed", message: /SIGABRT/ });
      await assert.rejects(act("exit", 3), { code: "worker_crashed", message: /exit code 3/ });
      await assert.rejects(act("exit", 0), { code: "worker_crashed", message: /before it had a result/ });
      assert.equal(await act("echo", "alive"), "alive");
    });

    test("the time limit ends work in JavaScript, work that ignores it, and work in a native call", async () => {
      for (const kind of ["sleep", "stubborn", "native"]) {
        await assert.rejects(act(kind, 3_600_000, { timeoutMs: 300 }), { code: "timeout", message: /0\.3 s/ });
      }
    });

    test("a cancelled task is gone whatever it does, also with the standard grace", async () => {
      const standard = createSupervisor({ entry: ENTRY, sandbox, log });
      for (const kind of ["sleep", "stubborn", "native"]) {
        const controller = new AbortController();
        const limits = { timeoutMs: 60_000, memoryBytes: 2048 * MIB };
        const request = { files: [{ name: kind, path: "3600000" }], dims: {} };
        const started = Promise.withResolvers<void>();
        const onNews = () => started.resolve();
        const work = runTask(standard, request, { limits, signal: controller.signal, onNews });
        // The child begins in the turn in which it says so: a native call is entered before it reads anything else.
        await started.promise;
        controller.abort();
        await assert.rejects(work, { code: "cancelled" }, kind);
      }
      await standard.close();
    });

    test("a task can be cancelled while its process starts", async () => {
      await act("echo"); // The spare is used up.
      const controller = new AbortController();
      const late = assert.rejects(act("echo", "", { signal: controller.signal }), { code: "cancelled" });
      controller.abort();
      const next = act("echo").then(() => "a process that was started later was ready");
      assert.equal(await Promise.race([late.then(() => "cancelled"), next]), "cancelled");
      await next;
    });

    test("a signal that has fired already costs no process", async () => {
      await assert.rejects(act("echo", "", { signal: AbortSignal.abort() }), { code: "cancelled" });
    });

    test("memory: native growth, a descendant's, the JavaScript heap", async () => {
      assert.equal(await act("allocate", 64), "64 MiB");
      await assert.rejects(act("allocate", 4096, { memoryBytes: 300 * MIB }), {
        code: "out_of_memory",
        message: /300 MiB/,
      });
      await assert.rejects(act("descendant", "grow", { memoryBytes: 300 * MIB }), { code: "out_of_memory" });
      await assert.rejects(act("heap limit"), { code: "out_of_memory" });
    });

    test("stderr becomes log lines: bounded, and without control characters", async () => {
      const lines: string[] = [];
      const onNews = (news: TaskNews) => news.kind === "log" && lines.push(news.message);
      assert.equal(await act("stderr lines", 500, { onNews }), "written");
      assert.equal(lines[0], "line 0");
      assert.ok(lines.length <= 200);
      assert.ok(lines.every((line) => line.length <= 500 && !/\p{C}/u.test(line)));
    });

    test("news arrive in order and before the result", async () => {
      const fractions: number[] = [];
      await act("news", 100, { onNews: (news) => news.kind === "progress" && fractions.push(news.progress.fraction) });
      assert.deepEqual(
        fractions,
        Array.from({ length: 100 }, (_, i) => i / 100),
      );
    });

    test("what a child has started dies with it", {
      skip: !isNone && "its numbers are those of its namespace: see hostile-child.test.ts",
    }, async () => {
      const pid = Number(await act("descendant"));
      assert.ok(await hasEnded(pid, 10_000));
      let left = 0;
      const onNews = (news: TaskNews) => {
        if (news.kind === "log") left = Number(/descendant (\d+)/.exec(news.message)?.[1]);
      };
      await assert.rejects(act("descendant", "hang", { timeoutMs: 5_000, onNews }), { code: "timeout" });
      assert.ok(left > 0 && (await hasEnded(left, 10_000)));
    });

    test("tasks run side by side, each in a process of its own", async () => {
      const controller = new AbortController();
      const long = assert.rejects(act("stubborn", 3_600_000, { signal: controller.signal }), { code: "cancelled" });
      assert.equal(await act("echo", "meanwhile"), "meanwhile");
      controller.abort();
      await long;
    });

    test("close ends what runs and what is about to: it was cancelled, it did not crash", async () => {
      const closing = createSupervisor({ entry: ENTRY, sandbox, log });
      const start = (onNews?: () => void) => {
        const request = { files: [{ name: "native", path: "3600000" }], dims: {} };
        const limits = { timeoutMs: 60_000, memoryBytes: 2048 * MIB };
        const work = runTask(closing, request, { limits, ...(onNews && { onNews }) });
        return assert.rejects(work, { code: "cancelled" });
      };
      const started = Promise.withResolvers<void>();
      const rejected = [start(() => started.resolve())];
      await started.promise;
      rejected.push(start());
      await closing.close();
      rejected.push(start());
      await Promise.all(rejected);
    });

    test("a child that cannot start is an error, not a hang, and its last words are in the log", async () => {
      const logged: string[] = [];
      const broken = createSupervisor({
        entry: new URL("file:///nowhere/child.ts"),
        sandbox: NO_SANDBOX,
        log: pino({ level: "error" }, { write: (line) => void logged.push(line) }),
      });
      const request = { files: [], dims: {} };
      const limits = { timeoutMs: 1_000, memoryBytes: MIB };
      await assert.rejects(runTask(broken, request, { limits }), {
        code: "unavailable",
        message: /did not start/,
      });
      await broken.close();
      assert.match(logged.join(), /Cannot find module/);
    });
  });

test("of two tasks in a row each finds a child that was started before, and both are replaced", async () => {
  const tmpDir = await mkdtemp(join(tmpdir(), "spares-"));
  const runner = createSupervisor({ entry: ENTRY, sandbox: NO_SANDBOX, log, tmpDir });
  const rooms = async () => (await readdir(tmpDir)).map((name) => join(tmpDir, name));
  try {
    runner.prepare();
    await until("there are two spares", async () => (await rooms()).length === 2);
    const spares = await rooms();
    const used = [await runner.withRoom(async ({ directory }) => directory)];
    used.push(await runner.withRoom(async ({ directory }) => directory));
    assert.deepEqual(used.map((path) => basename(path)).sort(), spares.map((path) => basename(path)).sort());
    await until("both have successors", async () => {
      const now = await rooms();
      return now.length === 2 && !now.some((path) => spares.includes(path));
    });
  } finally {
    await runner.close();
    assert.deepEqual(await rooms(), []);
    await rm(tmpDir, { recursive: true });
  }
});

test("children of a process killed with SIGKILL die soon, even inside a native call", async () => {
  const script = `
    import { pino } from "pino";
    import { createSupervisor } from ${JSON.stringify(new URL("../../src/tasks/supervisor.ts", import.meta.url).href)};
    import { NO_SANDBOX } from ${JSON.stringify(new URL("../../src/tasks/sandbox.ts", import.meta.url).href)};
    const runner = createSupervisor({
      entry: new URL(${JSON.stringify(ENTRY.href)}), sandbox: NO_SANDBOX, log: pino({ level: "silent" }),
    });
    const limits = { timeoutMs: 3600000, memoryBytes: 2 ** 31 };
    const request = { files: [{ name: "descendant", path: "hang" }], dims: {} };
    const onNews = (news) => news.kind === "log" && console.log(news.message);
    runner.withRoom((room) => room.run("inspect_model", request, { limits, onNews }));
  `;
  const owner = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await once(owner.stdout.setEncoding("utf8"), "data");
  const descendant = Number(/descendant (\d+)/.exec(line)?.[1]);
  const child = Number(/\) \S (\d+)/.exec(readFileSync(`/proc/${descendant}/stat`, "latin1"))?.[1]);
  assert.ok(isRunning(child) && isRunning(descendant));
  owner.kill("SIGKILL");
  assert.ok(await hasEnded(child, 10_000), "the child in the native call");
  assert.ok(await hasEnded(descendant, 10_000), "its descendant");
});
