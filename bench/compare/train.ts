/**
 * Training throughput against PyTorch on the CPU: the same networks, batch, optimizer, number of threads and allocator settings. The two run
 * in turn (A B A B), so that whatever else the machine does meets both. Samples per second, and their ratio, in three ways: of the median
 * step, of the fastest step (which nothing interrupted), and for a second of processor time. On a machine that is busy with other things
 * the last two, at one thread, are the ones to read.
 *
 *   node bench/compare/train.ts PYTHON [nets] [rounds] [seconds] [threads]
 *
 * PYTHON is an interpreter that has torch, which is needed here and nowhere else. Each side runs each net for `seconds` in each round,
 * and a third as long before that.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { NETS } from "../train-nets.ts";

const [python, nets = Object.keys(NETS).join(","), rounds = "3", seconds = "4", threads = "2"] = process.argv.slice(2);
if (!python) throw new Error("Which Python has torch? node bench/compare/train.ts PYTHON");
const env = { ...process.env, MALLOC_MMAP_THRESHOLD_: "1073741824", MALLOC_TRIM_THRESHOLD_: "4294967296" };

const WAYS = ["median", "fastest", "cpu"] as const;

/** Samples per second; `cpu`: of processor time, of all threads together. */
type Speed = Readonly<Record<(typeof WAYS)[number], number>>;

function measure(command: string, script: string, net: string): Speed {
  const output = execFileSync(command, [join(import.meta.dirname, script), net, seconds, threads], {
    env: { ...env, OMP_NUM_THREADS: threads },
    encoding: "utf8",
  });
  return JSON.parse(output) as Speed;
}

const middle = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

for (const net of nets.split(",")) {
  const ours: Speed[] = [];
  const theirs: Speed[] = [];
  for (let round = 0; round < Number(rounds); round++) {
    ours.push(measure(process.execPath, "train-step.ts", net));
    theirs.push(measure(python, "train.py", net));
  }
  const ratios = WAYS.map((way) => {
    const [a, b] = [ours, theirs].map((speeds) => middle(speeds.map((speed) => speed[way]))) as [number, number];
    return `${way} ${a.toFixed(0).padStart(6)} and ${b.toFixed(0).padStart(6)}: ${(a / b).toFixed(2)}x`;
  });
  console.log(`${net.padEnd(12)} ${ratios.join("   ")}`);
}
