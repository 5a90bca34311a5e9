import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encoder } from "../../../../bench/seasoned-nets.ts";
import type { QuantizePlan } from "../../../../src/core/index.ts";
import type { Model, Value } from "../../../../src/core/onnx/ir.ts";
import { tensorOf } from "../../../../src/core/onnx/tensor.ts";
import { Random } from "../../../../src/core/random.ts";
import type { Report } from "../../../../src/report/report.ts";
import { floatArray } from "../../../support/compressed.ts";
import { writeNpz } from "../../../support/dataset-writers.ts";
import { cnn, GraphMaker, mlp, transformer } from "../../../support/graphs.ts";
import { type QuantizeJobOptions, quantizeJob, quantizePlan } from "../../../support/quantize-job.ts";

const SAMPLES = 40;

/** An entry of a plan or of a job's report, and the nodes that it is about. */
interface Entry {
  readonly key: string;
  readonly nodes: readonly string[];
}

type Note = { readonly name: string; readonly op: string; readonly code: string };

const noteEntry = (outcome: string, { name, op, code }: Note): Entry => ({
  key: `${outcome} ${name} (${op}): ${code}`,
  nodes: [name],
});

function entriesOf(weights: QuantizePlan["weights"], values: QuantizePlan["values"]): Entry[] {
  return [
    ...weights.map((weight) => ({ key: `weight ${JSON.stringify(weight)}`, nodes: weight.nodes })),
    // The node that makes a value is not told; a value is provisional where any node may be.
    ...values.map(({ name, dtype }) => ({ key: `value ${name} ${dtype}`, nodes: [] })),
  ];
}

const planned = (plan: QuantizePlan): Entry[] => [
  ...plan.quantized_nodes.map((note) => noteEntry("changed", note)),
  ...plan.skipped_nodes.map((note) => noteEntry("skipped", note)),
  ...entriesOf(plan.weights, plan.values),
];

const done = ({ nodes, plan }: Report): Entry[] => [
  ...nodes.filter(({ outcome }) => outcome !== "simplified").map((note) => noteEntry(note.outcome, note)),
  ...entriesOf(plan?.weights ?? [], plan?.values ?? []),
];

/** Entries that only one of the two has. */
function differences(a: readonly Entry[], b: readonly Entry[]): Entry[] {
  const only = (these: readonly Entry[], those: readonly Entry[]) => {
    const keys = new Set(those.map(({ key }) => key));
    return these.filter(({ key }) => !keys.has(key));
  };
  return [...only(a, b), ...only(b, a)];
}

const measurePeak = async () => ({ peakBytes: 0, baselineBytes: 0 });

async function both(model: Model, options: QuantizeJobOptions) {
  const plan = await quantizePlan(model, options);
  // How much memory a run takes is no part of this, and takes a process to find out.
  const { report } = await quantizeJob(model, { ...options, environment: { measurePeak } });
  assert.ok(planned(plan).length > 0, "there is something to compare");
  return { plan, report, differing: differences(planned(plan), done(report)) };
}

const random = (dims: readonly number[]) => new GraphMaker({ seed: 9 }).random([SAMPLES, ...dims], 1);

/** x [n, 16] → y [n, 4]: two layers, and `middle` between them. */
function layers(middle: (make: GraphMaker, x: Value) => Value): Model {
  const make = new GraphMaker();
  const hidden = make.op("Relu", [make.linear(make.input("x", ["n", 16]), 16, 16)]);
  make.output(make.linear(middle(make, hidden), 16, 4), "y", ["n", 4]);
  return make.model;
}

/** Activations that pass 65504. */
const large = () =>
  layers((make, x) => {
    const scaled = make.op("Mul", [x, make.floats("k", [], [1e5])]);
    return make.op("Div", [scaled, make.op("ReduceMax", [scaled], { axes: [1], keepdims: 1 })]);
  });

/** Energies of very different size on their way to a logarithm. */
const decibels = () =>
  layers((make, x) => {
    const mel = make.linear(make.op("Mul", [x, x]), 16, 16);
    return make.op("Log", [make.op("Add", [make.op("Mul", [mel, mel]), make.floats("e", [], [1e-6])])]);
  });

/** x [n, 5, 12] → y [n, 4] by an LSTM, whose steps come first. */
function recurrent(): Model {
  const make = new GraphMaker();
  const steps = make.op("Transpose", [make.input("x", ["n", 5, 12])], { perm: [1, 0, 2] });
  const weights = [make.weight("w", [1, 64, 12], 0.3), make.weight("r", [1, 64, 16], 0.3)];
  const { outputs } = make.node("LSTM", [steps, ...weights], { hidden_size: 16 }, 2);
  const last = make.op("Squeeze", [outputs[1]!, make.ints("axes", [0])]);
  make.output(make.linear(last, 16, 4), "y", ["n", 4]);
  return make.model;
}

const vectors = () => writeNpz({ x: random([16]) });
const tokens = () =>
  tensorOf(
    "int64",
    [SAMPLES, 8],
    BigInt64Array.from({ length: SAMPLES * 8 }, (_, i) => BigInt((i * 7) % 50)),
  );

const FLOAT16 = { method: "float16" };
const DYNAMIC = { method: "dynamic" };
const WEIGHTS = { method: "weight_only", bits: 4 };
const GPTQ = { ...WEIGHTS, rounding: "gptq", dataset_id: "dst_1", samples: 20 };
const STATIC = { method: "static", dataset_id: "dst_1", samples: 20, float_where_slower: false };
const UNLIMITED = { ...STATIC, min_sqnr_db: null };

