/**
 * Quantizers side by side: onnxruntime's Python tools, with their defaults and with their best settings, and this project with its defaults.
 * Every quantizer runs as one whole process, one after the other; what they wrote is then judged in one process, the models run in turns
 * (A B C A B C), on samples that none of them has seen. Prints tables in Markdown.
 *
 *   node bench/compare/quantize.ts PYTHON [nets] [rows]
 *
 * PYTHON is an interpreter that has onnxruntime, onnx and numpy, which are needed here and nowhere else. `nets` and `rows` are parts of
 * names, separated by commas. Networks and data are made once and kept in bench-quantize of the temporary directory; where nothing is kept,
 * all are made before anything is measured. docs/guides/benchmarks.md says what the columns mean.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { memorySource } from "../../src/core/data/byte-source.ts";
import { openDataset } from "../../src/core/data/dataset.ts";
import { runtimeVersion } from "../../src/core/runtime/session.ts";
import { writeNpz } from "../../test/support/dataset-writers.ts";
import { writeModel } from "../../workers/model-files.ts";
import { NETS, type QuantizeNet } from "../quantize-nets.ts";
import { type Judgement, judge } from "./judge.ts";

/** What a row runs: a method of quantize.py, or one of quantize-model.ts and the row that its cost is held against. */
type Quantizer = { readonly python: string } | { readonly ours: string; readonly against: string };

const ROWS: Readonly<Record<string, Quantizer>> = {
  "tool static default": { python: "static-default" },
  "tool static minmax": { python: "static-minmax" },
  "tool static percentile": { python: "static-percentile" },
  "tool static entropy": { python: "static-entropy" },
  "modelpress static": { ours: "static", against: "tool static default" },
  "tool dynamic default": { python: "dynamic-default" },
  "tool dynamic best": { python: "dynamic-best" },
  "modelpress dynamic": { ours: "dynamic", against: "tool dynamic default" },
  "tool weights 4 bit": { python: "weights-4" },
  "modelpress weights 4 bit": { ours: "weights-4", against: "tool weights 4 bit" },
  "tool weights 4 bit, GPTQ": { python: "weights-4-gptq" },
  "modelpress weights 4 bit, GPTQ": { ours: "weights-4-gptq", against: "tool weights 4 bit, GPTQ" },
  "tool weights 8 bit": { python: "weights-8" },
  "modelpress weights 8 bit": { ours: "weights-8", against: "tool weights 8 bit" },
};

const HELD_OUT_SEED = 2;
const CALIBRATION_SEED = 1;

const FOLDER = join(tmpdir(), "bench-quantize");

/** What jobs set for their processes, and a cache of compiled code, which Python has without being asked. */
const OUR_ENVIRONMENT = {
  MALLOC_MMAP_THRESHOLD_: "1073741824",
  MALLOC_TRIM_THRESHOLD_: "4294967296",
  NODE_COMPILE_CACHE: join(FOLDER, "compiled"),
};

/** A quantizer that takes longer is stopped, and has no row. */
const MAX_QUANTIZE_S = 150;
/** Short processes run several times, within this time, and the median counts. */
const REPEAT_WITHIN_S = 6;
const REPEATS = 3;

/** Of the columns, in characters. */
const WIDTHS = [6, 9, 7, 7, 6, 6, 6, 13, 7] as const;

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

const [python, netParts = "", rowParts = ""] = process.argv.slice(2);
if (!python) throw new Error("Which Python has onnxruntime? node bench/compare/quantize.ts PYTHON");
const chosen = (names: readonly string[], parts: string) =>
  names.filter((name) => parts.split(",").some((part) => name.includes(part)));
const nets = chosen(Object.keys(NETS), netParts);
const rows = chosen(Object.keys(ROWS), rowParts);

for (const name of nets) await makeMaterials(name, NETS[name]!);
const [{ model: cpu = "unknown" } = {}] = cpus();
console.log(`${cpu}, ${cpus().length} cores; onnxruntime ${runtimeVersion}; ${new Date().toISOString().slice(0, 16)}Z`);
for (const name of nets) {
  try {
    await comparison(name, NETS[name]!);
  } catch (error) {
    console.log(`\n${name}: ${(error as Error).stack}`);
  }
}

function folderOf(net: string): string {
  return join(FOLDER, net);
}

/** Writes model.onnx, calibration.npz and held-out.npz of a network, unless they are there. */
async function makeMaterials(name: string, net: QuantizeNet): Promise<void> {
  const folder = folderOf(name);
  if (existsSync(join(folder, "held-out.npz"))) return;
  mkdirSync(folder, { recursive: true });
  await writeModel(await net.model(), folder, "model.onnx", { signal: new AbortController().signal });
  writeFileSync(join(folder, "calibration.npz"), writeNpz(await net.data(net.samples, CALIBRATION_SEED)));
  writeFileSync(join(folder, "held-out.npz"), writeNpz(await net.data(net.samples, HELD_OUT_SEED)));
}

