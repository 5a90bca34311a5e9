/**
 * Training throughput against PyTorch on the CPU: the same networks, batch, optimizer, number of threads and allocator settings. The two run
 * in turn (A B A B), so that whatever else the machine does meets both. The first ratio is of medians, the second of samples for a second
 * of processor time: with one thread that is the one to read on a machine that is busy with other things.
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

interface Speed {
  /** Samples per second. */
  readonly median: number;
  /** Samples for a second of processor time, of all threads together. */
  readonly cpu: number;
}

function measure(command: string, script: string, net: string): Speed {
  const output = execFileSync(command, [join(import.meta.dirname, script), net, steps, threads], {
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
  const [a, b] = [ours, theirs].map((speeds) => ({
    median: middle(speeds.map(({ median }) => median)),
    cpu: middle(speeds.map(({ cpu }) => cpu)),
  })) as [Speed, Speed];
  console.log(
    `${net.padEnd(12)} ${a.median.toFixed(0).padStart(7)} samples/s, PyTorch ${b.median.toFixed(0).padStart(7)}: ${(a.median / b.median).toFixed(2)}x` +
      `   by processor time ${a.cpu.toFixed(0).padStart(7)} and ${b.cpu.toFixed(0).padStart(7)}: ${(a.cpu / b.cpu).toFixed(2)}x`,
  );
}
