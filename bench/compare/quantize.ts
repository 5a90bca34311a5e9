/**
 * Quantizers side by side: onnxruntime's Python tools, with their defaults and with their best settings, and this project with its defaults.
 * Every quantizer runs as one whole process, in turn; what they wrote is then judged in one process, the models run in turns (A B C A B C),
 * on samples that none of them has seen.
 *
 *   node bench/compare/quantize.ts PYTHON [nets] [methods] [runs]
 *
 * PYTHON is an interpreter that has onnxruntime, onnx and numpy, which are needed here and nowhere else. Models and data are made once and
 * kept in bench-quantize of the temporary directory.
 *
 * speed: median latency of the float model, one sample on one thread, over that of the quantized one. It is processor time of that thread: the
 * same as wall time on an idle machine, and hardly disturbed by others on a busy one. SQNR: over all float outputs.
 * same: how often the answer (largest class, pixel above a half) is that of the float model. time, cpu, peak: of the whole process,
 * Python included where it is one.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memorySource } from "../../src/core/data/byte-source.ts";
import { openDataset } from "../../src/core/data/dataset.ts";
import { floatsOf, type Tensor } from "../../src/core/onnx/tensor.ts";
import { timingOf } from "../../src/core/runtime/latency.ts";
import { openSession, type Session } from "../../src/core/runtime/session.ts";
import { writeNpz } from "../../test/support/dataset-writers.ts";
import { writeModel } from "../../workers/model-files.ts";
import { NETS, type QuantizeNet } from "../quantize-nets.ts";

/** Rows of the table, and which side runs what for each. */
const METHODS: Readonly<Record<string, { readonly python?: string; readonly ours?: string }>> = {
  "tool default": { python: "static-default" },
  "tool best (minmax)": { python: "static-minmax" },
  "tool best (percentile)": { python: "static-percentile" },
  "tool best (entropy)": { python: "static-entropy" },
  "modelpress static": { ours: "static" },
  "tool dynamic default": { python: "dynamic-default" },
  "tool dynamic best": { python: "dynamic-best" },
  "modelpress dynamic": { ours: "dynamic" },
  "tool weights 4 bit": { python: "weights-4" },
  "modelpress weights 4 bit": { ours: "weights-4" },
  "tool weights 8 bit": { python: "weights-8" },
  "modelpress weights 8 bit": { ours: "weights-8" },
};

const HELD_OUT_SAMPLES = 32;
const HELD_OUT_SEED = 2;
const CALIBRATION_SEED = 1;
/** Runs before those that are measured. */
const WARM_UP = 3;

/** What jobs set for their processes. */
const ALLOCATOR = { MALLOC_MMAP_THRESHOLD_: "1073741824", MALLOC_TRIM_THRESHOLD_: "4294967296" };

const [python, nets = Object.keys(NETS).join(","), methods = "", runs = "25"] = process.argv.slice(2);
if (!python) throw new Error("Which Python has onnxruntime? node bench/compare/quantize.ts PYTHON");
const rows = Object.keys(METHODS).filter((row) => methods.split(",").some((part) => row.includes(part)));

interface Cost {
  readonly wallS: number;
  readonly cpuS: number;
  readonly peakBytes: number;
}

interface Artifact {
  readonly row: string;
  readonly path: string;
  readonly cost: Cost;
}

interface Judgement {
  readonly p50Ms: number;
  readonly sqnrDb: number;
  readonly same: number;
}

