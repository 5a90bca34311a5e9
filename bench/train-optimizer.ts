/**
 * AdamW over parameters of one size: the vector kernel that training uses, a loop over typed arrays, and the same update as an ONNX graph
 * whose outputs are fed back.
 *
 *   node bench/train-optimizer.ts [parameters] [threads] [rounds]
 *
 * Run it with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296, as job children are.
 */
import { GraphBuilder } from "../src/core/onnx/graph-builder.ts";
import { Model } from "../src/core/onnx/ir.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { applyUpdate, OPTIMIZERS } from "../src/core/train/optimizer.ts";
import { allocateParameters, type ParameterArrays } from "../src/core/train/parameter-kernels.ts";

const [size = "10000000", threads = "2", rounds = "10"] = process.argv.slice(2);
const n = Number(size);
const { beta1, beta2, epsilon } = OPTIMIZERS.adamw;
const learningRate = 1e-3;
const weightDecay = 0.01;
const arrays = ["p", "g", "m", "v"].map(() => Float32Array.from({ length: n }, (_, i) => Math.abs(Math.sin(i))));

const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "adamw" });
const g = new GraphBuilder(model.graph);
const [p, grad, m, v] = ["p", "g", "m", "v"].map((name) => model.graph.addInput(name, "float32", [n]));
const correction = model.graph.addInput("correction", "float32", [2]);
const first = g.add(g.mul(m!, beta1), g.mul(grad!, 1 - beta1));
const second = g.add(g.mul(v!, beta2), g.mul(g.square(grad!), 1 - beta2));
const [rate, scale] = g.split(correction, 0, [1, 1]);
const moved = g.div(g.mul(first, rate!), g.add(g.mul(g.sqrt(second), scale!), epsilon));
const next = g.sub(g.mul(p!, 1 - learningRate * weightDecay), moved);
for (const value of [next, first, second]) model.graph.addOutput(value);
const session = await openSession({ bytes: modelToBytes(model) }, { threads: Number(threads) });

let feeds: Record<string, Tensor> = Object.fromEntries(
  ["p", "g", "m", "v"].map((name, i) => [name, tensorOf("float32", [n], arrays[i]!.slice())]),
);

function updateInLoop(step: number): void {
  const [params, gradient, mean, square] = arrays as [Float32Array, Float32Array, Float32Array, Float32Array];
  const stepRate = learningRate / (1 - beta1 ** step);
  const stepCorrection = 1 / Math.sqrt(1 - beta2 ** step);
  for (let i = 0; i < n; i++) {
    const a = beta1 * mean[i]! + (1 - beta1) * gradient[i]!;
    const b = beta2 * square[i]! + (1 - beta2) * gradient[i]! * gradient[i]!;
    mean[i] = a;
    square[i] = b;
    params[i] =
      (1 - learningRate * weightDecay) * params[i]! - (stepRate * a) / (Math.sqrt(b) * stepCorrection + epsilon);
  }
}

const [own] = allocateParameters([n]) as [ParameterArrays];
for (const [to, i] of [[own.data, 0] as const, [own.slots[0], 2] as const, [own.slots[1], 3] as const]) {
  to.set(arrays[i]!);
}
const kernel: number[] = [];
const loop: number[] = [];
const graph: number[] = [];
for (let step = 1; step <= Number(rounds); step++) {
  let started = performance.now();
  applyUpdate(OPTIMIZERS.adamw, own.data, arrays[1]!, own.slots, {
    learningRate,
    weightDecay,
    step,
    gradientScale: 1,
  });
  kernel.push(performance.now() - started);
  started = performance.now();
  updateInLoop(step);
  loop.push(performance.now() - started);
  started = performance.now();
  const corrected = [learningRate / (1 - beta1 ** step), 1 / Math.sqrt(1 - beta2 ** step)];
  const results = await session.run({ ...feeds, correction: tensorOf("float32", [2], corrected) });
  feeds = { ...feeds, p: results[next.name]!, m: results[first.name]!, v: results[second.name]! };
  graph.push(performance.now() - started);
}
await session.close();
for (const [label, times] of [
  ["vector kernel, one thread", kernel] as const,
  ["loop over typed arrays, one thread", loop] as const,
  [`graph, ${threads} threads`, graph] as const,
]) {
  times.sort((a, b) => a - b);
  console.log(
    `${label.padEnd(36)} least ${times[0]!.toFixed(1)} ms, median ${times[times.length >> 1]!.toFixed(1)} ms`,
  );
}
