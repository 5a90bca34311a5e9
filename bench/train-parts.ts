/**
 * A training step in one session with so many threads against the same step in parts, a thread for each (`core/train/step-runner.ts`), and in
 * one session of one thread: whole steps with their updates, in turns, milliseconds by the median and the least.
 *
 *   node bench/train-parts.ts [nets] [threads] [seconds]
 *
 * Says "one session" where a step is not divided. Run it with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296.
 */
import { floatsOf } from "../src/core/onnx/tensor.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { applyUpdate, OPTIMIZERS } from "../src/core/train/optimizer.ts";
import { batchFeeds } from "../src/core/train/step-graph.ts";
import { openStep, type StepRunner } from "../src/core/train/step-runner.ts";
import { NETS, netStep } from "./train-nets.ts";

/** Each way makes steps for so long, then the next does. */
const TURN_MS = 150;

const [names = "student,mlp,transformer", threads = "2", seconds = "10"] = process.argv.slice(2);
for (const name of names.split(",")) {
  const { graph, batch, rebuild } = await netStep(NETS[name]!, Number(threads));
  const whole = await openSession({ bytes: graph.model }, { threads: Number(threads) });
  const runner = await openStep(graph, { threads: Number(threads), openSession, batch, rebuild });
  const ways: Record<string, StepRunner> = {
    "one thread": await openSession({ bytes: graph.model }, { threads: 1 }),
    "one session": whole,
    ...("inputs" in runner ? {} : { "in parts": runner }),
  };
  const times: Record<string, number[]> = {};
  let steps = 0;
  for (const end = performance.now() + 1000 * Number(seconds); performance.now() < end; ) {
    for (const [way, step] of Object.entries(ways)) {
      times[way] ??= [];
      // What ran before is still in the caches in the first of a turn.
      for (let turn = 0, started = performance.now(); turn < 3 || performance.now() - started < TURN_MS; turn++) {
        const before = performance.now();
        const results = await step.run({ ...graph.feeds, ...batchFeeds(batch) });
        steps++;
        for (const { parameter, gradient } of graph.parameters) {
          const update = { learningRate: 1e-5, weightDecay: 0.01, gradientScale: 1, step: steps };
          applyUpdate(OPTIMIZERS.adamw, parameter.data, floatsOf(results[gradient!]!), parameter.slots, update);
        }
        if (turn > 0) times[way].push(performance.now() - before);
      }
    }
  }
  const trained = graph.parameters.reduce((sum, { parameter }) => sum + parameter.data.length, 0);
  console.log(`${name}, ${threads} threads, ${(graph.values / trained).toFixed(1)} values for each parameter`);
  for (const [way, all] of Object.entries(times)) {
    all.sort((a, b) => a - b);
    const [least, median] = [all[0]!, all[all.length >> 1]!].map((ms) => ms.toFixed(2).padStart(9));
    console.log(`  ${way.padEnd(12)} least ${least} ms, median ${median} ms, ${all.length} steps`);
  }
  await runner.close();
  for (const session of [ways["one thread"]!, whole]) if (session !== runner) await session.close();
}
