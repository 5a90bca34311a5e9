/**
 * This project's side of the training comparison: one network, one random batch, full steps (forward, backward, AdamW update) as the loop
 * does them. Prints the median milliseconds of a step as JSON.
 *
 *   node bench/compare/train-step.ts NET STEPS THREADS
 */
import { floatsOf } from "../../src/core/onnx/tensor.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { applyUpdate, OPTIMIZERS } from "../../src/core/train/optimizer.ts";
import { batchFeeds } from "../../src/core/train/step-graph.ts";
import { NETS, netStep } from "../train-nets.ts";

const [name, steps, threads] = process.argv.slice(2) as [string, string, string];
const net = NETS[name]!;
const { graph, batch } = await netStep(net);
const session = await openSession({ bytes: graph.model }, { threads: Number(threads) });
const slots = graph.parameters.map(({ data }) => [new Float32Array(data.length), new Float32Array(data.length)]);
const times: number[] = [];
let updateMs = 0;
for (let i = 0; i < Number(steps) + 3; i++) {
  const started = performance.now();
  const results = await session.run({ ...graph.feeds, ...batchFeeds(batch) });
  const ran = performance.now();
  for (const [k, { data }] of graph.parameters.entries()) {
    applyUpdate(OPTIMIZERS.adamw, data, floatsOf(results[graph.gradients[k]!]!), slots[k]!, {
      learningRate: 1e-3,
      weightDecay: 0.01,
      gradientScale: 1,
      step: i + 1,
    });
  }
  const now = performance.now();
  if (i < 3) continue;
  times.push(now - started);
  updateMs += (now - ran) / Number(steps);
}
await session.close();
const ms = times.sort((a, b) => a - b)[times.length >> 1]!;
console.log(JSON.stringify({ ms, samples_per_second: (1000 * net.batchSize) / ms, update_ms: updateMs }));
