import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { memorySource } from "../../../src/core/data/byte-source.ts";
import { type Dataset, openDataset } from "../../../src/core/data/dataset.ts";
import {
  type EvaluateOptions,
  type EvaluationSpec,
  evaluateModels,
  type PeakRequest,
} from "../../../src/core/evaluate/evaluate.ts";
import { argmax, valuesOf } from "../../../src/core/evaluate/fidelity.ts";
import { pairedDifference, wilson } from "../../../src/core/intervals.ts";
import type { DType } from "../../../src/core/onnx/dtype.ts";
import type { Model, Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { writeNpz } from "../../support/dataset-writers.ts";
import { GraphMaker, mlp } from "../../support/graphs.ts";
import { assertRecorded } from "../../support/recorded.ts";

const FEATURES = 16;
const CLASSES = 8;
const SAMPLES = 40;

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), "evaluate-"));
});
after(() => rmSync(directory, { recursive: true }));

let files = 0;
function write(model: Model): { path: string; bytes: number } {
  const bytes = modelToBytes(model);
  const path = join(directory, `model-${files++}.onnx`);
  writeFileSync(path, bytes);
  return { path, bytes: bytes.byteLength };
}

/** The same network with its weights rounded to multiples of `step`. */
function roundedMlp(step: number): Model {
  const model = mlp({ sizes: [FEATURES, 32, CLASSES] });
  const { graph } = model;
  for (const value of [...graph.initializers]) {
    const rounded = Float32Array.from(floatsOf(value.constant!), (w) => Math.round(w / step) * step);
    graph.replaceUses(value, graph.addInitializer("rounded", tensorOf("float32", value.constant!.dims, rounded)));
    graph.removeInitializer(value);
  }
  return model;
}

const SPEC: EvaluationSpec = { samples: 256, metric: null, dims: {}, latency: { runs: 3, batch_size: 1, threads: 1 } };
const noPeak = async () => ({ peakBytes: 3, baselineBytes: 1 });

function options(change: Partial<EvaluateOptions> & Pick<EvaluateOptions, "before" | "after">): EvaluateOptions {
  return {
    spec: SPEC,
    acceptance: {},
    notes: [],
    seed: 0,
    threads: 1,
    host: { cpu: "A processor", isa: ["avx2"], onnxruntime: "1.30.0", versions: { node: "24" } },
    openSession,
    measurePeak: noPeak,
    readModel: (path) => loadModel(readFileSync(path)),
    scratchPath: join(directory, "optimized.onnx"),
    ...change,
  };
}

/** Random samples, labelled by what `model` itself answers. */
async function selfLabelled(path: string): Promise<{ dataset: Dataset; x: Float32Array; answers: Float32Array[] }> {
  const x = new Float32Array(SAMPLES * FEATURES);
  new Random(3).fillNormal(x);
  const session = await openSession({ path });
  const input = tensorOf("float32", [SAMPLES, FEATURES], x);
  const output = valuesOf((await session.run({ x: input })).y!);
  await session.close();
  const answers = Array.from({ length: SAMPLES }, (_, i) =>
    Float32Array.from(output.slice(i * CLASSES, (i + 1) * CLASSES)),
  );
  const labels = tensorOf(
    "int64",
    [SAMPLES],
    answers.map((scores) => argmax(scores, 0, CLASSES)),
  );
  return { dataset: await openDataset(memorySource(writeNpz({ x: input, labels }))), x, answers };
}

