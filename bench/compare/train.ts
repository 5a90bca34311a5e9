/**
 * Training throughput against PyTorch on the CPU: the same networks, batch, optimizer, number of threads and allocator settings. The two run
 * in turn (A B A B), so that whatever else the machine does meets both; the ratio is of medians.
 *
 *   node bench/compare/train.ts PYTHON [nets] [rounds] [steps] [threads]
 *
 * PYTHON is an interpreter that has torch, which is needed here and nowhere else.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { NETS } from "../train-nets.ts";

const [python, nets = Object.keys(NETS).join(","), rounds = "3", steps = "10", threads = "2"] = process.argv.slice(2);
if (!python) throw new Error("Which Python has torch? node bench/compare/train.ts PYTHON");
const env = { ...process.env, MALLOC_MMAP_THRESHOLD_: "1073741824", MALLOC_TRIM_THRESHOLD_: "4294967296" };

function measure(command: string, script: string, net: string): number {
  const output = execFileSync(command, [join(import.meta.dirname, script), net, steps, threads], {
    env: { ...env, OMP_NUM_THREADS: threads },
    encoding: "utf8",
  });
  return (JSON.parse(output) as { samples_per_second: number }).samples_per_second;
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;

for (const net of nets.split(",")) {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < Number(rounds); round++) {
    ours.push(measure(process.execPath, "train-step.ts", net));
    theirs.push(measure(python, "train.py", net));
  }
  console.log(
    `${net.padEnd(12)} ${median(ours).toFixed(0).padStart(7)} samples/s, PyTorch ${median(theirs).toFixed(0).padStart(7)}: ` +
      `${(median(ours) / median(theirs)).toFixed(2)}x  (pairs ${ours.map((x, i) => (x / theirs[i]!).toFixed(2)).join(" ")})`,
  );
}
