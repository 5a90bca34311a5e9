import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { DISTILLATION_LOSS } from "../../../src/core/distill/objective.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { meanMeter } from "../../../src/core/meter.ts";
import { dimsOf, int } from "../../../src/core/onnx/graph-builder.ts";
import { Model } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { arrayOf, floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { fakeQuantize } from "../../../src/core/qat/fake-quantize.ts";
import { prepareQat, type QatModel, type QatOptions, trainQat } from "../../../src/core/qat/qat.ts";
import { adaround } from "../../../src/core/quantize/rounding/adaround.ts";
import type { Rounding } from "../../../src/core/quantize/rounding/rounding.ts";
import { scalingSites } from "../../../src/core/quantize/static/channel-scaling.ts";
import { compressStatic } from "../../../src/core/quantize/static/pipeline.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { train } from "../../../src/core/train/loop.ts";
import { crossEntropy } from "../../../src/core/train/losses.ts";
import { OPTIMIZERS } from "../../../src/core/train/optimizer.ts";
import { type Samples, samplesOf } from "../../../src/core/train/samples.ts";
import { SCHEDULES } from "../../../src/core/train/schedule.ts";
import { buildStepGraph, soloNetwork } from "../../../src/core/train/step-graph.ts";
import { createTrainable, exportTrained, type TrainedValues } from "../../../src/core/train/trainable.ts";
import type { TrainingSettings } from "../../../src/core/train/training-task.ts";
import { createValidator, type ValidationMetric } from "../../../src/core/train/validate.ts";
import { halves, NetworkBuilder } from "../../support/networks.ts";
import { assertRecorded } from "../../support/recorded.ts";
import { top1Of } from "../../support/top1.ts";

const SETTINGS: TrainingSettings = {
  epochs: 4,
  batchSize: 32,
  optimizer: OPTIMIZERS.adamw,
  learningRate: 0.02,
  schedule: SCHEDULES.onecycle,
  warmupSteps: 0,
  weightDecay: 0,
  gradientClip: null,
  averageDecay: null,
  augmentation: null,
  patience: null,
  seed: 3,
  threads: 1,
};

const samples = halves(480, 5);
const fresh = halves(400, 77);

/** Two convolutions, the second with enough weights to be packed, and a dense layer. */
function network(seed: number): Model {
  const net = new NetworkBuilder(seed);
  const first = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 8, 8]), 1, 16), 16));
  const second = net.relu(net.batchNorm(net.conv(first, 16, 16), 16));
  return net.output(net.linear(net.g.op("Flatten", [net.maxPool(second, 4)]), 64, 4), ["n", 4]);
}

async function* batches() {
  for (let start = 0; start < 128; start += 32) {
    yield samples.gather(Uint32Array.from({ length: 32 }, (_, i) => start + i)).feeds;
  }
}

const openModel = (model: Model, options?: object) => openSession({ bytes: modelToBytes(model) }, options);
const optionsOf = (bits: QatOptions["bits"]): QatOptions => ({
  ...{ bits, method: "mse", percentile: 99.999, activationDType: "uint8", reduceRange: false, algorithm: "lsq" },
  ...{ samples: 4, corrections: false },
});

let float: Model;
const prepare = (bits: QatOptions["bits"], more: Partial<QatOptions> = {}) =>
  prepareQat(float, { batches }, { ...optionsOf(bits), ...more }, { openModel });

before(async () => {
  const trainable = createTrainable(network(1));
  const result = await train(
    {
      trainable,
      training: samples,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")) },
      ],
    },
    { ...SETTINGS, epochs: 8 },
    { openSession },
  );
  float = exportTrained(trainable, result.values);
});

/** All logits of a model, as onnxruntime runs it. */
async function logitsOf(model: Model, options?: object): Promise<Float32Array> {
  const session = await openModel(model, options);
  try {
    const all = Uint32Array.from({ length: fresh.count }, (_, i) => i);
    return floatsOf((await session.run(fresh.gather(all).feeds)).logits!);
  } finally {
    await session.close();
  }
}

/** All logits of the simulation. */
async function simulated(qat: QatModel, values?: TrainedValues, on: Samples = fresh): Promise<Float32Array> {
  const { trainable } = qat.fakeQuantize([]);
  const logits: number[] = [];
  const record: ValidationMetric = {
    name: "record",
    better: "higher",
    start: () =>
      meanMeter((outputs) => {
        logits.push(...floatsOf(outputs.logits!));
        return { sum: 0, positions: 1 };
      }),
  };
  const validator = await createValidator(trainable, { metric: record, batchSize: 100, threads: 1, openSession });
  await validator.evaluate(values ?? trainable, on);
  await validator.close();
  return Float32Array.from(logits);
}

