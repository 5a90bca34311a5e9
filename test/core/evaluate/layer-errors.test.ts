import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Batch } from "../../../src/core/data/dataset.ts";
import { CoreError } from "../../../src/core/errors.ts";
import { measureLayerErrors } from "../../../src/core/evaluate/layer-errors.ts";
import { layersThatLoseMost } from "../../../src/core/evaluate/lossy-layers.ts";
import type { LayerError } from "../../../src/core/facts.ts";
import type { Model, Node, Value } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { floatsOf, type Tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { float16Pass } from "../../../src/core/passes/float16.ts";
import { type Pass, runPasses } from "../../../src/core/passes/pass.ts";
import { simplifyPasses } from "../../../src/core/passes/simplify.ts";
import { exposeValues } from "../../../src/core/quantize/calibration/calibrate.ts";
import {
  compressStatic,
  type PipelineOptions,
  type PipelineResult,
} from "../../../src/core/quantize/static/pipeline.ts";
import { dynamicPass } from "../../../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../../../src/core/quantize/weights/weight-only.ts";
import { compress, computedValue } from "../../support/compressed.ts";
import { branches, cnn, GraphMaker, mobilenet, randomFeeds, resnet, transformer } from "../../support/graphs.ts";
import { layerErrorFixture } from "../../support/metrics.ts";
import { openModel } from "../../support/open-model.ts";
import { readRealModel } from "../../support/real-models.ts";

const SAMPLES = 3;
const exclude = { nodes: [], ops: [] };

function samplesOf(model: Model): Record<string, Tensor>[] {
  return Array.from({ length: SAMPLES }, (_, i) => randomFeeds(model, { seed: i + 1, dims: { n: 1 } }));
}

async function* batchesFor(model: Model): AsyncGenerator<Batch> {
  for (const feeds of samplesOf(model)) yield { feeds, count: 1 };
}

function measure(
  reference: Model,
  compressed: Model,
  results: Readonly<Record<string, string>> = {},
): Promise<readonly LayerError[] | null> {
  return measureLayerErrors({ ...ON_ONE_THREAD, reference, compressed, results, batches: batchesFor(reference) });
}

const ON_ONE_THREAD = { openModel, threads: 1, changed: new Set<string>() };

/** The readers of a value in the order of its uses, and the only one of an operator among them. */
function reader(value: Value, opType: string): Node {
  const found = value.uses.map(({ node }) => node).filter((node) => node.opType === opType);
  assert.equal(found.length, 1, `${value.name} has ${found.length} readers of ${opType}`);
  return found[0]!;
}

/** Values of the main graph by name, over all samples. */
async function computed(model: Model, names: readonly string[]): Promise<Map<string, Float32Array[]>> {
  const exposed = exposeValues(model, names);
  const session = await openModel(exposed.model);
  const found = new Map<string, Float32Array[]>(names.map((name) => [name, []]));
  try {
    for (const feeds of samplesOf(model)) {
      const outputs = await session.run(feeds);
      for (const [name, output] of exposed.outputs) found.get(name)!.push(floatsOf(outputs[output]!));
    }
  } finally {
    await session.close();
  }
  return found;
}

function sqnrOf(expected: readonly Float32Array[], actual: readonly Float32Array[]): number {
  let [signal, noise] = [0, 0];
  expected.forEach((values, i) => {
    values.forEach((x, k) => {
      signal += x ** 2;
      noise += (x - actual[i]![k]!) ** 2;
    });
  });
  return 10 * Math.log10(signal / noise);
}

/** A model in the form in which methods get it. */
const simple = (model: Model) => runPasses(model, simplifyPasses()).model;

it("where there is no layer nothing is loaded, and nothing is said", async () => {
  const make = new GraphMaker();
  make.output(make.op("Relu", [make.input("x", ["n", 2])]), "y", ["n", 2]);
  const { model } = make;
  const found = await measureLayerErrors({
    ...{ ...ON_ONE_THREAD, reference: model, compressed: model, batches: batchesFor(model) },
    openModel: () => assert.fail("no model is needed"),
  });
  assert.equal(found, null);
});

/** x [n, 2] through two matrices, the second with `corner` at its upper left. */
function twoLayers(corner: number): Model {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 2]);
  const inner = make.op("MatMul", [x, make.floats("w1", [2, 2], [1, 2, 3, 4])]);
  make.output(make.op("MatMul", [inner, make.floats("w2", [2, 2], [corner, 0, 0, 1])]), "y", ["n", 2]);
  return make.model;
}