describe("evaluateModels", () => {
  it("judges by samples from all over the data, which are sorted, where it does not take all", async () => {
    const model = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const { x, answers } = await selfLabelled(model.path);
    const labels = answers.map((scores) => argmax(scores, 0, CLASSES));
    // The labels of the second half are wrong.
    const wrong = labels.map((label, i) => (2 * i < SAMPLES ? label : (label + 1) % CLASSES));
    const file = writeNpz({
      x: tensorOf("float32", [SAMPLES, FEATURES], x),
      labels: tensorOf("int64", [SAMPLES], wrong),
    });
    const data = { dataset: await openDataset(memorySource(file)), kind: "evaluation" as const };
    const accuracy = async (samples: number | null) => {
      const { metrics } = await evaluateModels(
        options({ before: model, after: model, data, spec: { ...SPEC, samples } }),
      );
      return metrics.accuracy!.before;
    };
    assert.equal(await accuracy(null), 0.5);
    const half = await accuracy(SAMPLES / 2);
    assert.ok(half > 0.35 && half < 0.65, `${half} of half of the samples`);
    assert.equal(await accuracy(SAMPLES / 2), half, "the same samples in every job");
  });

  it("finds a model equal to itself, on synthetic input", async () => {
    const model = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const { metrics, accepted, inputShapes } = await evaluateModels(
      options({ before: model, after: model, acceptance: { min_sqnr_db: 60 } }),
    );
    const { min_value, max_value } = metrics.fidelity.outputs[0]!;
    assert.ok(min_value! < -0.1 && max_value! > 0.1);
    assert.deepEqual(metrics.fidelity, {
      samples: 16,
      data: "synthetic",
      outputs: [
        {
          name: "y",
          sqnr_db: null,
          cosine: 1,
          ...{ min_value, max_value },
          max_abs_error: 0,
          mean_abs_error: 0,
          top1_agreement: 1,
          sqnr_interval_db: null,
          top1_agreement_interval: wilson(16, 16),
          non_finite: 0,
          shape_mismatches: 0,
        },
      ],
    });
    assert.equal(metrics.size.ratio, 1);
    assert.equal(metrics.accuracy, null);
    assert.equal(metrics.latency.runs, 3);
    assert.deepEqual(inputShapes, { x: [1, FEATURES] });
    assert.ok(accepted);
  });

  it("compares outputs of other names when told which they are", async () => {
    const original = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const renamed = mlp({ sizes: [FEATURES, 32, CLASSES] });
    renamed.graph.outputs[0]!.name = "scores";
    const { dataset } = await selfLabelled(original.path);
    const other = { before: original, after: write(renamed), data: { dataset, kind: "validation" } } as const;
    await assert.rejects(evaluateModels(options(other)), { code: "internal", subject: "y" });
    const { metrics } = await evaluateModels(options({ ...other, pairs: [{ before: "y", after: "scores" }] }));
    assert.equal(metrics.fidelity.data, "validation");
    assert.deepEqual(
      metrics.fidelity.outputs.map(({ name, sqnr_db }) => [name, sqnr_db]),
      [["y", null]],
    );
    assert.deepEqual([metrics.accuracy?.before, metrics.accuracy?.after], [1, 1]);
  });

  it("measures fidelity and accuracy on labelled data as the formulas have it", async () => {
    const original = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const rounded = write(roundedMlp(0.2));
    const { dataset, x, answers } = await selfLabelled(original.path);
    const { metrics } = await evaluateModels(
      options({ before: original, after: rounded, data: { dataset, kind: "evaluation" } }),
    );

    const session = await openSession({ path: rounded.path });
    let signal = 0;
    let noise = 0;
    let same = 0;
    for (const [i, expected] of answers.entries()) {
      const row = tensorOf("float32", [1, FEATURES], x.slice(i * FEATURES, (i + 1) * FEATURES));
      const actual = valuesOf((await session.run({ x: row })).y!);
      expected.forEach((value, k) => {
        signal += value * value;
        noise += (value - actual[k]!) ** 2;
      });
      if (argmax(actual, 0, CLASSES) === argmax(expected, 0, CLASSES)) same++;
    }
    await session.close();
    const [output] = metrics.fidelity.outputs;
    // The answers were computed in one batch and are compared with runs of one: equal up to float32 summation order.
    assert.ok(Math.abs(output!.sqnr_db! - 10 * Math.log10(signal / noise)) < 1e-3);
    assert.equal(output!.top1_agreement, same / SAMPLES);
    assert.deepEqual(metrics.accuracy, {
      metric: "top1",
      before: 1,
      after: same / SAMPLES,
      drop: 1 - same / SAMPLES,
      samples: SAMPLES,
      // The original is right everywhere: what the other one has wrong, it has wrong alone.
      interval: pairedDifference(SAMPLES - same, 0, SAMPLES),
      before_interval: wilson(SAMPLES, SAMPLES),
      after_interval: wilson(same, SAMPLES),
    });
    const [low, high] = output!.sqnr_interval_db!;
    assert.ok(low < output!.sqnr_db! && output!.sqnr_db! < high);
    assert.deepEqual(output!.top1_agreement_interval, wilson(same, SAMPLES));
    assert.ok(same < SAMPLES, "rounding was meant to change some answers");
    assert.equal(metrics.fidelity.data, "evaluation");
    assert.equal(metrics.fidelity.samples, SAMPLES);
  });

  it("runs both models at the batch size asked for, on no more samples than asked for", async () => {
    const model = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const { dataset } = await selfLabelled(model.path);
    const requests: PeakRequest[] = [];
    const progress: number[] = [];
    const { metrics } = await evaluateModels(
      options({
        before: model,
        after: model,
        data: { dataset, kind: "calibration" },
        spec: { ...SPEC, samples: 10, latency: { runs: 2, batch_size: 4, threads: 2 } },
        measurePeak: async (request) => {
          requests.push(request);
          return { peakBytes: 10 + requests.length, baselineBytes: 5 };
        },
        onProgress: (fraction) => progress.push(fraction),
      }),
    );
    assert.equal(metrics.fidelity.samples, 10);
    assert.equal(metrics.fidelity.data, "calibration");
    assert.equal(metrics.latency.batch_size, 4);
    assert.equal(metrics.latency.threads, 2);
    assert.deepEqual(
      requests.map(({ feeds, threads }) => [feeds.x!.dims, threads]),
      [
        [[4, FEATURES], 2],
        [[4, FEATURES], 2],
      ],
    );
    assert.deepEqual(metrics.memory, { before_peak_bytes: 12, after_peak_bytes: 11, baseline_bytes: 5 });
    assert.deepEqual(
      progress,
      progress.toSorted((a, b) => a - b),
    );
    assert.equal(progress.at(-1), 1);
  });

  it("takes all samples unless told how many, and says so when a drop is less than they can tell", async () => {
    const original = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const { dataset } = await selfLabelled(original.path);
    const judged = async (step: number) => {
      const spec = { ...SPEC, samples: null };
      const data = { dataset, kind: "evaluation" } as const;
      return (await evaluateModels(options({ before: original, after: write(roundedMlp(step)), data, spec }))).metrics;
    };
    const [slight, gross] = [await judged(0.1), await judged(1)];
    assert.equal(slight.fidelity.samples, SAMPLES);
    const codes = ({ warnings }: typeof slight) => warnings.map(({ code }) => code);
    assert.ok(slight.accuracy!.drop > 0 && slight.accuracy!.interval![0] < 0, JSON.stringify(slight.accuracy));
    assert.ok(codes(slight).includes("drop_within_noise"));
    assert.ok(gross.accuracy!.interval![0] > 0, JSON.stringify(gross.accuracy));
    assert.ok(!codes(gross).includes("drop_within_noise"));
    // A metric that is no mean over samples has intervals, too: drawn again and again from them.
    const spec = { ...SPEC, samples: null, metric: "f1_macro" as const };
    const data = { dataset, kind: "evaluation" } as const;
    const { accuracy } = (
      await evaluateModels(options({ before: original, after: write(roundedMlp(0.1)), data, spec }))
    ).metrics;
    assert.deepEqual([accuracy!.metric, accuracy!.before], ["f1_macro", 1]);
    const [low, high] = accuracy!.after_interval!;
    assert.ok(low > 0.85 && low < accuracy!.after && high > accuracy!.after, JSON.stringify(accuracy));
  });

  it("feeds a model of fixed batch size whole batches", async () => {
    const make = new GraphMaker();
    const x = make.input("x", [16, FEATURES]);
    make.output(make.op("MatMul", [x, make.weight("w", [FEATURES, CLASSES], 1)]), "y", [16, CLASSES]);
    const model = write(make.model);
    const { dataset } = await selfLabelled(write(mlp({ sizes: [FEATURES, 32, CLASSES] })).path);
    const { metrics } = await evaluateModels(
      options({ before: model, after: model, data: { dataset, kind: "evaluation" } }),
    );
    assert.equal(metrics.fidelity.samples, 32);
    assert.equal(metrics.latency.batch_size, 16);
  });

  it("compares a float16 interface with a float32 one", async () => {
    const make = new GraphMaker();
    const x = make.input("x", ["n", FEATURES], "float16");
    make.output(make.op("Relu", [x]), "y", ["n", FEATURES], "float16");
    const original = new GraphMaker();
    original.output(original.op("Relu", [original.input("x", ["n", FEATURES])]), "y", ["n", FEATURES]);
    const { metrics } = await evaluateModels(options({ before: write(original.model), after: write(make.model) }));
    const { sqnr_db } = metrics.fidelity.outputs[0]!;
    // Rounding to 11 bits of mantissa: about 74 dB for numbers of random magnitude.
    assertRecorded(sqnr_db, 73.54, 0.1);
  });

  it("counts what passes said, and what onnxruntime made of it", async () => {
    const model = write(mlp());
    const note = (outcome: "changed" | "skipped", name: string) =>
      ({ outcome, name, op: "MatMul", code: "quantized", message: "m" }) as const;
    const { metrics, optimizedOperators } = await evaluateModels(
      options({
        before: model,
        after: model,
        notes: [note("changed", "a"), note("skipped", "b"), note("changed", "c")],
      }),
    );
    assert.deepEqual(metrics.coverage, {
      quantized_nodes: 2,
      skipped_nodes: [{ name: "b", op: "MatMul", code: "quantized", message: "m" }],
      fused_nodes: 0,
      float_islands: [],
    });
    assert.equal(Object.values(optimizedOperators).reduce((a, b) => a + b, 0) > 0, true);
  });

  it("refuses metrics without labels, labels that fit nothing, and data that does not fit", async () => {
    const model = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const evaluate = (spec: Partial<EvaluationSpec>, arrays?: Record<string, Tensor>) => async () =>
      evaluateModels(
        options({
          before: model,
          after: model,
          spec: { ...SPEC, ...spec },
          data: arrays && { dataset: await openDataset(memorySource(writeNpz(arrays))), kind: "evaluation" },
        }),
      );
    const x = tensorOf("float32", [2, FEATURES], new Float32Array(2 * FEATURES));
    const floats = tensorOf("float32", [2], [1, 2]);
    await assert.rejects(evaluate({ metric: "top1" }), { code: "invalid_params", subject: "metric" });
    await assert.rejects(evaluate({ metric: "top1" }, { x }), { code: "invalid_params", subject: "metric" });
    await assert.rejects(evaluate({ metric: "top1" }, { x, labels: floats }), {
      code: "invalid_dataset",
      subject: "labels",
      message: /integer classes.*labels of float32 \[1\]/,
    });
    await assert.rejects(evaluate({}, { y: x }), { code: "invalid_dataset", subject: "x" });
    // Labels that only the default metric might have used are left alone.
    assert.equal((await evaluate({}, { x, labels: floats })()).metrics.accuracy, null);
  });

  it("blames the data when the original cannot run on it, and itself when the compressed model does not run", async () => {
    const make = new GraphMaker();
    const input = make.input("x", ["n", "features"]);
    make.output(make.op("MatMul", [input, make.weight("w", [FEATURES, 2], 1)]), "y", ["n", 2]);
    const model = write(make.model);
    const wrong = tensorOf("float32", [2, 3], [1, 2, 3, 4, 5, 6]);
    const dataset = await openDataset(memorySource(writeNpz({ x: wrong })));
    await assert.rejects(
      evaluateModels(options({ before: model, after: model, data: { dataset, kind: "evaluation" } })),
      { code: "invalid_dataset", message: /cannot run on the evaluation data/ },
    );
    const broken = { path: join(directory, "broken.onnx"), bytes: 3 };
    writeFileSync(broken.path, "no!");
    const spec = { ...SPEC, dims: { features: FEATURES } };
    await assert.rejects(evaluateModels(options({ before: model, after: broken, spec })), {
      code: "internal",
      message: /compressed model does not run/,
    });
  });

  describe("what no rounding explains", () => {
    const build = (after: (make: GraphMaker, x: Value) => Value, dtype: DType = "float32"): Model => {
      const make = new GraphMaker();
      make.output(after(make, make.input("x", ["n", 4])), "y", undefined, dtype);
      return make.model;
    };
    const held = (before: Model, after: Model) =>
      evaluateModels(
        options({
          before: write(before),
          after: write(after),
          layerReference: { model: before, results: {} },
          acceptance: { max_size_ratio: 10 },
        }),
      );
    const pointwise = (op: string) => build((make, x) => make.op(op, [x]));

    it("NaN where the original gives numbers ends the job", async () => {
      await assert.rejects(held(pointwise("Abs"), pointwise("Log")), {
        code: "non_finite",
        subject: "y",
        message: /NaN or infinity for \d+ of 64 elements of the output "y"/,
      });
    });

    it("NaN that the original gives, or that only the original gives, is no fault", async () => {
      const same = await held(pointwise("Log"), pointwise("Log"));
      assert.equal(same.metrics.fidelity.outputs[0]!.non_finite, 0);
      const fewer = await held(pointwise("Log"), pointwise("Abs"));
      assert.ok(fewer.metrics.fidelity.outputs[0]!.non_finite > 0);
      // One limit is kept, and one, which nobody has to ask for, is not.
      assert.deepEqual(
        fewer.metrics.acceptance.map(({ name, ok }) => [name, ok]),
        [
          ["max_size_ratio", true],
          ["max_non_finite", false],
        ],
      );
      assert.equal(fewer.accepted, false);
    });

    it("another shape ends the job, and names both", async () => {
      const wide = build((make, x) => make.op("Concat", [x, x], { axis: 1 }));
      await assert.rejects(held(pointwise("Abs"), wide), {
        code: "internal",
        subject: "y",
        message: /"y" the shape \[1,8\] where the original gives \[1,4\] \(in 16 runs\)/,
      });
    });

    it("a shape that follows from computed values may differ, with a warning, but not the rank", async () => {
      const above = (limit: number) =>
        build(
          (make, x) => make.op("NonZero", [make.op("Greater", [make.op("Abs", [x]), make.floats("k", [], [limit])])]),
          "int64",
        );
      const { metrics } = await held(above(0.2), above(1));
      assert.ok(metrics.fidelity.outputs[0]!.shape_mismatches > 0);
      assert.ok(metrics.warnings.some(({ code }) => code === "shapes_differ"));
      const flat = build((make, x) => make.op("Reshape", [make.op("NonZero", [x]), make.ints("s", [-1])]), "int64");
      await assert.rejects(held(above(0.2), flat), { code: "internal" });
    });

    it("a student may have another shape than its teacher", async () => {
      const wide = build((make, x) => make.op("Concat", [x, x], { axis: 1 }));
      const { metrics } = await evaluateModels(options({ before: write(pointwise("Abs")), after: write(wide) }));
      assert.equal(metrics.fidelity.outputs[0]!.shape_mismatches, 16);
    });
  });

  it("judges answers by the form that rounds, without the fusions that it does not survive, and the cost by the other", async () => {
    const original = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const same = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const rounds = write(roundedMlp(0.2));
    const { dataset } = await selfLabelled(original.path);
    const opened: (readonly [path: string, optimization: string | undefined])[] = [];
    const peaks: string[] = [];
    const about = (after: EvaluateOptions["after"]) =>
      evaluateModels(
        options({
          ...{ before: original, after, data: { dataset, kind: "evaluation" } },
          openSession: (source, how) => {
            if ("path" in source) opened.push([source.path, how?.optimization]);
            return openSession(source, how);
          },
          measurePeak: (request) => {
            peaks.push(request.modelPath);
            return noPeak();
          },
        }),
      );
    const { metrics } = await about({ ...same, roundedPath: rounds.path });
    assert.deepEqual(
      opened.filter(([path]) => path !== original.path),
      [
        [rounds.path, "basic"],
        [same.path, undefined],
        // Whose kernels are listed, too.
        [same.path, "extended"],
      ],
    );
    assert.deepEqual(peaks.toSorted(), [original.path, same.path].toSorted());
    assert.equal(metrics.size.ratio, 1);
    opened.length = 0;
    const { fidelity, accuracy } = (await about(rounds)).metrics;
    assert.deepEqual([metrics.fidelity, metrics.accuracy], [fidelity, accuracy]);
    assert.ok(opened.every(([, optimization]) => optimization !== "basic"));
  });

  it("names the fields of the data that no input takes, and no others", async () => {
    const model = write(mlp({ sizes: [FEATURES, 32, CLASSES] }));
    const x = tensorOf("float32", [2, FEATURES], new Float32Array(2 * FEATURES));
    const fields = { x, weather: tensorOf("float32", [2], [1, 2]) };
    const dataset = await openDataset(memorySource(writeNpz(fields)));
    const { metrics } = await evaluateModels(
      options({ before: model, after: model, data: { dataset, kind: "evaluation" } }),
    );
    const [warning] = metrics.warnings.filter(({ code }) => code === "unused_fields");
    assert.match(warning!.message, /: "weather"\.$/);
    assert.equal(warning!.value, 1);
  });

  it("stops when cancelled", async () => {
    const model = write(mlp());
    const controller = new AbortController();
    const evaluating = evaluateModels(
      options({
        before: model,
        after: model,
        spec: { ...SPEC, latency: { ...SPEC.latency, runs: 10_000 } },
        signal: controller.signal,
        onProgress: (fraction) => fraction > 0.5 && controller.abort(),
      }),
    );
    await assert.rejects(evaluating, { code: "cancelled" });
  });
});
