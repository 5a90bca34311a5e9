import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openThreadClock } from "../../workers/thread-clock.ts";

test("what the thread has waited for a processor does not count", async () => {
  const directory = await mkdtemp(join(tmpdir(), "clock-"));
  try {
    const path = join(directory, "schedstat");
    const waited = (ms: number) => writeFile(path, `${5e9} ${ms * 1e6} 17\n`);
    await waited(10);
    const clock = openThreadClock(path)!;
    const [before, start] = [clock(), performance.now()];
    await waited(1010);
    const passed = clock() - before;
    const real = performance.now() - start;
    // Two clocks that are read one after the other.
    assert.ok(Math.abs(passed - (real - 1000)) < 1, `${passed} of ${real} ms`);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("systems that do not tell have no such clock", async () => {
  const directory = await mkdtemp(join(tmpdir(), "clock-"));
  try {
    assert.equal(openThreadClock(join(directory, "none")), undefined);
    await writeFile(join(directory, "other"), "nothing of the kind");
    assert.equal(openThreadClock(join(directory, "other")), undefined);
  } finally {
    await rm(directory, { recursive: true });
  }
});
