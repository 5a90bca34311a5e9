import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";

/** Runs the README's tour as it stands there. Blocks marked `sh tour` must work, blocks marked `sh tour refused` must be refused. */

const ROOT = new URL("../..", import.meta.url).pathname;
/** curl's exit code for an HTTP error under `--fail-with-body`. */
const REFUSED = 22;

let stack: Stack;
let folder: string;

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  folder = await mkdtemp(join(tmpdir(), "readme-tour-"));
  // What is done "in the same folder" as the clone.
  for (const part of ["node_modules", "scripts"]) await symlink(join(ROOT, part), join(folder, part));
});
after(async () => {
  await stack?.close();
  await rm(folder, { recursive: true });
});

/** Runs a script in the tour's folder, every curl in it failing on an HTTP error. */
async function bash(script: string): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const prelude = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n';
  const child = spawn("bash", ["-c", prelude + script], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout, stderr };
}

test("the README's tour works as it stands there", async () => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/^```sh tour( refused)?\n(.*?)^```$/gms)].map(([, refused, text]) => ({
    refused: refused !== undefined,
    text: text!.replaceAll("http://127.0.0.1:8080", stack.url),
  }));
  assert.ok(blocks.length >= 6, "the tour's blocks were not found");
  const works = blocks.filter(({ refused }) => !refused).map(({ text }) => text);

  const tour = await bash(works.join("\n"));
  assert.equal(tour.code, 0, `${tour.stderr}\n${tour.stdout}\n${stack.log()}`);
  assert.match(tour.stdout, /"id":"mdl_/);
  assert.match(tour.stdout, /sqnr_db: [\d.]+,/, "fidelity is shown");
  assert.match(tour.stdout, /metric: 'top1'/, "accuracy is shown");
  // It ends green: the limits are kept.
  assert.match(tour.stdout, /^true$/m);
  const [teacher, student, baseline] = tour.stdout.trim().split("\n").slice(-3).map(Number);
  // All three have learnt something: a network that guesses reaches a tenth.
  for (const accuracy of [teacher!, student!, baseline!]) assert.ok(accuracy > 0.5 && accuracy <= 1, `${accuracy}`);
  const [before, after] = await Promise.all(
    ["digits.onnx", "digits-int8.onnx"].map(async (file) => (await stat(join(folder, file))).size),
  );
  // A byte for each weight of four, and the graph.
  assert.ok(after! < 0.3 * before!, `${after} of ${before} bytes`);
  assert.match(await readFile(join(folder, "report.html"), "utf8"), /<html/);

  for (const { text } of blocks.filter(({ refused }) => refused)) {
    const answer = await bash(`${works[0]}\nmodel=mdl_none\n${text}`);
    assert.equal(answer.code, REFUSED, `${answer.stdout}\n${answer.stderr}`);
    const problem = JSON.parse(answer.stdout.slice(answer.stdout.indexOf("{"))) as { code: string; errors: unknown[] };
    assert.equal(problem.code, "validation_failed");
    assert.ok(problem.errors.length > 0);
  }
});
