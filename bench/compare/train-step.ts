/**
 * This project's side of the training comparison: one network, one random batch, full steps (forward, backward, AdamW update) as the loop
 * does them. Prints samples per second by the median step and by processor time, and the milliseconds of an update, as JSON.
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
const times: number[] = [];
let updateMs = 0;
let cpu = process.cpuUsage();
for (let i = 0; i < Number(steps) + 3; i++) {
  if (i === 3) cpu = process.cpuUsage();
  const started = performance.now();
  const results = await session.run({ ...graph.feeds, ...batchFeeds(batch) });
  const ran = performance.now();
  for (const [k, { data, slots }] of graph.parameters.entries()) {
    applyUpdate(OPTIMIZERS.adamw, data, floatsOf(results[graph.gradients[k]!]!), slots, {
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
const { user, system } = process.cpuUsage(cpu);
await session.close();
times.sort((a, b) => a - b);
const perSecond = (ms: number) => (1000 * net.batchSize) / ms;
console.log(
  JSON.stringify({
    median: perSecond(times[times.length >> 1]!),
    cpu: perSecond((user + system) / 1000 / Number(steps)),
    update_ms: updateMs,
  }),
);
