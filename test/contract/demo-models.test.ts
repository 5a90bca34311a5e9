import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadSubjects } from "../../scripts/demo/subjects.ts";

/** The demo's inputs must be such that the original models do well on them: else a drop would say nothing. */
test("the original models do well on the demo's inputs", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "demo-models-"));
  t.after(() => rm(folder, { recursive: true }));
  const subjects = await loadSubjects(folder);
  const scores = new Map<string, number>();
  for (const { name, modelPath, score } of subjects) if (score !== null) scores.set(name, await score.run(modelPath));
  // Bounds of usefulness, not records: a model at chance reads nothing and hears half.
  assert.ok(scores.get("ocr-recognition")! > 0.98, `read ${scores.get("ocr-recognition")}`);
  assert.ok(scores.get("voice-activity")! > 0.9, `heard ${scores.get("voice-activity")}`);
});
