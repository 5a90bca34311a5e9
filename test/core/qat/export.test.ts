import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { DISTILLATION_LOSS } from "../../../src/core/distill/objective.ts";
import { int } from "../../../src/core/onnx/graph-builder.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { arrayOf, floatsOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { prepareQat, type QatOptions, trainQat } from "../../../src/core/qat/qat.ts";
import { Random } from "../../../src/core/random.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { samplesOf } from "../../../src/core/train/samples.ts";
import { SCHEDULES } from "../../../src/core/train/schedule.ts";
import { NetworkBuilder } from "../../support/networks.ts";
import {
  batches,
  logitsOf,
  openModel,
  optionsOf,
  prepare as prepareSubject,
  simulated,
  sqnrDb,
  trainedFloat,
} from "../../support/qat-subject.ts";
import { fresh, SHORT, samples } from "../../support/short-training.ts";
import { top1Of } from "../../support/top1.ts";

let float: Model;
const prepare = (bits: QatOptions["bits"], more: Partial<QatOptions> = {}) => prepareSubject(float, bits, more);

before(async () => {
  float = await trainedFloat();
});

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
      { teacher: model, loss, samples, validationSplit: 0, training: { ...SHORT, epochs: 1 } },
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
    const training = { ...SHORT, epochs: 1, schedule: SCHEDULES.constant };
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
      { ...spec, training: { ...SHORT, epochs: 30 }, samples: rows, validationSplit: 0 },
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
