/**
 * Whether networks can be judged by: a trained network forgives small disturbances, one with random weights may amplify them until nothing
 * else is left of its answers, and then every quantizer looks equally bad.
 *
 *   node bench/net-sensitivity.ts [nets]
 *
 * For each network of bench/quantize-nets.ts: SQNR of its outputs, over samples that the comparison judges by, when
 * - every weight is rounded to 8 bits, with a scale for each channel;
 * - each element of one activation in float is disturbed by 1 % of its size (40 dB), at six depths of the network, one at a time.
 */
import type { Model, Node } from "../src/core/onnx/ir.ts";
import { arrayOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { runPasses } from "../src/core/passes/pass.ts";
import { simplifyPasses } from "../src/core/passes/simplify.ts";
import { openModel, sqnrDb } from "../test/support/open-model.ts";
import { NETS } from "./quantize-nets.ts";

type Outputs = Readonly<Record<string, Tensor>>;

const SAMPLES = 8;
const SEED = 2;
const DISTURBANCE = 0.01;
const DEPTHS = 6;

const chosen = process.argv[2]?.split(",") ?? Object.keys(NETS);
console.log(`${"".padEnd(12)} 8-bit weights   1 % at ${DEPTHS} depths, first to last (dB)`);
for (const name of chosen) {
  const net = NETS[name]!;
  const { model } = runPasses(await net.model(), simplifyPasses());
  const feeds = await net.data(SAMPLES, SEED);
  const expected = await answers(model, feeds);
  const rounded = model.clone();
  for (const node of layers(rounded)) roundWeight(node);
  const sqnrs = [sqnrDb(expected, await answers(rounded, feeds))];
  const count = layers(model).length;
  for (let depth = 0; depth < DEPTHS; depth++) {
    const disturbed = model.clone();
    disturb(layers(disturbed)[Math.floor((depth * count) / DEPTHS)]!);
    sqnrs.push(sqnrDb(expected, await answers(disturbed, feeds)));
  }
  const [weights, ...activations] = sqnrs.map((db) => db.toFixed(1).padStart(6));
  console.log(`${name.padEnd(12)} ${weights!.padStart(13)}   ${activations.join(" ")}`);
}

async function answers(model: Model, feeds: Outputs): Promise<Outputs> {
  const session = await openModel(model);
  try {
    return await session.run(feeds);
  } finally {
    await session.close();
  }
}

/** The nodes that multiply with a constant, in the order they run. */
function layers(model: Model): Node[] {
  return [...model.nodes()].filter(
    ({ opType, inputs }) => /^(Conv|MatMul|Gemm)$/.test(opType) && (inputs[1]?.constant?.dims.length ?? 0) > 1,
  );
}

/** Rounds to 255 levels, with a scale for each output: the first axis, or the last one of a MatMul and of a Gemm that is not transposed. */
function roundWeight(node: Node): void {
  const { dims, ...weight } = node.inputs[1]!.constant!;
  const values = arrayOf({ dims, ...weight } as Tensor, "float32").slice();
  const outputs = node.opType === "Conv" || node.int("transB", 0) !== 0 ? dims[0]! : dims.at(-1)!;
  const perOutput = values.length / outputs;
  const channelOf = outputs === dims.at(-1) && outputs !== dims[0] ? (i: number) => i % outputs : undefined;
  const channel = channelOf ?? ((i: number) => Math.floor(i / perOutput));
  const largest = new Float32Array(outputs);
  values.forEach((value, i) => {
    largest[channel(i)] = Math.max(largest[channel(i)]!, Math.abs(value));
  });
  values.forEach((value, i) => {
    const scale = largest[channel(i)]! / 127 || 1;
    values[i] = scale * Math.round(value / scale);
  });
  node.setInput(1, node.graph.addInitializer("rounded", tensorOf("float32", dims, values)));
}

/** Multiplies each element of what a node makes by 1 + 1 % of a normal number. */
function disturb(node: Node): void {
  const { graph } = node;
  const [output] = node.outputs;
  const noise = graph.insertAfter(node, {
    opType: "RandomNormalLike",
    inputs: [output],
    outputs: 1,
    attrs: {
      mean: { type: "float", value: 1 },
      scale: { type: "float", value: DISTURBANCE },
      seed: { type: "float", value: 1 },
    },
  });
  const product = graph.insertAfter(noise, { opType: "Mul", inputs: [undefined, noise.outputs[0]], outputs: 1 });
  graph.replaceUses(output!, product.outputs[0]!);
  noise.setInput(0, output);
  product.setInput(0, output);
}
