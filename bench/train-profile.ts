/**
 * Where the time inside one training step goes, by onnxruntime's own profiler: per operator type, and the slowest nodes.
 *
 *   node bench/train-profile.ts [mlp|cnn|student|resnet18|transformer] [steps] [threads]
 *
 * Run it with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296, as job children are.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSession } from "../src/core/runtime/session.ts";
import { batchFeeds } from "../src/core/train/step-graph.ts";
import { NETS, netStep } from "./train-nets.ts";

const WARM_UP = 3;

const [name = "cnn", steps = "10", threads = "2"] = process.argv.slice(2);
const { graph, batch } = await netStep(NETS[name]!, Number(threads));
const folder = mkdtempSync(join(tmpdir(), "train-profile-"));
const session = await openSession(
  { bytes: graph.model },
  { threads: Number(threads), profilePrefix: join(folder, "profile") },
);
const runs: number[] = [];
for (let i = 0; i < Number(steps) + WARM_UP; i++) {
  const started = performance.now();
  await session.run({ ...graph.feeds, ...batchFeeds(batch) });
  runs.push(performance.now() - started);
}
await session.close();

interface Event {
  readonly cat: string;
  readonly name: string;
  /** Microseconds. */
  readonly dur: number;
  readonly args: { readonly op_name?: string; readonly output_type_shape?: readonly Record<string, number[]>[] };
}

const events = JSON.parse(readFileSync(join(folder, readdirSync(folder)[0]!), "utf8")) as Event[];
rmSync(folder, { recursive: true });
const kernels = events.filter(({ cat, name: event }) => cat === "Node" && event.endsWith("_kernel_time"));
const kernelsPerRun = kernels.length / runs.length;
const counted = runs.length - WARM_UP;

/** One node of the step: the median of its times, so that what the machine did besides does not count. */
const nodes = Array.from({ length: kernelsPerRun }, (_, i) => {
  const times = Array.from({ length: counted }, (__, run) => kernels[(WARM_UP + run) * kernelsPerRun + i]!.dur / 1000);
  return { event: kernels[i]!, ms: times.sort((x, y) => x - y)[counted >> 1]! };
});

/** The largest sums of milliseconds. */
function printSums(key: (event: Event) => string, rows: number): void {
  const sums = new Map<string, { ms: number; count: number }>();
  for (const { event, ms } of nodes) {
    const sum = sums.get(key(event)) ?? { ms: 0, count: 0 };
    sums.set(key(event), { ms: sum.ms + ms, count: sum.count + 1 });
  }
  for (const [label, { ms, count }] of [...sums].sort((x, y) => y[1].ms - x[1].ms).slice(0, rows)) {
    console.log(`${ms.toFixed(2).padStart(9)} ms ${String(count).padStart(5)}x  ${label}`);
  }
}

const timed = runs.slice(WARM_UP).sort((a, b) => a - b);
console.log(
  `${name}: ${timed[counted >> 1]!.toFixed(1)} ms a step (median), ${timed[0]!.toFixed(1)} (least); ${kernelsPerRun} kernels`,
);
printSums((event) => event.args.op_name ?? "?", 16);
console.log();
printSums(({ name: event, args }) => {
  const shapes = args.output_type_shape?.map((output) => `[${Object.values(output)[0]}]`).join(" ");
  return `${event.replace("_kernel_time", "")} ${shapes}`;
}, 25);