function sqnrDb(exact: Float32Array, other: Float32Array): number {
  let [signal, noise] = [0, 0];
  for (const [i, x] of exact.entries()) {
    signal += x * x;
    noise += (x - other[i]!) ** 2;
  }
  return 10 * Math.log10(signal / noise);
}

const CASES: readonly Pick<QatOptions, "bits" | "activationDType">[] = [
  ...([8, 4, 2] as const).flatMap((weights) =>
    ([8, 4, null] as const).map((activations) => ({
      ...{ bits: { weights, activations }, activationDType: "uint8" as const },
    })),
  ),
  ...([8, 4] as const).map((activations) => ({
    ...{ bits: { weights: 4 as const, activations }, activationDType: "int8" as const },
  })),
];

describe("what is trained is what goes out", () => {
  for (const { bits, activationDType } of CASES) {
    test(`W${bits.weights} A${bits.activations ?? "float"}, ${activationDType}`, async () => {
      const qat = await prepare(bits, { activationDType });
      const { model, notes } = qat.finish(qat.fakeQuantize([]).finish());
      assert.equal(notes.filter(({ outcome }) => outcome === "changed").length >= 3, true, JSON.stringify(notes));
      const [simulation, plain] = [await simulated(qat), await logitsOf(model, { optimization: "disabled" })];
      // The same operators on the same numbers, in float32 on both sides: a value that lies between two steps may go either way.
      const largest = simulation.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      const equal = simulation.filter((x, i) => Math.abs(x - plain[i]!) < 1e-5 * largest).length / simulation.length;
      assert.ok(equal > 0.995, `${equal} of the logits are the same`);
      const run = await logitsOf(model);
      const answers = (logits: Float32Array) =>
        Array.from({ length: fresh.count }, (_, i) => {
          const row = logits.subarray(4 * i, 4 * i + 4);
          return row.indexOf(Math.max(...row));
        });
      const [a, b] = [answers(simulation), answers(run)];
      const same = a.filter((answer, i) => answer === b[i]).length / a.length;
      assert.ok(same >= 0.99, `${same} of the answers are the same`);
    });
  }

  test("signed activations have the codes of unsigned ones, less half of what there are", async () => {
    for (const activations of [8, 4] as const) {
      const logits = async (activationDType: "int8" | "uint8") => {
        const qat = await prepare({ weights: 4, activations }, { activationDType });
        return await logitsOf(qat.finish(qat.fakeQuantize([]).finish()).model, { optimization: "disabled" });
      };
      const apart = sqnrDb(await logits("uint8"), await logits("int8"));
      assert.ok(apart > 60, `${activations} bits: ${apart} dB`);
    }
  });

  test("a channel of zeros is exact, whatever is learnt of the others", async () => {
    const net = new NetworkBuilder(1);
    const made = net.conv(net.input(["n", 1, 8, 8]), 1, 4);
    const { constant } = made.producer!.inputs[1]!;
    const values = Float32Array.from(floatsOf(constant!)).fill(0, 9, 18);
    made.producer!.setInput(1, net.model.graph.addInitializer("zeros", tensorOf("float32", [4, 1, 3, 3], values)));
    const model = net.output(net.linear(net.g.op("Flatten", [net.maxPool(made, 8)]), 4, 4), ["n", 4]);
    const qat = await prepareQat(model, { batches }, optionsOf({ weights: 4, activations: null }), { openModel });
    assert.ok(sqnrDb(await logitsOf(model), await logitsOf(qat.finish(qat.fakeQuantize([]).finish()).model)) > 15);
    // Its gradients divide by its scale.
    const loss = { ...DISTILLATION_LOSS, outputLoss: "mse" as const, klWeight: 1, labelWeight: 0 };
    const trained = await trainQat(
      qat,
      { teacher: model, loss, samples, validationSplit: 0, training: { ...SETTINGS, epochs: 1 } },
      { openSession },
    );
    assert.ok((await logitsOf(trained.model)).every(Number.isFinite));
  });

  test("what is excluded keeps its weights", async () => {
    for (const activations of [8, null] as const) {
      const isExcluded = ({ opType }: { readonly opType: string }) => opType === "Gemm";
      const qat = await prepare({ weights: 4, activations }, { isExcluded });
      const { graph } = qat.finish(qat.fakeQuantize([]).finish()).model;
      const readsFloats = (opType: string) =>
        graph.nodes.filter((node) => node.opType === opType).map(({ inputs }) => inputs[1]!.constant !== undefined);
      assert.deepEqual([readsFloats("Conv"), readsFloats("Gemm")], [[false, false], [true]]);
    }
  });

  test("without samples there are no ranges", async () => {
    const none = async function* () {};
    const options = optionsOf({ weights: 8, activations: 8 });
    await assert.rejects(prepareQat(float, { batches: none }, options, { openModel }), { code: "invalid_dataset" });
  });

  test("codes of integer kernels are those of the graph without them: biases are rounded in it as kernels take them", async () => {
    const qat = await prepare({ weights: 4, activations: 8 });
    const { model } = qat.finish(qat.fakeQuantize([]).finish());
    const codes: string[] = [];
    for (const node of model.graph.nodes) {
      const [value] = node.outputs;
      if (node.opType !== "QuantizeLinear" || node.inputs[0]!.producer?.opType === undefined || value!.isGraphOutput)
        continue;
      value!.dtype = "uint8";
      model.graph.addOutput(value!);
      codes.push(value!.name);
    }
    assert.ok(codes.length >= 3);
    const { feeds } = fresh.gather([...Array(fresh.count).keys()]);
    const run = async (options?: object) => {
      const session = await openModel(model, options);
      const results = await session.run(feeds);
      await session.close();
      return codes.map((name) => arrayOf(results[name]!, "uint8"));
    };
    const [plain, fused] = [await run({ optimization: "disabled" }), await run()];
    for (const [i, name] of codes.entries()) {
      const other = fused[i]!.filter((code, k) => code !== plain[i]![k]).length / fused[i]!.length;
      assert.ok(other < 2e-4, `${(100 * other).toFixed(3)} % of ${name}`);
    }
  });

  test("matrix products whose biases are added in float, between normalizations as in transformers", async () => {
    const net = new NetworkBuilder(6);
    const { g } = net;
    const states = g.reshape(net.input(["n", 1, 8, 8]), [0, 8, 8]);
    const inner = g.op("Sigmoid", [net.linear(net.layerNorm(net.linear(states, 8, 16, true), 16), 16, 16, true)]);
    const pooled = g.op("ReduceMean", [net.layerNorm(inner, 16), g.shape([1])], { keepdims: int(0) });
    const model = net.output(net.linear(pooled, 16, 4), ["n", 4]);
    for (const node of model.graph.nodes.filter(({ opType }) => opType === "Add")) {
      const bias = node.inputs.find((value) => value?.constant)!;
      model.graph.replaceUses(
        bias,
        model.graph.addInitializer(`${bias.name}_1`, tensorOf("float32", [16], Array(16).fill(1))),
      );
    }
    const qat = await prepareQat(model, { batches }, optionsOf({ weights: 8, activations: 8 }), { openModel });
    const biases = qat.graph.graph.nodes.filter(({ opType }) => opType === "Sub");
    assert.equal(biases.length, 2, "they stay beside kernels that give out float");
    const spec = {
      teacher: model,
      loss: { ...DISTILLATION_LOSS, outputLoss: "mse", klWeight: 1, labelWeight: 0 },
    } as const;
    const training = { ...SETTINGS, epochs: 1, schedule: SCHEDULES.constant };
    const made = await trainQat(qat, { ...spec, training, samples, validationSplit: 0 }, { openSession });
    const simulation = await simulated(qat, made.training.run.values);
    const plain = await logitsOf(made.model, { optimization: "disabled" });
    const largest = simulation.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const equal = simulation.filter((x, i) => Math.abs(x - plain[i]!) < 1e-5 * largest).length / simulation.length;
    assert.ok(equal > 0.97, `${equal} of the logits are the same`);
    const trained = made.model.graph.nodes.filter(({ opType }) => opType === "Sub").map((node) => node.inputs[1]!);
    for (const { constant } of trained) {
      assert.ok(
        floatsOf(constant!).every((x) => x !== -1 && Math.abs(x + 1) < 0.5),
        "they are learned as well",
      );
    }
  });

  test("tables of embeddings, which are stored in 8 bits", async () => {
    const net = new NetworkBuilder(7);
    const states = net.linear(net.embedding(net.input(["n", 6], "tokens", "int64"), 60, 32), 32, 16, true);
    const pooled = net.g.op("ReduceMean", [net.relu(states), net.g.shape([1])], { keepdims: int(0) });
    const model = net.output(net.linear(pooled, 16, 4), ["n", 4]);
    const count = 200;
    const random = new Random(3, "tokens");
    const tokens = Array.from({ length: count * 6 }, () => BigInt(random.integer(60)));
    const rows = samplesOf(
      { tokens: tensorOf("int64", [count, 6], BigInt64Array.from(tokens)) },
      {
        labels: tensorOf(
          "int64",
          [count],
          BigInt64Array.from({ length: count }, (_, i) => tokens[6 * i]! % 4n),
        ),
      },
    );
    const all = rows.gather(Uint32Array.from({ length: count }, (_, i) => i)).feeds;
    async function* calibration() {
      yield all;
    }
    const qat = await prepareQat(model, { batches: calibration }, optionsOf({ weights: 8, activations: 8 }), {
      openModel,
    });
    const plainOf = async (quantized: Model) => {
      const session = await openModel(quantized, { optimization: "disabled" });
      const { logits } = await session.run(all);
      await session.close();
      return floatsOf(logits!);
    };
    const start = qat.finish(qat.fakeQuantize([]).finish()).model;
    const stored = [...start.graph.initializers].map(({ constant }) => `${constant!.dtype} ${constant!.dims}`);
    assert.ok(stored.includes("int8 60,32"), String(stored));
    assert.ok(sqnrDb(await simulated(qat, undefined, rows), await plainOf(start)) > 100);
    const spec = {
      teacher: null,
      loss: { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 },
      metric: top1Of("logits"),
    };
    const made = await trainQat(
      qat,
      { ...spec, training: { ...SETTINGS, epochs: 30 }, samples: rows, validationSplit: 0 },
      { openSession },
    );
    const losses = made.training.run.history.map(({ loss }) => loss);
    assert.ok(losses.at(-1)! < 0.7 * losses[0]!, `the table learns: ${losses}`);
    assert.ok(sqnrDb(await simulated(qat, made.training.run.values, rows), await plainOf(made.model)) > 100);
  });

  test("integer kernels compute it, with weights of 4 and 2 bits too", async () => {
    for (const bits of [
      { weights: 8, activations: 8 },
      { weights: 4, activations: 8 },
      { weights: 2, activations: 4 },
    ] as const) {
      const qat = await prepare(bits);
      const { model } = qat.finish(qat.fakeQuantize([]).finish());
      const stored = [...model.graph.initializers].filter(({ name }) => name.includes(`_q${bits.weights}`));
      assert.equal(stored.length, bits.weights === 8 ? 0 : 1, "the large weight is packed");
      const ops = await optimizedOperators(model);
      assert.equal(ops.get("Conv") ?? 0, 0, JSON.stringify([...ops]));
      assert.equal(ops.get("QLinearConv"), 2, JSON.stringify([...ops]));
    }
  });
});