const NETWORKS: Readonly<Record<string, { readonly model: Model; readonly layers: number }>> = {
  // Two convolutions and two products; a product of each head's queries and keys, and of scores and values, is a layer too.
  cnn: { model: simple(cnn()), layers: 4 },
  mobilenet: { model: simple(mobilenet()), layers: 11 },
  transformer: { model: simple(transformer()), layers: 17 },
};

const PASSES: Readonly<Record<string, { readonly pass: Pass; readonly minDb: number; readonly maxDb: number }>> = {
  float16: { pass: float16Pass({ keepIo: true, exclude }), minDb: 55, maxDb: 80 },
  dynamic: { pass: dynamicPass({ perChannel: true, reduceRange: true, exclude }), minDb: 20, maxDb: 60 },
  "4 bits": {
    pass: weightOnlyPass({
      ...{ bits: 4, blockSize: 32, symmetric: false, format: "matmulnbits", embeddings: true, accuracyLevel: 0 },
      exclude,
    }),
    minDb: 10,
    maxDb: 60,
  },
};

const STATIC: PipelineOptions = {
  ...{ samples: SAMPLES, method: "mse", percentile: 99.999, activationDType: "uint8", perChannel: true },
  ...{ reduceRange: true, equalize: "auto", smoothQuantAlpha: "auto", biasCorrection: true },
};

async function quantized(model: Model): Promise<PipelineResult> {
  const data = {
    async *batches() {
      yield* samplesOf(model);
    },
  };
  return await compressStatic(model, data, STATIC, { openModel });
}

