import type { Model, Value } from "../src/core/onnx/ir.ts";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { float16Pass } from "../src/core/passes/float16.ts";
import { runPasses } from "../src/core/passes/pass.ts";
import { simplifyPasses } from "../src/core/passes/simplify.ts";
import { staticForms } from "../src/core/quantize/static/forms.ts";
import { quantizeStatic } from "../src/core/quantize/static/quantize-static.ts";
import { dynamicPass } from "../src/core/quantize/weights/dynamic.ts";
import { weightOnlyPass } from "../src/core/quantize/weights/weight-only.ts";
import { GraphMaker } from "../test/support/graphs.ts";

/**
 * How the cost of graphs grows with their number of nodes: loading, simplifying, planning and every method, on a model of residual blocks whose
 * weights are small, so that what is measured is graph work and not arithmetic. Every step should take ten times as long for ten times the
 * nodes. Times are of the processor, so that a busy machine says the same.
 *
 *     node bench/large-graph.ts [nodes …]
 */

const SIZES = process.argv.slice(2).map(Number);
const WIDTH = 16;

/** `nodes` nodes in blocks of ten: an attention-like product, a linear layer with its bias, a convolution, and what stands between them. */
function residualModel(nodes: number): Model {
  const make = new GraphMaker();
  const shape = make.ints("rows", [-1, WIDTH]);
  const image = make.ints("image", [-1, WIDTH, 1, 1]);
  const one = make.floats("one", [], [1]);
  let x: Value = make.input("x", ["n", WIDTH]);
  const typed = (value: Value, dims: readonly (number | string)[]) => {
    value.retype("float32", dims);
    return value;
  };
  const row = (value: Value) => typed(value, ["n", WIDTH]);
  const pixel = (value: Value) => typed(value, ["n", WIDTH, 1, 1]);
  for (let made = 0; made < nodes; made += 10) {
    const product = row(make.op("MatMul", [x, make.weight("w", [WIDTH, WIDTH], 0.25)]));
    const sum = row(make.op("Add", [product, make.weight("b", [WIDTH], 0.1)]));
    const active = row(make.op("Relu", [sum]));
    const spatial = pixel(make.op("Reshape", [active, image]));
    const filtered = pixel(make.op("Conv", [spatial, make.weight("k", [WIDTH, WIDTH, 1, 1], 0.25)]));
    const gate = pixel(make.op("Sigmoid", [filtered]));
    const gated = pixel(make.op("Mul", [filtered, gate]));
    const flat = row(make.op("Reshape", [gated, shape]));
    const shifted = row(make.op("Add", [flat, one]));
    x = row(make.op("Add", [x, shifted]));
  }
  make.output(x, "y", ["n", WIDTH]);
  return make.model;
}

const EXCLUDE = { nodes: [], ops: [] };

const STEPS: Readonly<Record<string, (model: Model, bytes: Uint8Array) => unknown>> = {
  load: (_, bytes) => loadModel(bytes),
  clone: (model) => model.clone(),
  save: (model) => modelToBytes(model),
  simplify: (model) => runPasses(model, simplifyPasses()),
  float16: (model) => runPasses(model, [float16Pass({ keepIo: true, exclude: EXCLUDE })]),
  dynamic: (model) => runPasses(model, [dynamicPass({ perChannel: true, reduceRange: false, exclude: EXCLUDE })]),
  weight_only: (model) =>
    runPasses(model, [
      weightOnlyPass({
        bits: 4,
        blockSize: 16,
        symmetric: true,
        format: "matmulnbits",
        embeddings: true,
        accuracyLevel: 0,
        exclude: EXCLUDE,
      }),
    ]),
  plan_static: (model) =>
    quantizeStatic(runPasses(model, staticForms).model, undefined, {
      method: "minmax",
      percentile: 99.9,
      activationDType: "uint8",
      perChannel: true,
      reduceRange: false,
    }),
};

/** Values that all want the same name, in ms. */
function equalNames(count: number): number {
  const { model } = new GraphMaker();
  const started = process.cpuUsage();
  for (let i = 0; i < count; i++) model.freshName("value");
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1000;
}

const sizes = SIZES.length > 0 ? SIZES : [10_000, 100_000];
const measured = new Map<string, number[]>(Object.keys(STEPS).map((name) => [name, []]));
for (const size of sizes) {
  const model = residualModel(size);
  const bytes = modelToBytes(model);
  for (const [name, step] of Object.entries(STEPS)) {
    const started = process.cpuUsage();
    step(model, bytes);
    const { user, system } = process.cpuUsage(started);
    measured.get(name)!.push((user + system) / 1000);
  }
}
console.log(
  `seconds of processor time for ${sizes.join(", ")} nodes, and how many times as long the last takes as the first`,
);
for (const [name, times] of measured) {
  const growth = times.at(-1)! / times[0]!;
  console.log(
    name.padEnd(12),
    ...times.map((ms) => (ms / 1000).toFixed(2).padStart(8)),
    `${growth.toFixed(1).padStart(8)} x`,
  );
}
console.log(`8,000 equal names: ${equalNames(8_000).toFixed(1)} ms`);