const EXACT: readonly (readonly [name: string, Model, Uint8Array, readonly Readonly<Record<string, unknown>>[]])[] = [
  ["a perceptron", mlp(), vectors(), [DYNAMIC, GPTQ, UNLIMITED]],
  [
    "a convolutional network",
    cnn({ batchNorm: true }),
    writeNpz({ x: random([1, 28, 28]) }),
    [{ method: "simplify" }, FLOAT16, WEIGHTS, UNLIMITED],
  ],
  ["a recurrent network", recurrent(), writeNpz({ x: random([5, 12]) }), [FLOAT16, DYNAMIC, UNLIMITED]],
  ["a transformer", transformer({ layers: 1 }), writeNpz({ ids: tokens() }), [FLOAT16, WEIGHTS, UNLIMITED]],
  [
    "a transformer that normalizes sums",
    encoder({ layers: 1, width: 32, heads: 2, length: 8, vocabulary: 50, norm: "after" }),
    writeNpz({ ids: tokens(), mask: tensorOf("int64", [SAMPLES, 8], new BigInt64Array(SAMPLES * 8).fill(1n)) }),
    [UNLIMITED],
  ],
  ["values beyond float16", large(), vectors(), [FLOAT16]],
];

describe("a job does what its plan says, entry by entry", () => {
  for (const [name, model, dataset, all] of EXACT) {
    it(name, async () => {
      for (const params of all) {
        const { plan, differing } = await both(model, { params, dataset, evaluation: { samples: 4 } });
        assert.deepEqual([plan.provisional, differing], [[], []], JSON.stringify(params));
      }
    });
  }
});

describe("a plan says what may come out otherwise", () => {
  /** Whether a provision covers each entry. */
  const areCovered = ({ provisional }: QuantizePlan, entries: readonly Entry[]) =>
    entries.every((entry) =>
      provisional.some(({ nodes }) => nodes.length === 0 || entry.nodes.some((node) => nodes.includes(node))),
    );
  const codesOf = ({ provisional }: QuantizePlan) => provisional.map(({ code }) => code);

  it("the limit of accuracy, which leaves layers in float", async () => {
    const dataset = writeNpz({ x: random([1, 28, 28]) });
    const { plan, differing } = await both(cnn({ batchNorm: true }), {
      params: { ...STATIC, min_sqnr_db: 60 },
      dataset,
    });
    assert.deepEqual(codesOf(plan), ["accuracy"]);
    assert.match(plan.provisional[0]!.message, /below 60 dB/);
    assert.ok(differing.some(({ key }) => key.endsWith(": kept_for_accuracy")));
    assert.ok(areCovered(plan, differing));
    const usual = await quantizePlan(mlp(), { params: STATIC, dataset: vectors() });
    assert.match(usual.provisional[0]!.message, /below 10 dB/, "a poor result is mended without being asked");
  });

  it("what is measured: layers in front of a logarithm", async () => {
    const options = { params: UNLIMITED, dataset: vectors() };
    const { plan, differing } = await both(decibels(), options);
    assert.deepEqual(codesOf(plan), ["measured_choice"]);
    const [{ nodes }] = plan.provisional as [QuantizePlan["provisional"][number]];
    assert.ok(nodes.some((node) => planned(plan).some((entry) => entry.nodes.includes(node))));
    const notes = differing.filter((entry) => entry.nodes.length > 0);
    assert.ok(areCovered(plan, notes), JSON.stringify(notes));
  });

  it("what is measured: nodes that are faster in float on the machine", async () => {
    const params = { ...UNLIMITED, float_where_slower: true };
    const plan = await quantizePlan(mlp(), { params, dataset: vectors() });
    assert.deepEqual(codesOf(plan), ["measured_choice"]);
    assert.match(plan.provisional[0]!.message, /faster in float on its machine/);
  });

  it("samples that it had no time for", async (t) => {
    const x = random([16]);
    const values = Float32Array.from(floatArray(x));
    // The samples that are looked at last.
    for (const sample of new Random(0, "drawn samples").permutation(SAMPLES).subarray(30)) {
      for (let i = 16 * sample; i < 16 * (sample + 1); i++) values[i] = 100 * values[i]!;
    }
    const model = layers((make, x) => make.op("Sqrt", [make.op("Mul", [x, make.op("Mul", [x, x])])]));
    const options = {
      params: FLOAT16,
      dataset: writeNpz({ x: tensorOf("float32", [SAMPLES, 16], values) }),
      evaluation: { samples: SAMPLES, latency: { runs: 1, batch_size: 1 } },
    };
    const { report } = await quantizeJob(model, options);
    let now = 0;
    t.mock.method(performance, "now", () => (now += 3000));
    const plan = await quantizePlan(model, options);
    const few = await quantizePlan(mlp(), { params: UNLIMITED, dataset: vectors() });
    t.mock.restoreAll();
    assert.deepEqual(codesOf(plan), ["ranges_from_few"]);
    assert.match(plan.provisional[0]!.message, /looked at on \d samples, and the job looks at up to 40/);
    const differing = differences(planned(plan), done(report));
    assert.ok(differing.length > 0 && areCovered(plan, differing));
    assert.deepEqual(codesOf(few), ["ranges_from_few"]);
    assert.match(few.provisional[0]!.message, /from 4 of 20 runs/);
  });
});