describe("measureLayerErrors", () => {
  it("is the ratio of signal to error of a layer's result, whatever comes after", async () => {
    const [reference, compressed] = [twoLayers(2), twoLayers(2.25)];
    let signal = 0;
    let noise = 0;
    for (const feeds of samplesOf(reference)) {
      const x = floatsOf(await computedValue(reference, reference.graph.outputs[0]!, feeds));
      const y = floatsOf(await computedValue(compressed, compressed.graph.outputs[0]!, feeds));
      x.forEach((value, i) => {
        signal += value ** 2;
        noise += (value - y[i]!) ** 2;
      });
    }
    const [first, second, ...others] = (await measure(reference, compressed))!;
    assert.deepEqual(first, {
      ...{ node: "matmul_node", op: "MatMul" },
      ...{ sqnr_db: null, input_sqnr_db: null, changed: false },
    });
    assert.equal(second!.node, "matmul_node_1");
    assert.ok(Math.abs(second!.sqnr_db! - 10 * Math.log10(signal / noise)) < 1e-9);
    assert.deepEqual(others, []);
  });

  for (const [method, { pass, minDb, maxDb }] of Object.entries(PASSES)) {
    it(`finds every layer again after ${method}`, async () => {
      for (const [network, { model, layers }] of Object.entries(NETWORKS)) {
        const errors = (await measure(model, compress(model, pass).model))!;
        assert.equal(errors.length, layers, network);
        for (const { node, sqnr_db } of errors) {
          // The first layers may be left as they were.
          assert.ok(sqnr_db === null || (sqnr_db > minDb && sqnr_db < maxDb), `${network} ${node}: ${sqnr_db} dB`);
        }
        assert.ok(errors.some(({ sqnr_db }) => sqnr_db !== null));
      }
    });
  }

  it("compares static int8 with the float model whose channels it has scaled, after the rounding of each result", async () => {
    for (const [network, { model, layers }] of Object.entries(NETWORKS)) {
      const result = await quantized(model);
      const errors = (await measure(result.float, compress(result.model).model, result.plan.results))!;
      assert.equal(errors.length, layers, network);
      for (const { node, sqnr_db } of errors) {
        assert.ok(sqnr_db === null || (sqnr_db > 32 && sqnr_db < 50), `${network} ${node}: ${sqnr_db} dB`);
      }
    }
  });

  it("of a residual network compares what the readers of each layer see, to 0.1 dB of a computation of its own", async () => {
    const result = await quantized(simple(resnet({ depth: 18, width: 8, classes: 10, size: 32 })));
    const reference = result.float;
    const compressed = compress(result.model).model;
    // By the structure of both graphs: behind a Conv, or the Relu that has become part of its rounding, stand Q and then DQ.
    const convolutions = reference.graph.nodes.filter(({ opType }) => opType === "Conv");
    const pairs = convolutions.map((conv) => {
      const output = conv.outputs[0]!;
      const [use, other] = output.uses;
      const isRectified = use!.node.opType === "Relu" && !other;
      const twin = compressed.graph.nodes.find(({ name }) => name === conv.name)!;
      const codes = reader(twin.outputs[0]!, "QuantizeLinear").outputs[0]!;
      const before = isRectified ? use!.node.outputs[0]! : output;
      return { node: conv.label, before: before.name, after: reader(codes, "DequantizeLinear").outputs[0]!.name };
    });
    assert.equal(pairs.length, 20);
    const float = await computed(
      reference,
      pairs.map(({ before }) => before),
    );
    const rounded = await computed(
      compressed,
      pairs.map(({ after }) => after),
    );
    const errors = new Map(
      (await measure(reference, compressed, result.plan.results))!.map(({ node, sqnr_db }) => [node, sqnr_db!]),
    );
    assert.equal(errors.size, 21);
    let unrounded = 0;
    for (const { node, before, after } of pairs) {
      const expected = sqnrOf(float.get(before)!, rounded.get(after)!);
      assert.ok(Math.abs(errors.get(node)! - expected) < 0.1, `${node}: ${errors.get(node)} dB, not ${expected} dB`);
      // Of the values before their rounding the numbers are others.
      const twin = compressed.graph.nodes.find(({ name }) => name === node)!.outputs[0]!.name;
      if (before === reference.graph.nodes.find(({ name }) => name === node)!.outputs[0]!.name) {
        const early = await computed(compressed, [twin]);
        unrounded = Math.max(unrounded, sqnrOf(float.get(before)!, early.get(twin)!) - expected);
      }
    }
    assert.ok(unrounded > 0.3, `the rounding of results makes no difference here: ${unrounded} dB`);
  });

  it("looks into branches, and leaves out those that were not taken", async () => {
    const errors = (await measure(branches(), branches()))!;
    assert.deepEqual(
      errors.map(({ op, sqnr_db }) => [op, sqnr_db]),
      Array.from({ length: 3 }, () => ["MatMul", null]),
    );
  });

  it("looks into branches of branches of a real model in float16", async () => {
    const reference = simple(loadModel(readRealModel("silero-vad")));
    const { model: compressed } = runPasses(reference, [PASSES.float16!.pass]);
    const feeds = {
      input: tensorOf(
        "float32",
        [1, 576],
        Float32Array.from({ length: 576 }, (_, i) => 0.3 * Math.sin(i / 7)),
      ),
      state: tensorOf("float32", [2, 1, 128], new Float32Array(256)),
      sr: tensorOf("int64", [], BigInt64Array.of(16_000n)),
    };
    const batches = async function* () {
      yield { feeds, count: 1 };
    };
    const errors = await measureLayerErrors({ ...ON_ONE_THREAD, reference, compressed, batches: batches() });
    const convolutions = errors!.filter(({ op }) => op === "Conv");
    assert.equal(convolutions.length, 6);
    for (const { sqnr_db } of convolutions) assert.ok(sqnr_db! > 30, `${sqnr_db} dB`);
  });

  it("leaves out what has another shape, and says nothing when nothing is left", async () => {
    const make = new GraphMaker();
    const x = make.input("x", ["n", 2]);
    const wide = make.op("MatMul", [x, make.weight("w", [2, 3], 1)]);
    make.output(make.op("MatMul", [wide, make.weight("w2", [3, 2], 1)]), "y", ["n", 2]);
    const errors = (await measure(twoLayers(2), make.model))!;
    assert.deepEqual(
      errors.map(({ node }) => node),
      ["matmul_node_1"],
    );
    const other = new GraphMaker();
    other.output(other.op("Relu", [other.input("x", ["n", 2])]), "z", ["n", 2]);
    assert.equal(await measure(twoLayers(2), other.model), null);
  });

  it("does not fail a job, and can be stopped", async () => {
    const options = { ...ON_ONE_THREAD, reference: twoLayers(1), compressed: twoLayers(1) };
    const refused = async () => {
      throw new CoreError("invalid_model", "onnxruntime does not like it.");
    };
    const batches = () => batchesFor(options.reference);
    assert.equal(await measureLayerErrors({ ...options, batches: batches(), openModel: refused }), null);
    const signal = AbortSignal.abort();
    await assert.rejects(measureLayerErrors({ ...options, batches: batches(), signal }), {
      code: "cancelled",
    });
  });
});

