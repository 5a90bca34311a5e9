import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

const CHILD = new URL("../support/calibration-child.ts", import.meta.url).pathname;

async function calibrateOver(samples: number): Promise<{ observedBytes: number; peakBytes: number }> {
  const { stdout } = await promisify(execFile)(process.execPath, [CHILD, String(samples)]);
  return JSON.parse(stdout);
}

test("calibration takes no more memory for 4096 samples than for 16", async (t) => {
  const few = await calibrateOver(16);
  const many = await calibrateOver(4096);
  t.diagnostic(JSON.stringify({ few, many }));
  assert.ok(many.observedBytes > 1.5e9, `${many.observedBytes} bytes of activations`);
  assert.ok(Math.abs(many.observedBytes / few.observedBytes - 256) < 1e-9);
  // Garbage that has not been collected yet makes some difference; activations would make a hundred times as much.
  assert.ok(many.peakBytes < few.peakBytes + 64e6, `${few.peakBytes} and ${many.peakBytes}`);
});