async function optimizedOperators(model: Model): Promise<ReadonlyMap<string, number>> {
  const { mkdtemp, readFile, rm } = await import("node:fs/promises");
  const { loadModel } = await import("../../../src/core/onnx/load.ts");
  const folder = await mkdtemp("/tmp/qat-test-");
  try {
    const optimizedModelPath = `${folder}/optimized.onnx`;
    await (await openModel(model, { optimizedModelPath })).close();
    const counts = new Map<string, number>();
    for (const { opType } of loadModel(await readFile(optimizedModelPath)).nodes()) {
      counts.set(opType, (counts.get(opType) ?? 0) + 1);
    }
    return counts;
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** y = x̂·W with x̂ behind one pair of Q/DQ and W of ones behind a marker. */
function quantizedInput(scale: number, dtype: "int8" | "uint8", zero: number) {
  const model = new Model({ irVersion: 8, opsets: [["", 13]], graphName: "main" });
  const { graph } = model;
  const x = graph.addInput("x", "float32", ["n", 3]);
  const scaleValue = graph.addInitializer("scale", tensorOf("float32", [], [scale]));
  const zeroValue = graph.addInitializer("zero", tensorOf(dtype, [], [zero]));
  // The scale of data themselves would not be learned.
  const same = graph.addInitializer("same", tensorOf("float32", [3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1]));
  const [made] = graph.append({ opType: "MatMul", inputs: [x, same], outputs: ["made"] }).outputs;
  made!.retype("float32", ["n", 3]);
  const read = [made!, scaleValue, zeroValue];
  const [q] = graph.append({ opType: "QuantizeLinear", inputs: read, outputs: ["q"] }).outputs;
  q!.retype(dtype, ["n", 3]);
  const [rounded] = graph.append({
    ...{ opType: "DequantizeLinear", inputs: [q!, scaleValue, zeroValue], outputs: ["rounded"] },
  }).outputs;
  rounded!.retype("float32", ["n", 3]);
  const weight = graph.addInitializer("w", tensorOf("float32", [3, 1], [1, 1, 1]));
  const [marker] = graph.append({ opType: "Identity", inputs: [weight], outputs: ["marked"] }).outputs;
  marker!.retype("float32", [3, 1]);
  const [y] = graph.append({ opType: "MatMul", inputs: [rounded!, marker!], outputs: ["y"] }).outputs;
  y!.retype("float32", ["n", 1]);
  graph.addOutput(y!);
  return { model, marked: [{ weight: "w", axis: 1, markers: ["marked"], biases: [] }] };
}

describe("training starts from what static quantization does", () => {
  const options = { samples: 4, corrections: true } as const;
  const staticOf = async (weightBits: 8 | 4 | 2, rounding?: Rounding, reduceRange = false) => {
    const { algorithm: _, bits: __, corrections: ___, ...ranges } = optionsOf({ weights: weightBits, activations: 8 });
    return compressStatic(
      uneven,
      { batches },
      {
        ...ranges,
        perChannel: true,
        equalize: "auto",
        smoothQuantAlpha: "auto",
        biasCorrection: true,
        weightBits,
        rounding,
        reduceRange,
      },
      { openModel },
    );
  };
  /** The same network with channels of very different sizes between its layers, which scaling brings together again. */
  let uneven: Model;
  before(() => {
    uneven = runPasses(float, simplifyPasses()).model;
    for (const site of scalingSites(uneven)) {
      site.apply(Float64Array.from({ length: site.channels }, (_, c) => 2 ** (4 * Math.sin(c))));
    }
  });

  for (const [bits, reduceRange] of [
    [8, false],
    [8, true],
    [4, false],
  ] as const) {
    test(`weights of ${bits} bits${reduceRange ? ", whose pairs may not saturate" : ""}`, async () => {
      const prepared = async (corrections: boolean) =>
        prepareQat(
          uneven,
          { batches },
          { ...optionsOf({ weights: bits, activations: 8 }), corrections, reduceRange },
          { openModel },
        );
      const startOf = (qat: QatModel) => qat.finish(qat.fakeQuantize([]).finish()).model;
      const corrected = await prepared(true);
      assert.ok(
        corrected.corrections.some(({ applied }) => applied),
        JSON.stringify(corrected.corrections),
      );
      const exact = await logitsOf(float);
      const [plain, start, full] = await Promise.all(
        [startOf(await prepared(false)), startOf(corrected), (await staticOf(bits, undefined, reduceRange)).model].map(
          (model) => logitsOf(model),
        ),
      );
      const reached = [plain, start, full].map((logits) => sqnrDb(exact, logits!));
      assert.ok(reached[1]! > reached[0]! + 1, `${reached} dB`);
      // Scales are chosen alike, and biases rounded alike, but for what lies between two steps.
      // Pairs of it are safe for all values that activations can take, whose scales will be learned.
      assert.ok(Math.abs(reached[1]! - reached[2]!) < (reduceRange ? 1 : 0.3), `${reached} dB`);
      if (!reduceRange) return;
      // Trained hard, no pair of the products of 255 and the weights leaves 16 bits.
      const spec = { teacher: uneven, loss: { ...DISTILLATION_LOSS, outputLoss: "mse", labelWeight: 0 } } as const;
      const training = { ...SETTINGS, learningRate: 0.01, epochs: 2 };
      const { model } = await trainQat(corrected, { ...spec, samples, validationSplit: 0, training }, { openSession });
      const moved = [startOf(corrected), model].map((of) =>
        [...of.graph.initializers].filter(({ name }) => name.endsWith("_q")).map(({ constant }) => constant!),
      );
      assert.notDeepEqual(
        moved[0]!.map(({ bytes }) => bytes),
        moved[1]!.map(({ bytes }) => bytes),
      );
      for (const { dims, dtype, ...codes } of moved[1]!) {
        if (dtype !== "int8" || dims.length !== 4) continue;
        const q = arrayOf({ dims, dtype, ...codes } as Tensor, "int8");
        const [channels, inputs, height, width] = dims as [number, number, number, number];
        for (let c = 0; c < channels; c++) {
          // In the order of kernels: window positions, and input channels within.
          const row = Array.from({ length: height * width * inputs }, (_, k) => {
            return q[(c * inputs + (k % inputs)) * height * width + Math.floor(k / inputs)]!;
          });
          for (let k = 0; k + 1 < row.length; k += 2) {
            assert.ok(Math.abs(row[k]! + row[k + 1]!) <= 128, `${row[k]} and ${row[k + 1]}`);
          }
        }
      }
    });
  }

  for (const bits of [4, 2] as const) {
    test(`weights of ${bits} bits have the codes that AdaRound found`, async () => {
      const rounding = adaround({ openModel, threads: 1 });
      const qat = await prepareQat(
        uneven,
        { batches },
        { ...optionsOf({ weights: bits, activations: 8 }), ...options, rounding },
        { openModel },
      );
      const start = qat.finish(qat.fakeQuantize([]).finish()).model;
      const { model } = await staticOf(bits, rounding);
      const codesOf = (of: Model) =>
        new Map(
          [...of.graph.initializers].flatMap(({ name, constant }) =>
            /_q[42]?$/.test(name) && constant!.dtype !== "int32"
              ? [[name, Buffer.from(constant!.bytes).toString("hex")]]
              : [],
          ),
        );
      const [ours, theirs] = [codesOf(start), codesOf(model)];
      assert.ok(theirs.size >= 3);
      assert.deepEqual(ours, theirs);
      const exact = await logitsOf(float);
      const nearest = sqnrDb(exact, await logitsOf((await staticOf(bits)).model));
      assert.ok(sqnrDb(exact, await logitsOf(start)) > nearest);
    });
  }

  test("an epoch that is no better than the start is not taken: the start goes out, and is said to", async () => {
    const qat = await prepareQat(
      uneven,
      { batches },
      { ...optionsOf({ weights: 8, activations: 8 }), ...options },
      { openModel },
    );
    const start = qat.finish(qat.fakeQuantize([]).finish()).model;
    // At this rate nothing is learned, and much is lost.
    const training = { ...SETTINGS, learningRate: 1, epochs: 2 };
    const made = await trainQat(
      qat,
      {
        teacher: uneven,
        loss: { ...DISTILLATION_LOSS, outputLoss: "mse", klWeight: 1, labelWeight: 0 },
        ...{ samples, validationSplit: 0.2, training },
      },
      { openSession },
    );
    assert.equal(made.helped, false);
    assert.deepEqual(modelToBytes(made.model), modelToBytes(start));
  });
});

describe("learned step sizes", () => {
  test("the gradient of a weight's scale is that of LSQ", async () => {
    const model = new Model({ irVersion: 8, opsets: [["", 13]], graphName: "main" });
    const { graph } = model;
    const x = graph.addInput("x", "float32", ["n", 3]);
    const values = [0.9, -0.31, 0.12, 0.05, -1.2, 0.44];
    const weight = graph.addInitializer("w", tensorOf("float32", [3, 2], values));
    const marker = graph.append({ opType: "Identity", inputs: [weight], outputs: ["marked"] }).outputs[0]!;
    marker.retype("float32", [3, 2]);
    const y = graph.append({ opType: "MatMul", inputs: [x, marker], outputs: ["y"] }).outputs[0]!;
    y.retype("float32", ["n", 2]);
    graph.addOutput(y);
    const marked = [{ weight: "w", axis: 1, markers: ["marked"], biases: [] }];
    const bits = { weightBits: 2, activationBits: 8, algorithm: "lsq" } as const;
    const { trainable } = fakeQuantize(model, marked, bits);
    const input = [1, 2, -1, 0.5, -2, 3];
    const batch = { feeds: { x: tensorOf("float32", [2, 3], input) }, targets: {} };
    const step = await buildStepGraph([soloNetwork(trainable)], {
      batch,
      // Σ y·c with c = 1, 2: the gradient of ŵ is xᵀ·c.
      objective: ({ g, value }) => [
        { name: "sum", weight: 1, value: g.sum(g.mul(value("y"), g.constant("float32", [2], [1, 2])), [0, 1], false) },
      ],
      seed: 0,
      openSession,
    });
    const session = await openSession({ bytes: step.model });
    const results: Readonly<Record<string, Tensor>> = await session.run({ ...step.feeds, ...batch.feeds });
    await session.close();
    const gradientOf = (role: string) => {
      const found = step.parameters.find(({ parameter }) => parameter.role === role)!;
      return floatsOf(results[found.gradient!]!);
    };
    const initial = [...trainable.graph.graph.initializers].find(({ name }) => name.endsWith("initial_scale"))!;
    const scales = floatsOf(initial.constant!);
    assert.deepEqual(dimsOf(initial), [1, 2]);
    const expectedWeight: number[] = [];
    const expectedScale = [0, 0];
    for (let k = 0; k < 3; k++) {
      for (let c = 0; c < 2; c++) {
        const upstream = (input[k]! + input[3 + k]!) * (c + 1);
        const v = values[2 * k + c]! / scales[c]!;
        const clipped = Math.min(Math.max(v, -2), 1);
        expectedWeight.push(v === clipped ? upstream : 0);
        // ds of LSQ, times s: the parameter is the logarithm of the scale.
        const step = v === clipped ? Math.round(v) - v : clipped;
        expectedScale[c]! += upstream * step * scales[c]!;
      }
    }
    for (const [i, g] of gradientOf("weight").entries()) {
      assert.ok(Math.abs(g - expectedWeight[i]!) < 1e-5, `dw[${i}] = ${g}, not ${expectedWeight[i]}`);
    }
    for (const [c, g] of gradientOf("scale").entries()) {
      assert.ok(Math.abs(g - expectedScale[c]!) < 1e-5, `dt[${c}] = ${g}, not ${expectedScale[c]}`);
    }
  });

  for (const { bits, dtype, zero, range } of [
    { bits: 8, dtype: "uint8", zero: 100, range: [-100, 155] },
    { bits: 8, dtype: "int8", zero: -28, range: [-100, 155] },
    // 100/17 = 5.9 of 16 values, whose scale is 17 times as large.
    { bits: 4, dtype: "uint8", zero: 100, range: [-6, 9] },
  ] as const) {
    test(`the gradient of an activation's range is that of PACT: ${bits} bits, ${dtype}`, async () => {
      const scale = 0.01;
      const { model, marked } = quantizedInput(scale, dtype, zero);
      const options = { weightBits: 8, activationBits: bits, algorithm: "pact" } as const;
      const { trainable } = fakeQuantize(model, marked, options);
      // In the range, above it, below it.
      const input = [0.3, 9, -9, 1.2, -0.4, 7];
      const batch = { feeds: { x: tensorOf("float32", [2, 3], input) }, targets: {} };
      const step = await buildStepGraph([soloNetwork(trainable)], {
        batch,
        objective: ({ g, value }) => [{ name: "sum", weight: 1, value: g.sum(value("y"), [0, 1], false) }],
        seed: 0,
        openSession,
      });
      const session = await openSession({ bytes: step.model });
      const results = await session.run({ ...step.feeds, ...batch.feeds });
      await session.close();
      const s = bits === 4 ? 17 * scale : scale;
      const width = s * (range[1] - range[0]);
      // Weights are 1: the loss is the sum of x̂. The parameter is the logarithm of the scale.
      const expected = s * (2 * range[1] + range[0]) + 2 * 1e-4 * width ** 2;
      const learned = step.parameters.find(({ name }) => name === "scale/log_scale")!;
      const [gradient] = floatsOf(results[learned.gradient!]!);
      assert.ok(Math.abs(gradient! - expected) < 1e-5 * Math.abs(expected), `${gradient}, not ${expected}`);
      assert.deepEqual(
        step.terms.map(({ name, weight }) => [name, weight]),
        [
          ["sum", 1],
          ["ranges", 1e-4],
        ],
      );
      const penalty = floatsOf(results[step.terms[1]!.output]!)[0]!;
      assert.ok(Math.abs(penalty / width ** 2 - 1) < 1e-6, `${penalty}, not ${width ** 2}`);
    });
  }

  test("PACT makes activations of 4 bits follow the float model; the export is as accurate as the simulation", async () => {
    const qat = await prepare({ weights: 4, activations: 4 }, { algorithm: "pact", method: "minmax" });
    const untrained = qat.finish(qat.fakeQuantize([]).finish()).model;
    const { model, training } = await trainQat(
      qat,
      {
        teacher: float,
        loss: { ...DISTILLATION_LOSS, outputLoss: "mse", klWeight: 1, labelWeight: 0 },
        ...{ samples, validationSplit: 0.1, evaluation: fresh },
        training: { ...SETTINGS, learningRate: 0.003, epochs: 10 },
      },
      { openSession },
    );
    const exact = await logitsOf(float);
    const exported = await logitsOf(model);
    const [before, after] = [sqnrDb(exact, await logitsOf(untrained)), sqnrDb(exact, exported)];
    assertRecorded(after - before, 2.3, 0.7, `${before} dB -> ${after} dB on samples that were not trained on:`);
    const squaredError = exact.reduce((sum, x, i) => sum + (x - exported[i]!) ** 2, 0) / exact.length;
    const simulation = training.metrics!.studentAfter;
    // Values on the border between two of 16 codes go either way: six trainings that hardly differed gave 0.969 to 1.007 of the simulated error.
    assert.ok(Math.abs(squaredError / simulation - 1) < 0.05, `simulated ${simulation}, exported ${squaredError}`);
    assert.ok(training.run.history.every(({ losses }) => losses.ranges! > 0));
  });

  test("training on the float model's outputs makes weights of 2 bits follow it; the export is as accurate as the simulation", async () => {
    const qat = await prepare({ weights: 2, activations: 8 });
    const untrained = qat.finish(qat.fakeQuantize([]).finish()).model;
    const { model, training } = await trainQat(
      qat,
      {
        teacher: float,
        loss: { ...DISTILLATION_LOSS, outputLoss: "mse", klWeight: 1, labelWeight: 0 },
        ...{ samples, validationSplit: 0.1, evaluation: fresh },
        training: { ...SETTINGS, learningRate: 0.003, epochs: 10 },
      },
      { openSession },
    );
    const exact = await logitsOf(float);
    const exported = await logitsOf(model);
    const [before, after] = [sqnrDb(exact, await logitsOf(untrained)), sqnrDb(exact, exported)];
    assertRecorded(after - before, 17.2, 1.5, `${before} dB -> ${after} dB on samples that were not trained on:`);
    const squaredError = exact.reduce((sum, x, i) => sum + (x - exported[i]!) ** 2, 0) / exact.length;
    const simulation = training.metrics!.studentAfter;
    assert.equal(training.metrics!.name, "teacher_mse");
    assert.equal(training.baseline, null);
    assert.ok(Math.abs(squaredError / simulation - 1) < 0.01, `simulated ${simulation}, exported ${squaredError}`);
  });

  test("where no epoch was better than the start, what goes out is not trained; where none is held out, nobody can tell", async () => {
    const qat = await prepare({ weights: 8, activations: 8 });
    const untrained = modelToBytes(qat.finish(qat.fakeQuantize([]).finish()).model);
    for (const [teacher, validationSplit, helps] of [
      [float, 0.3, false],
      [null, 0.3, false],
      [float, 0, true],
    ] as const) {
      const fromLabels = { ...DISTILLATION_LOSS, klWeight: 0, labelWeight: 1 };
      const fromTeacher = { ...DISTILLATION_LOSS, outputLoss: "mse" as const, klWeight: 1, labelWeight: 0 };
      const { helped, model } = await trainQat(
        qat,
        {
          teacher,
          ...(teacher ? { loss: fromTeacher } : { loss: fromLabels, metric: top1Of("logits") }),
          ...{ samples, validationSplit, training: { ...SETTINGS, learningRate: 10, epochs: 1 } },
        },
        { openSession },
      );
      assert.equal(helped, helps);
      assert.equal(Buffer.compare(modelToBytes(model), untrained) === 0, !helps);
    }
  });

  test("a model without a layer for it is refused", async () => {
    const net = new NetworkBuilder(1);
    const model = net.output(net.relu(net.g.op("Flatten", [net.input(["n", 1, 8, 8])])), ["n", 64]);
    await assert.rejects(
      prepareQat(model, { batches }, optionsOf({ weights: 8, activations: 8 }), { openModel }).then((qat) =>
        qat.fakeQuantize([]),
      ),
      (error) => {
        assert.ok(error instanceof CoreError && error.code === "unsupported", String(error));
        assert.match(error.message, /no layer that could compute with weights in few bits/);
        return true;
      },
    );
  });
});