/** Layers by the names of their weights: a and, behind a Relu, b; c beside them; d of the sum of both. */
function joined(factors: Readonly<Record<string, number>>): Model {
  const make = new GraphMaker();
  const x = make.input("x", ["n", 2]);
  const layer = (name: string, value: Value) => {
    const factor = factors[name] ?? 1;
    return make.op("MatMul", [value, make.floats(name, [2, 2], [factor, 0.5, -0.5, factor])]);
  };
  const b = layer("b", make.op("Relu", [layer("a", x)]));
  make.output(layer("d", make.op("Add", [b, layer("c", x)])), "y", ["n", 2]);
  return make.model;
}

it("tells the error of what a layer reads, through operators between, from its own, and which layers were changed", async () => {
  const labels = new Map([...joined({}).nodes()].map((node) => [node.inputs[1]?.name, node.label]));
  const errors = (await measureLayerErrors({
    ...{ ...ON_ONE_THREAD, reference: joined({}), compressed: joined({ a: 1.1, c: 1.5 }) },
    ...{ batches: batchesFor(joined({})), changed: new Set([labels.get("a")!, labels.get("c")!, labels.get("d")!]) },
  }))!;
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => errors.find(({ node }) => node === labels.get(name))!);
  assert.deepEqual([a!.input_sqnr_db, c!.input_sqnr_db], [null, null]);
  assert.equal(b!.input_sqnr_db, a!.sqnr_db);
  assert.ok(c!.sqnr_db! < b!.sqnr_db!);
  assert.equal(d!.input_sqnr_db, c!.sqnr_db);
  assert.deepEqual(
    [a, b, c, d].map((it) => it!.changed),
    [true, false, true, true],
  );
});

describe("the layers that lose most", () => {
  it("are those that add most noise to what they read", () => {
    const layers = [
      layerErrorFixture("first", 20),
      layerErrorFixture("passes on", 19.9, { input_sqnr_db: 20 }),
      layerErrorFixture("adds", 15, { input_sqnr_db: 19.9 }),
      layerErrorFixture("averages", 25, { input_sqnr_db: 15 }),
      layerErrorFixture("exact", null),
    ];
    assert.deepEqual(
      layersThatLoseMost(layers, 9).map(({ node }) => node),
      ["adds", "first", "passes on"],
    );
    assert.deepEqual(
      layersThatLoseMost(layers, 1).map(({ node }) => node),
      ["adds"],
    );
    assert.deepEqual(layersThatLoseMost(null, 3), []);
  });

  it("are none that the job has left alone, however large the error is that comes to them", () => {
    const layers = [
      layerErrorFixture("rounded", 12),
      layerErrorFixture("left alone", 2, { input_sqnr_db: 12, changed: false }),
    ];
    assert.deepEqual(
      layersThatLoseMost(layers, 3).map(({ node }) => node),
      ["rounded"],
    );
  });
});

it("stops when its time is up, and says how many layers it has compared", async () => {
  const reference = runPasses(resnet(), simplifyPasses()).model;
  const compressed = runPasses(reference, [float16Pass({ keepIo: true, exclude })]).model;
  const all = (await measure(reference, compressed))!;
  const told: [number, number][] = [];
  const errors = await measureLayerErrors({
    ...{ ...ON_ONE_THREAD, reference, compressed, batches: batchesFor(reference) },
    budgetMs: 0,
    onIncomplete: (compared, of) => told.push([compared, of]),
  });
  assert.deepEqual(told, [[errors!.length, all.length]]);
  assert.ok(errors!.length > 0 && errors!.length < all.length, `${errors!.length} of ${all.length}`);
});
