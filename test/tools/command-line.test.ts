import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import type { AutoMetrics } from "../../src/core/index.ts";
import { tensorOf } from "../../src/core/onnx/tensor.ts";
import { writeNpz } from "../support/dataset-writers.ts";
import { mlp } from "../support/graphs.ts";
import { fileOf } from "../support/model-file.ts";

/** The program itself, on files, without any service. */

const PROGRAM = new URL("../../tools/modelpress.ts", import.meta.url).pathname;
const FAST = ["--evaluation.latency.runs", "1", "--no-evaluation.layer-errors"];

const directory = mkdtempSync(join(tmpdir(), "modelpress-test-"));
after(() => rmSync(directory, { recursive: true, force: true }));
writeFileSync(join(directory, "mlp.onnx"), fileOf(mlp({ sizes: [64, 128, 10] })));
writeFileSync(join(directory, "broken.onnx"), "no model");
const labels = tensorOf(
  "int64",
  [400],
  Array.from({ length: 400 }, (_, i) => i % 10),
);
const x = tensorOf(
  "float32",
  [400, 64],
  Array.from({ length: 400 * 64 }, (_, i) => Math.sin(i)),
);
writeFileSync(join(directory, "data.npz"), writeNpz({ x, labels }));
const INPUTS = ["broken.onnx", "data.npz", "mlp.onnx"];

interface Run {
  readonly child: ChildProcess;
  readonly output: { stdout: string; stderr: string };
  readonly ended: Promise<number | null>;
}

function start(words: readonly string[]): Run {
  const child = spawn(process.execPath, [PROGRAM, ...words], { cwd: directory, stdio: ["ignore", "pipe", "pipe"] });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]!.setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  }
  return { child, output, ended: new Promise((resolve) => child.on("close", (code) => resolve(code))) };
}

async function run(...words: string[]) {
  const { output, ended } = start(words);
  const code = await ended;
  return { code, ...output };
}

const files = () => readdirSync(directory).sort();

