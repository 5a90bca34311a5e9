/**
 * Where the time inside one training step goes, by onnxruntime's own profiler: per operator type, and the slowest nodes.
 *
 *   node bench/train-profile.ts [mlp|cnn|resnet18|transformer] [steps]
 *
 * Run it with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296, as job children are.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { type ArrayDType, arrayOf } from "../src/core/onnx/tensor.ts";
import { batchFeeds } from "../src/core/train/step-graph.ts";
import { NETS, netStep } from "./train-nets.ts";

const [name = "cnn", steps = "10"] = process.argv.slice(2);
const { graph, batch } = await netStep(NETS[name]!);
const feeds: Record<string, ort.Tensor> = {};
for (const [input, value] of Object.entries({ ...graph.feeds, ...batchFeeds(batch) })) {
  feeds[input] = new ort.Tensor(value.dtype as "float32", arrayOf(value, value.dtype as ArrayDType) as Float32Array, [
    ...value.dims,
  ]);
}

const folder = mkdtempSync(join(tmpdir(), "train-profile-"));
const session = await ort.InferenceSession.create(graph.model, {
  intraOpNumThreads: 2,
  graphOptimizationLevel: "all",
  enableProfiling: true,
  profileFilePrefix: join(folder, "profile"),
  logSeverityLevel: 4,
});
const used = Object.fromEntries(session.inputNames.map((input) => [input, feeds[input]!]));
const runs: number[] = [];
for (let i = 0; i < Number(steps) + 3; i++) {
  const started = performance.now();
  await session.run(used);
  runs.push(performance.now() - started);
}
session.endProfiling();
await session.release();

interface Event {
  cat: string;
  name: string;
  dur: number;
  args: { op_name?: string; output_type_shape?: Record<string, number[]>[] };
}
const { readdirSync } = await import("node:fs");
const events = JSON.parse(readFileSync(join(folder, readdirSync(folder)[0]!), "utf8")) as Event[];
rmSync(folder, { recursive: true });
const kernels = events.filter(({ cat, name: event }) => cat === "Node" && event.endsWith("_kernel_time"));
const perRun = kernels.length / runs.length;
const measured = kernels.slice(Math.round(3 * perRun));
const counted = runs.length - 3;

function table(key: (event: Event) => string, rows: number): void {
  const sums = new Map<string, { ms: number; count: number }>();
  for (const event of measured) {
    const entry = sums.get(key(event)) ?? { ms: 0, count: 0 };
    sums.set(key(event), { ms: entry.ms + event.dur / 1000, count: entry.count + 1 });
  }
  for (const [label, { ms, count }] of [...sums].sort((a, b) => b[1].ms - a[1].ms).slice(0, rows)) {
    console.log(`${(ms / counted).toFixed(2).padStart(9)} ms ${String(count / counted).padStart(6)}x  ${label}`);
  }
}
const median = runs.slice(3).sort((a, b) => a - b)[Math.floor(counted / 2)]!;
console.log(`${name}: ${median.toFixed(1)} ms a step (median of ${counted}), ${perRun} kernels`);
table((event) => event.args.op_name ?? "?", 15);
console.log();
table(
  (event) =>
    `${event.name.replace("_kernel_time", "")} ${JSON.stringify(event.args.output_type_shape?.map((o) => Object.values(o)[0]))}`,
  25,
);
