import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { type Dataset, openDataset } from "../../../src/core/data/dataset.ts";
import { type Contender, type ContestOptions, evaluateContest } from "../../../src/core/evaluate/contest.ts";
import { type EvaluationSpec, evaluateModels } from "../../../src/core/evaluate/evaluate.ts";
import { argmax, valuesOf } from "../../../src/core/evaluate/fidelity.ts";
import { wilson } from "../../../src/core/intervals.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { speedupInterval, timingOf } from "../../../src/core/runtime/latency.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { writeNpz } from "../../support/dataset-writers.ts";
import { mlp } from "../../support/graphs.ts";

const FEATURES = 16;
const CLASSES = 8;
const SAMPLES = 40;
const SIZES = [FEATURES, 32, CLASSES];
const SPEC: EvaluationSpec = { samples: null, metric: null, dims: {}, latency: { runs: 3, batch_size: 1, threads: 1 } };

let directory: string;
let reference: Contender;
let same: Contender;
let coarse: Contender;
let dataset: Dataset;
before(async () => {
  directory = mkdtempSync(join(tmpdir(), "contest-"));
  reference = write("reference", mlp({ sizes: SIZES }));
  same = write("same", mlp({ sizes: SIZES }));
  const rounded = mlp({ sizes: SIZES });
  for (const value of [...rounded.graph.initializers]) {
    const steps = Float32Array.from(floatsOf(value.constant!), (w) => Math.round(w / 0.2) * 0.2);
    rounded.graph.replaceUses(
      value,
      rounded.graph.addInitializer("steps", tensorOf("float32", value.constant!.dims, steps)),
    );
  }
  coarse = write("coarse", rounded);
  dataset = await labelledBy(reference.path);
});
after(() => rmSync(directory, { recursive: true }));

function write(name: string, model: Model): Contender {
  const path = join(directory, `${name}.onnx`);
  const bytes = modelToBytes(model);
  writeFileSync(path, bytes);
  return { path, bytes: bytes.byteLength };
}

/** Random samples with the answers of a model as their labels. */
async function labelledBy(path: string): Promise<Dataset> {
  const normal = new Float32Array(SAMPLES * FEATURES);
  new Random(3).fillNormal(normal);
  const x = tensorOf("float32", [SAMPLES, FEATURES], normal);
  const session = await openSession({ path });
  const scores = valuesOf((await session.run({ x })).y!);
  await session.close();
  const labels = Array.from({ length: SAMPLES }, (_, i) => argmax(scores, i * CLASSES, CLASSES));
  return openDataset(memorySource(writeNpz({ x, labels: tensorOf("int64", [SAMPLES], labels) })));
}

function options(challengers: readonly Contender[], change: Partial<ContestOptions> = {}): ContestOptions {
  return {
    ...{
      reference,
      challengers,
      data: { dataset, kind: "evaluation" },
      spec: SPEC,
      seed: 0,
      threads: 1,
      cpu: "A processor",
    },
    loads: [{ batch_size: 1, threads: 1 }],
    openSession,
    measurePeak: async () => ({ peakBytes: 3, baselineBytes: 1 }),
    onFailure: (_, error) => error,
    ...change,
  };
}

/** A model that its file does not hold. */
const broken = (): Contender => ({ path: join(directory, "nowhere.onnx"), bytes: 1 });

