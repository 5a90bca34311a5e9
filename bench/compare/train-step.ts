/**
 * This project's side of the training comparison: one network, one random batch, full steps (forward, backward, AdamW update) as the loop
 * does them, for so many seconds after a third as much to warm up. Prints samples per second by the median step, by the fastest one and by
 * processor time, as JSON.
 *
 *   node bench/compare/train-step.ts NET SECONDS THREADS
 */
import { floatsOf } from "../../src/core/onnx/tensor.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { OPTIMIZERS } from "../../src/core/train/optimizer.ts";
import { batchFeeds } from "../../src/core/train/step-graph.ts";
import { openStep } from "../../src/core/train/step-runner.ts";
import { UpdateThreads } from "../../src/core/train/update-threads.ts";
import { NETS, netStep } from "../train-nets.ts";

const [name, seconds, threads] = process.argv.slice(2) as [string, string, string];
const net = NETS[name]!;
const { graph, batch, rebuild } = await netStep(net, Number(threads));
const runner = await openStep(graph, { threads: Number(threads), openSession, batch, rebuild });
const optimizer = new UpdateThreads(
  OPTIMIZERS.adamw,
  Number(threads),
  graph.parameters.map(({ parameter }) => parameter),
);
let updates = 0;

/** Milliseconds of a step. */
async function step(): Promise<number> {
  const started = performance.now();
  const results = await runner.run({ ...graph.feeds, ...batchFeeds(batch) });
  updates++;
  const update = { learningRate: 1e-3, weightDecay: 0.01, gradientScale: 1, step: updates };
  optimizer.apply(
    graph.parameters.map(({ parameter, gradient }) => ({ parameter, gradient: floatsOf(results[gradient!]!), update })),
  );
  return performance.now() - started;
}

/** The times of all steps that fit into so many seconds, at least three. */
async function steps(limit: number): Promise<number[]> {
  const times: number[] = [];
  for (const end = performance.now() + 1000 * limit; times.length < 3 || performance.now() < end; )
    times.push(await step());
  return times;
}

await steps(Number(seconds) / 3);
const before = process.cpuUsage();
const times = (await steps(Number(seconds))).sort((a, b) => a - b);
const { user, system } = process.cpuUsage(before);
await runner.close();
await optimizer.close();
const perSecond = (ms: number) => (1000 * net.batchSize) / ms;
console.log(
  JSON.stringify({
    median: perSecond(times[times.length >> 1]!),
    fastest: perSecond(times[0]!),
    cpu: perSecond((user + system) / 1000 / times.length),
  }),
);