async function comparison(name: string, net: QuantizeNet): Promise<void> {
  const folder = folderOf(name);
  const loadBefore = loadavg()[0]!;
  const artifacts = rows.flatMap((row): Artifact[] => {
    const path = join(folder, `${row.replaceAll(/\W+/g, "-")}.onnx`);
    const cost = quantize(row, folder, path);
    return cost ? [{ row, path, cost }] : [];
  });
  const model = join(folder, "model.onnx");
  const dataset = await openDataset(memorySource(readFileSync(join(folder, "held-out.npz"))));
  const [float, ...judged] = await judge([model, ...artifacts.map(({ path }) => path)], dataset, net.answer);
  const { size } = statSync(model);
  const load = [loadBefore, loadavg()[0]!].map((value) => value.toFixed(1)).join(" to ");
  console.log(
    `\n**${name}**: float ${float!.p50Ms.toFixed(2)} ms, ${megabytes(size)} MB; ${net.samples} samples; load ${load}\n`,
  );
  console.log(
    tableRow("", ["speed", "quartiles", "SQNR dB", "same", "size", "wall s", "cpu s", "of the tool's", "peak MB"]),
  );
  console.log(
    tableRow(
      "",
      Array.from({ length: 9 }, () => "---:"),
    )
      .replace(/^\| +/, "|---")
      .replaceAll(" ", ""),
  );
  artifacts.forEach(({ row, path, cost }, i) => {
    const judgement = judged[i];
    if (!judgement) return;
    const quantizer = ROWS[row]!;
    const against = "against" in quantizer && artifacts.find((other) => other.row === quantizer.against);
    const shares = against ? [cost.wallS / against.cost.wallS, cost.cpuS / against.cost.cpuS] : [];
    console.log(
      tableRow(row, [
        ...judgementCells(judgement),
        `${((100 * statSync(path).size) / size).toFixed(1)} %`,
        cost.wallS.toFixed(2),
        cost.cpuS.toFixed(2),
        shares.map((share) => share.toFixed(2)).join(", "),
        megabytes(cost.peakBytes),
      ]),
    );
  });
  const peaks = artifacts
    .filter(({ row }) => row.startsWith("modelpress weights") && !row.endsWith("GPTQ"))
    .map(({ cost }) => cost.peakBytes);
  if (peaks.length === 0) return;
  const allowed = 1.3 * size + 300e6;
  console.log(
    `\nPeak of weights: ${megabytes(Math.max(...peaks))} MB; 1.3 times the model and 300 MB: ${megabytes(allowed)} MB.`,
  );
}

function judgementCells({ speedups: [median, lower, upper], sqnrDb, same }: Judgement): string[] {
  return [
    `${median.toFixed(2)}x`,
    `${lower.toFixed(2)}-${upper.toFixed(2)}`,
    Number.isFinite(sqnrDb) ? sqnrDb.toFixed(1) : "exact",
    `${(100 * same).toFixed(1)} %`,
  ];
}

function tableRow(name: string, cells: readonly string[]): string {
  return `| ${name.padEnd(25)} | ${cells.map((cell, i) => cell.padStart(WIDTHS[i]!)).join(" | ")} |`;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/** Runs a quantizer, short ones several times; undefined, with the last line of its errors printed, when it fails. */
function quantize(row: string, folder: string, output: string): Cost | undefined {
  const quantizer = ROWS[row]!;
  const script = (name: string) => join(import.meta.dirname, name);
  const command =
    "python" in quantizer
      ? [python!, script("quantize.py"), quantizer.python]
      : [process.execPath, script("quantize-model.ts"), quantizer.ours];
  const costs: Cost[] = [];
  try {
    do {
      const printed = execFileSync(
        python!,
        [script("quantize.py"), "run", String(MAX_QUANTIZE_S), ...command, folder, output],
        {
          env: { ...process.env, ...("ours" in quantizer && OUR_ENVIRONMENT), ORT_DISABLE_TELEMETRY: "1" },
          encoding: "utf8",
          stdio: ["ignore", "pipe", "pipe"],
          maxBuffer: 2 ** 26,
        },
      );
      costs.push(JSON.parse(printed) as Cost);
    } while (costs.length < REPEATS && costs.length * costs[0]!.wallS < REPEAT_WITHIN_S);
  } catch (error) {
    const lines = String((error as { stderr?: unknown }).stderr ?? error)
      .trim()
      .split("\n");
    const line = lines.findLast((text) => /error|timed out/i.test(text) && !text.includes("CalledProcess"));
    console.log(`${row}: failed: ${line?.slice(-200)}`);
    return undefined;
  }
  return costs.sort((a, b) => a.wallS - b.wallS)[Math.floor(costs.length / 2)];
}