describe("the command line", () => {
  test("quantizes a file: model, reports and a table; --json prints the numbers and nothing else", async () => {
    const words = ["quantize", "mlp.onnx", "--method", "weight_only", "--bits", "8", ...FAST];
    const { code, stdout, stderr } = await run(...words);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /size +\d.* kB .*smaller/);
    assert.match(stderr, /^ *\d+ % Writing the compressed model$/m, "progress, on stderr");
    assert.deepEqual(readdirSync(join(directory, "mlp.weight_only")).sort(), [
      "model.onnx",
      "report.html",
      "report.json",
    ]);

    const again = await run(...words);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /mlp\.weight_only exists: name another --output, or replace it with --force/);

    const json = await run(...words, "--force", "--json", "--quiet", "-o", "mlp.weight_only");
    assert.equal(json.code, 0, json.stderr);
    assert.equal(json.stderr, "");
    const outcome = JSON.parse(json.stdout);
    assert.equal(outcome.accepted, true);
    assert.ok(outcome.metrics.size.ratio < 0.5);
    rmSync(join(directory, "mlp.weight_only"), { recursive: true });
    assert.deepEqual(files(), INPUTS);
  });

  test("a search leaves the recommended model beside its report, and every one worth having in a folder of its own", async () => {
    const search = ["--objective", "size", "--methods", "weight_only", "--budget.candidates", "2"];
    const words = ["auto", "mlp.onnx", "--dataset", "data.npz", ...search, ...FAST, "-o", "found"];
    const { code, stdout, stderr } = await run(...words, "--json");
    assert.equal(code, 0, stderr);
    const { metrics } = JSON.parse(stdout) as { metrics: { auto: AutoMetrics } };
    const { candidates } = metrics.auto;
    const shaOf = (...path: string[]) =>
      createHash("sha256")
        .update(readFileSync(join(directory, "found", ...path)))
        .digest("hex");
    const worth = candidates.filter(({ on_front, spec }) => on_front && spec !== null);
    for (const { name, sha256 } of worth) assert.equal(shaOf(name, "model.onnx"), sha256, name);
    const best = candidates.find(({ recommended }) => recommended)!;
    assert.equal(best.name, "weights-4-bit");
    assert.equal(shaOf("model.onnx"), best.sha256);
    assert.deepEqual(
      readdirSync(join(directory, "found")).sort(),
      ["model.onnx", "report.html", "report.json", ...worth.map(({ name }) => name)].sort(),
    );
    const again = await run(...words, "--force");
    assert.match(again.stdout, /Worth having\n(.*\n)*\* weights-4-bit +\d.* kB .* as fast/);
    rmSync(join(directory, "found"), { recursive: true });
  });

  test("a limit that is missed is exit code 2, and the result is there", async () => {
    const words = ["quantize", "mlp.onnx", "--method", "weight_only", "--acceptance.min-sqnr-db", "150", ...FAST];
    const { code, stdout } = await run(...words, "-o", "missed");
    assert.equal(code, 2);
    assert.match(stdout, /Not accepted\nMISSED min_sqnr_db +limit 150/);
    assert.ok(readdirSync(join(directory, "missed")).includes("model.onnx"));
    rmSync(join(directory, "missed"), { recursive: true });
  });

  test("what fails is exit code 1, says which option, and leaves nothing", async () => {
    const broken = await run("quantize", "broken.onnx", "--method", "dynamic", "--json");
    assert.equal(broken.code, 1);
    assert.equal(JSON.parse(broken.stdout).error.code, "invalid_model");

    const unknown = ["quantize", "mlp.onnx", "--method", "dynamic", "--exclude-nodes", "nowhere"];
    const excluded = await run(...unknown);
    assert.equal(excluded.code, 1);
    assert.match(excluded.stderr, /^--exclude-nodes\.0: .*nowhere/m);

    const misfit = await run(
      "quantize",
      "mlp.onnx",
      "--method",
      "static",
      "--dataset",
      "data.npz",
      "--max-metric-drop",
      "1",
      "--evaluation.metric",
      "mse",
    );
    assert.equal(misfit.code, 1);
    assert.match(misfit.stderr, /^--evaluation\.metric: /m);
    assert.deepEqual(files(), INPUTS);
  });

  test("an interrupt ends with 130, its processes with it, and nothing is left", async () => {
    const { child, output, ended } = start([
      "distill",
      ...["--dataset", "data.npz", "--student.model", "mlp.onnx", "--loss.kl-weight", "0", "--loss.label-weight", "1"],
      ...["--training.epochs", "500", "--training.batch-size", "8", "-o", "trained"],
    ]);
    await new Promise<void>((resolve) => {
      child.stderr!.on("data", () => /train.*epoch/.test(output.stderr) && resolve());
      ended.then(() => resolve());
    });
    assert.equal(child.exitCode, null, `it runs: ${output.stderr}`);
    const descendants = childrenOf(child.pid!);
    assert.ok(descendants.length > 0);
    child.kill("SIGINT");
    assert.equal(await ended, 130);
    assert.match(output.stderr, /Interrupted: nothing was kept/);
    assert.deepEqual(files(), INPUTS);
    assert.deepEqual(descendants.filter(isAlive), []);
  });

  test("inspect, print and plan", async () => {
    const [inspected, printed, planned] = await Promise.all([
      run("inspect", "mlp.onnx"),
      run("print", "mlp.onnx"),
      run("plan", "quantize", "mlp.onnx", "--method", "static", "--dataset", "data.npz"),
    ]);
    assert.equal(JSON.parse(inspected.stdout).inputs[0].name, "x");
    assert.match(printed.stdout, /^model ir_version/);
    const plan = JSON.parse(planned.stdout);
    assert.equal(plan.type, "quantize");
    assert.ok(plan.quantized_nodes.length > 0);
    assert.deepEqual(files(), INPUTS);
  });
});

function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

/** Of a process, and theirs. */
function childrenOf(pid: number): number[] {
  const own = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);
  return own.flatMap((child) => [child, ...childrenOf(child)]);
}
