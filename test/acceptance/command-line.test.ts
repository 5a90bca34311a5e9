import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { mlp } from "../support/graphs.ts";
import { fileOf } from "../support/model-file.ts";

/** The command line against a service: what it does on files, done elsewhere. */

const PROGRAM = new URL("../../tools/modelpress.ts", import.meta.url).pathname;
const FAST = ["--evaluation.latency.runs", "1", "--no-evaluation.layer-errors"];

const directory = mkdtempSync(join(tmpdir(), "modelpress-test-"));
let stack: Stack;

before(async () => {
  writeFileSync(join(directory, "mlp.onnx"), fileOf(mlp({ sizes: [64, 128, 10] })));
  stack = await startStack({ LOG_LEVEL: "warn" });
});
after(async () => {
  rmSync(directory, { recursive: true, force: true });
  await stack?.close();
});

function start(words: readonly string[]) {
  const child = spawn(process.execPath, [PROGRAM, ...words], {
    cwd: directory,
    env: { ...process.env, MODELPRESS_URL: stack.url },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  }
  return { child, output, ended: new Promise<number | null>((resolve) => child.on("close", resolve)) };
}

describe("the command line against a service", () => {
  test("uploads, follows, downloads; a limit that is missed is exit code 2", async () => {
    const limit = ["--acceptance.min-sqnr-db", "150"];
    const { output, ended } = start([
      ...["quantize", "mlp.onnx", "--method", "weight_only", "--json"],
      ...FAST,
      ...limit,
    ]);
    assert.equal(await ended, 2, output.stderr);
    const outcome = JSON.parse(output.stdout);
    assert.equal(outcome.accepted, false);
    assert.deepEqual(readdirSync(join(directory, "mlp.weight_only")).sort(), [
      "model.onnx",
      "report.html",
      "report.json",
    ]);
  });

  test("a plan, and a refusal that names the option", async () => {
    const plan = start(["plan", "quantize", "mlp.onnx", "--method", "dynamic"]);
    assert.equal(await plan.ended, 0, plan.output.stderr);
    assert.equal(JSON.parse(plan.output.stdout).method, "dynamic");
    const refused = start(["quantize", "mlp.onnx", "--method", "dynamic", "--exclude-nodes", "nowhere", "-o", "other"]);
    assert.equal(await refused.ended, 1);
    assert.match(refused.output.stderr, /^--exclude-nodes\.0: .*nowhere/m);
  });

  test("an interrupt cancels the job", async () => {
    const words = ["quantize", "mlp.onnx", "--method", "dynamic", "--evaluation.latency.runs", "10000", "-o", "never"];
    const { child, output, ended } = start(words);
    await new Promise<void>((resolve) => {
      child.stderr.on("data", () => / % .*(Comparing|latency|fidelity)/.test(output.stderr) && resolve());
      ended.then(() => resolve());
    });
    assert.equal(child.exitCode, null, `it runs: ${output.stderr}`);
    child.kill("SIGINT");
    assert.equal(await ended, 130, output.stderr);
    const { data } = (await (await fetch(`${stack.url}/v1/jobs?limit=1`)).json()) as { data: { status: string }[] };
    assert.match(data[0]!.status, /^cancell(ing|ed)$/);
    assert.ok(!readdirSync(directory).some((name) => name === "never" || name.startsWith(".modelpress-")));
  });
});