for (const name of nets.split(",")) {
  const net = NETS[name]!;
  const directory = await materials(name, net);
  const artifacts = rows.flatMap((row): Artifact[] => {
    const path = join(directory, `${row.replaceAll(/\W+/g, "-")}.onnx`);
    const cost = quantize(row, directory, path);
    return cost ? [{ row, path, cost }] : [];
  });
  const model = join(directory, "model.onnx");
  const judged = await judge([model, ...artifacts.map(({ path }) => path)], join(directory, "held-out.npz"), net);
  const float = judged[0];
  if (!float) throw new Error(`${model} cannot be loaded.`);
  console.log(`\n${name}: float ${float.p50Ms.toFixed(2)} ms, ${megabytes(statSync(model).size)} MB`);
  console.log(`${"".padEnd(26)}   speed  SQNR dB    same    size   time s    cpu s  peak MB`);
  artifacts.forEach(({ row, path, cost }, i) => {
    const judgement = judged[i + 1];
    if (!judgement) return;
    const { p50Ms, sqnrDb, same } = judgement;
    const cells = [
      `${(float.p50Ms / p50Ms).toFixed(2)}x`.padStart(7),
      sqnrDb.toFixed(1).padStart(8),
      `${(100 * same).toFixed(1)}%`.padStart(7),
      `${((100 * statSync(path).size) / statSync(model).size).toFixed(1)}%`.padStart(7),
      cost.wallS.toFixed(2).padStart(8),
      cost.cpuS.toFixed(2).padStart(8),
      megabytes(cost.peakBytes).padStart(8),
    ];
    console.log(`${row.padEnd(26)} ${cells.join(" ")}`);
  });
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/** The folder with model.onnx, calibration.npz and held-out.npz of a network. */
async function materials(name: string, net: QuantizeNet): Promise<string> {
  const directory = join(tmpdir(), "bench-quantize", name);
  if (existsSync(join(directory, "held-out.npz"))) return directory;
  mkdirSync(directory, { recursive: true });
  await writeModel(await net.model(), directory, "model.onnx", { signal: new AbortController().signal });
  writeFileSync(join(directory, "calibration.npz"), writeNpz(await net.data(net.samples, CALIBRATION_SEED)));
  writeFileSync(join(directory, "held-out.npz"), writeNpz(await net.data(HELD_OUT_SAMPLES, HELD_OUT_SEED)));
  return directory;
}

/** Runs a quantizer; undefined, with the last line of its errors printed, when it fails. */
function quantize(row: string, directory: string, output: string): Cost | undefined {
  const { python: theirs, ours } = METHODS[row]!;
  const script = (name: string) => join(import.meta.dirname, name);
  const command = theirs
    ? [python!, script("quantize.py"), theirs]
    : [process.execPath, script("quantize-model.ts"), ours!];
  try {
    const printed = execFileSync(python!, [script("quantize.py"), "run", ...command, directory, output], {
      env: { ...process.env, ...ALLOCATOR, ORT_DISABLE_TELEMETRY: "1" },
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 2 ** 26,
    });
    return JSON.parse(printed) as Cost;
  } catch (error) {
    const lines = String((error as { stderr?: unknown }).stderr ?? error)
      .trim()
      .split("\n");
    console.log(`${row}: failed: ${lines.findLast((line) => /error/i.test(line) && !line.includes("CalledProcess"))}`);
    return undefined;
  }
}

/**
 * Runs all models over the held-out samples, in turns. The first one is what the others are held against. Those that onnxruntime refuses are
 * named and have no judgement.
 */
async function judge(paths: readonly string[], data: string, net: QuantizeNet): Promise<(Judgement | undefined)[]> {
  const opened: (Session | undefined)[] = [];
  for (const path of paths) {
    try {
      opened.push(await openSession({ path }));
    } catch (error) {
      console.log(`${path}: ${(error as Error).message.slice(0, 200)}`);
      opened.push(undefined);
    }
  }
  const sessions = opened.filter((session) => session !== undefined);
  const dataset = await openDataset(memorySource(readFileSync(data)));
  const samples = await Array.fromAsync(dataset.batches({ batchSize: 1 }));
  const times: number[][] = sessions.map(() => []);
  const scores = sessions.map(() => ({ signal: 0, noise: 0, same: 0, answers: 0 }));
  for (let run = 0; run < Math.max(Number(runs) + WARM_UP, samples.length); run++) {
    const { feeds } = samples[run % samples.length]!;
    const results: Record<string, Tensor>[] = [];
    for (const [i, session] of sessions.entries()) {
      const before = process.threadCpuUsage();
      results.push(await session.run(feeds));
      const { user, system } = process.threadCpuUsage(before);
      if (run >= WARM_UP) times[i]!.push((user + system) / 1000);
    }
    if (run >= samples.length) continue;
    results.forEach((outputs, i) => {
      compare(results[0]!, outputs, net.answer, scores[i]!);
    });
  }
  for (const session of sessions) await session.close();
  const judgements = scores.map(({ signal, noise, same, answers }, i) => ({
    p50Ms: timingOf(times[i]!).p50_ms,
    sqnrDb: 10 * Math.log10(signal / noise),
    same: same / answers,
  }));
  return opened.map((session) => (session ? judgements.shift() : undefined));
}

interface Score {
  signal: number;
  noise: number;
  same: number;
  answers: number;
}

function compare(
  expected: Readonly<Record<string, Tensor>>,
  actual: Readonly<Record<string, Tensor>>,
  answer: QuantizeNet["answer"],
  score: Score,
): void {
  for (const [name, tensor] of Object.entries(expected)) {
    const [x, y] = [floatsOf(tensor), floatsOf(actual[name]!)];
    for (let i = 0; i < x.length; i++) {
      score.signal += x[i]! ** 2;
      score.noise += (x[i]! - y[i]!) ** 2;
    }
    const [before, after] = [x, y].map((values) => answersOf(values, tensor.dims.at(-1)!, answer)) as [
      number[],
      number[],
    ];
    score.answers += before.length;
    before.forEach((value, i) => {
      if (after[i] === value) score.same++;
    });
  }
}

function answersOf(values: Float32Array, width: number, answer: QuantizeNet["answer"]): number[] {
  if (answer === "mask") return Array.from(values, (value) => (value > 0.5 ? 1 : 0));
  const answers: number[] = [];
  for (let start = 0; start < values.length; start += width) {
    let best = 0;
    for (let i = 1; i < width; i++) if (values[start + i]! > values[start + best]!) best = i;
    answers.push(best);
  }
  return answers;
}