describe("evaluateContest", () => {
  it("finds of each challenger what it finds of the two alone, and the reference equal to itself", async () => {
    const contest = await evaluateContest(options([same, coarse]));
    const [first, second] = contest.challengers;
    for (const [standing, contender] of [
      [first!, same],
      [second!, coarse],
    ] as const) {
      const { metrics } = await evaluateModels({
        ...options([]),
        ...{
          before: reference,
          after: contender,
          acceptance: {},
          notes: [],
          scratchPath: join(directory, "scratch.onnx"),
        },
        host: { cpu: "A processor", isa: ["avx2"], onnxruntime: "1.30.0", versions: { node: "24" } },
        readModel: (path) => loadModel(readFileSync(path)),
      });
      assert.deepEqual(standing.fidelity, metrics.fidelity);
      assert.deepEqual(standing.accuracy, metrics.accuracy);
      assert.deepEqual(standing.size, metrics.size);
    }
    assert.ok(second!.accuracy!.drop > 0, "rounding was meant to change some answers");
    assert.deepEqual(
      first!.fidelity.outputs.map(({ top1_agreement }) => top1_agreement),
      [1],
    );
    assert.deepEqual(contest.reference.fidelity, { samples: SAMPLES, data: "evaluation", outputs: [] });
    assert.deepEqual(contest.reference.size, { before_bytes: reference.bytes, after_bytes: reference.bytes, ratio: 1 });
    const all = wilson(SAMPLES, SAMPLES);
    assert.deepEqual(contest.reference.accuracy, {
      ...{ metric: "top1", before: 1, after: 1, drop: 0, samples: SAMPLES },
      ...{ interval: [0, 0], before_interval: all, after_interval: all },
    });
    assert.deepEqual(contest.reference.warnings, []);
    assert.deepEqual(contest.inputShapes, { x: [1, FEATURES] });
  });

  it("times all at every load, and says of the first what it says of one", async () => {
    const loads = [
      { batch_size: 2, threads: 1 },
      { batch_size: 4, threads: 2 },
    ];
    const { reference, challengers, inputShapes, latencySamplesMs } = await evaluateContest(
      options([same, coarse], { loads }),
    );
    for (const [place, standing] of [reference, challengers[0]!, challengers[1]!].entries()) {
      assert.deepEqual(standing.latency, standing.latencies[0]);
      assert.deepEqual(
        standing.latencies.map(({ batch_size, threads, runs, cpu }) => ({ batch_size, threads, runs, cpu })),
        loads.map((load) => ({ ...load, runs: SPEC.latency.runs, cpu: "A processor" })),
      );
      const [own, theirs] = [latencySamplesMs[0]!, latencySamplesMs[place]!];
      assert.deepEqual([standing.latency.before, standing.latency.after], [timingOf(own), timingOf(theirs)]);
      assert.equal(standing.latency.speedup, timingOf(own).p50_ms / timingOf(theirs).p50_ms);
      assert.deepEqual(standing.latency.speedup_interval, place === 0 ? [1, 1] : speedupInterval(own, theirs));
    }
    assert.deepEqual(inputShapes, { x: [2, FEATURES] });
  });

  it("times loads of one thread by what that thread computes, where that is told, and others by the time of day", async () => {
    let asked = 0;
    // Every time it is asked 8 ms have passed.
    const threadClock = () => 8 * asked++;
    const contest = await evaluateContest(
      options([same], {
        loads: [
          { batch_size: 1, threads: 1 },
          { batch_size: 1, threads: 2 },
        ],
        threadClock,
      }),
    );
    // At the beginning and at the end of three rounds that warm up and three that count, of two models.
    assert.equal(asked, 2 * (3 + 3) * 2);
    const [one] = contest.challengers[0]!.latencies;
    // Runs of more than 5 ms are timed one by one.
    assert.equal(one!.after.p50_ms, 8);
  });

  it("asks for the peak of whom it does not know, at the first load", async () => {
    const asked: unknown[] = [];
    const { reference: own, challengers } = await evaluateContest(
      options([same, { ...coarse, peak: { peakBytes: 70, baselineBytes: 5 } }], {
        loads: [
          { batch_size: 2, threads: 1 },
          { batch_size: 4, threads: 2 },
        ],
        measurePeak: async ({ modelPath, feeds, threads }) => {
          asked.push([modelPath, feeds.x!.dims, threads]);
          return { peakBytes: modelPath === reference.path ? 100 : 50, baselineBytes: 10 * asked.length };
        },
      }),
    );
    assert.deepEqual(asked, [
      [reference.path, [2, FEATURES], 1],
      [same.path, [2, FEATURES], 1],
    ]);
    assert.deepEqual(own.memory, { before_peak_bytes: 100, after_peak_bytes: 100, baseline_bytes: 10 });
    assert.deepEqual(
      challengers.map((it) => it!.memory),
      [
        { before_peak_bytes: 100, after_peak_bytes: 50, baseline_bytes: 10 },
        { before_peak_bytes: 100, after_peak_bytes: 70, baseline_bytes: 5 },
      ],
    );
  });

  it("leaves out a challenger that does not run, or fails with what its failure means", async () => {
    const failed: number[] = [];
    const contest = await evaluateContest(
      options([broken(), coarse], { onFailure: (index) => void failed.push(index) }),
    );
    assert.deepEqual(failed, [0]);
    assert.equal(contest.challengers[0], undefined);
    assert.ok(contest.challengers[1]!.accuracy!.drop > 0);
    assert.deepEqual(
      contest.latencySamplesMs.map(({ length }) => length),
      [3, 0, 3],
    );
    const meaning = new Error("what it means");
    await assert.rejects(evaluateContest(options([coarse, broken()], { onFailure: () => meaning })), meaning);
    await assert.rejects(
      evaluateContest(
        options([same], {
          measurePeak: async ({ modelPath }) => {
            if (modelPath === same.path) throw new Error("crashed");
            return { peakBytes: 1, baselineBytes: 1 };
          },
          onFailure: (_, error) => new Error(`its peak: ${(error as Error).message}`),
        }),
      ),
      /its peak: crashed/,
    );
  });

  it("measures models that are too large side by side in groups, each beside the reference", async () => {
    const opened: string[] = [];
    const half = { bytes: 2 ** 30 };
    const { challengers, latencySamplesMs } = await evaluateContest(
      options([{ ...coarse, ...half }, { ...same, ...half }, { ...coarse, bytes: 2 ** 32 }, same], {
        openSession: (source, how) => {
          opened.push("path" in source ? source.path : "bytes");
          return openSession(source, how);
        },
      }),
    );
    // Each group opens the reference to compare with, and once for its one load.
    assert.equal(opened.filter((path) => path === reference.path).length, 2 * 4);
    assert.deepEqual(
      challengers.map((it) => it!.accuracy!.drop > 0),
      [true, false, true, false],
    );
    assert.ok(latencySamplesMs.every(({ length }) => length === 3) && latencySamplesMs.length === 5);
  });

  it("tells how far it is, forwards only, and stops when it is asked to", async () => {
    const told: [number, string][] = [];
    await evaluateContest(options([same, coarse], { onProgress: (...news) => told.push(news) }));
    const fractions = told.map(([fraction]) => fraction);
    assert.deepEqual(
      fractions,
      fractions.toSorted((a, b) => a - b),
    );
    assert.deepEqual([fractions[0], fractions.at(-1)], [0, 1]);
    const endOf = (phase: RegExp) => told.findLast(([, message]) => phase.test(message))![0];
    assert.deepEqual(
      [/^peak memory$/, /^fidelity: 40 of 40 samples$/, /^latency at batch 1 and 1 threads: 3 of 3 rounds$/].map(endOf),
      [0.1, 0.6, 1],
    );
    await assert.rejects(evaluateContest(options([same], { signal: AbortSignal.abort() })), { code: "cancelled" });
  });
});
