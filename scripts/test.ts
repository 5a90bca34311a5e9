import { spawn } from "node:child_process";
import { glob } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { run } from "node:test";
import { ENVIRONMENT } from "../src/tasks/environment.ts";

/**
 * npm test [unit | acceptance | file...]
 *
 * Types, lint and the tests, in that order, with one line for each file and every failure in full. The last line is
 * `N passed, N failed`; the checks of types, lint and unused exports count as one test each.
 */

const ROOT = new URL("..", import.meta.url).pathname;

/** Tests that need Redis or child processes: one more at a time than there are cores, for they wait for their servers a part of their time. */
const ACCEPTANCE = ["test/acceptance/", "test/chaos/", "test/contract/"];

/**
 * Of those, the ones that wait nearly all of their time: for locks, retries and time limits to run out. They run one at a time beside all
 * others, from the start.
 */
const WAITING = ["test/contract/webhooks.test.ts", "test/contract/worker.test.ts"];

const FILE_TIMEOUT_MS = 20 * 60_000;

interface Tally {
  passed: number;
  failed: number;
  readonly skipped: string[];
}

interface Lanes {
  readonly unit: string[];
  readonly acceptance: string[];
  readonly waiting: string[];
}

async function testFiles(selection: readonly string[]): Promise<Lanes> {
  const files = await Array.fromAsync(glob("test/**/*.test.ts", { cwd: ROOT }));
  const needsServices = (file: string) => ACCEPTANCE.some((folder) => file.startsWith(folder));
  const named = selection.filter((word) => word !== "unit" && word !== "acceptance");
  const chosen = named.length > 0 ? named.map((file) => relative(ROOT, file)) : files.sort();
  const wants = (kind: string) => named.length > 0 || selection.length === 0 || selection.includes(kind);
  return {
    unit: wants("unit") ? chosen.filter((file) => !needsServices(file)) : [],
    acceptance: wants("acceptance") ? chosen.filter((file) => needsServices(file) && !WAITING.includes(file)) : [],
    waiting: wants("acceptance") ? chosen.filter((file) => WAITING.includes(file)) : [],
  };
}

/** Runs a command and prints its output only when it fails. */
async function check(tally: Tally, name: string, command: string, args: readonly string[]): Promise<void> {
  const started = performance.now();
  const child = spawn(command, args, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const code = await new Promise<number | null>((resolve) =>
    child.on("close", resolve).on("error", () => resolve(null)),
  );
  if (code === 0) tally.passed++;
  else tally.failed++;
  report(code === 0, name, "", performance.now() - started);
  if (code !== 0) console.log(indent(output.trim()));
}

/** What is known of a test file that has not ended yet. */
interface Running {
  readonly started: number;
  output: string;
  readonly failures: string[];
}

async function runTests(tally: Tally, files: readonly string[], concurrency: number): Promise<void> {
  if (files.length === 0) return;
  const running = new Map<string, Running>();
  // The runner says that a file begins long before its process does: only its own summary knows how long it took.
  const endFile = (file: string, passed: number, failed: number, ok: boolean, durationMs?: number) => {
    const { started, output, failures } = running.get(file)!;
    tally.passed += passed;
    tally.failed += failed;
    report(
      ok,
      file,
      `${passed} passed${failed > 0 ? `, ${failed} failed` : ""}`,
      durationMs ?? performance.now() - started,
    );
    if (ok) return;
    for (const failure of failures) console.log(indent(failure));
    if (output.trim() !== "") console.log(indent(`it printed:\n${indent(output.trim())}`));
  };

  const paths = files.map((file) => join(ROOT, file));
  for await (const { type, data } of run({ cwd: ROOT, files: paths, concurrency, timeout: FILE_TIMEOUT_MS })) {
    if (!("file" in data) || data.file === undefined) continue;
    const file = relative(ROOT, data.file);
    // The runner reports each file as a test of its own when it holds no tests, or when its process failed.
    const isFile = "name" in data && data.name === data.file;
    if (type === "test:dequeue" && isFile) running.set(file, { started: performance.now(), output: "", failures: [] });
    else if (type === "test:stdout" || type === "test:stderr") running.get(file)!.output += data.message;
    else if (type === "test:pass" && isFile) {
      running.get(file)!.failures.push("It holds no test.");
      endFile(file, 0, 1, false);
    } else if (type === "test:fail" && isFile) {
      running.get(file)!.failures.push(describe(data.details.error));
      endFile(file, 0, 1, false);
    } else if (type === "test:fail" && !hasFailedParts(data.details.error)) {
      running.get(file)!.failures.push(`${data.name}\n${indent(describe(data.details.error))}`);
    } else if (type === "test:pass" && data.skip !== undefined) {
      tally.skipped.push(`${file}: ${data.name}${typeof data.skip === "string" ? ` (${data.skip})` : ""}`);
    } else if (type === "test:summary") {
      const { passed, failed, cancelled } = data.counts;
      endFile(file, passed, failed + cancelled, data.success, data.duration_ms);
    }
  }
}

/** Whether a test failed only because a test inside it did, which has its own line. */
function hasFailedParts(error: Error): boolean {
  return "failureType" in error && error.failureType === "subtestsFailed";
}

function describe(error: Error & { readonly exitCode?: unknown; readonly signal?: unknown }): string {
  if ("exitCode" in error || "signal" in error) {
    return `The process ended with ${error.signal ?? `exit code ${error.exitCode}`}.`;
  }
  const cause = error.cause instanceof Error ? error.cause : error;
  return cause.stack ?? cause.message;
}

function indent(text: string): string {
  return text.replace(/^/gm, "    ");
}

function report(ok: boolean, name: string, detail: string, durationMs: number): void {
  console.log(`${ok ? "ok  " : "FAIL"} ${name.padEnd(56)} ${detail.padEnd(12)} ${(durationMs / 1000).toFixed(1)} s`);
}

// Tests that run onnxruntime in their own process inherit this; see src/tasks/environment.ts.
process.env.ORT_DISABLE_TELEMETRY = ENVIRONMENT.ORT_DISABLE_TELEMETRY;

// What node compiles for one test file or child process, the others load: most of the time of the short ones.
process.env.NODE_COMPILE_CACHE ??= join(tmpdir(), "node-compile-cache");
// Two stacks at a time, each with as many threads as there are cores, wait for each other: jobs take twice as long.
process.env.JOB_THREADS ??= "1";

const started = performance.now();
const tally: Tally = { passed: 0, failed: 0, skipped: [] };
const files = await testFiles(process.argv.slice(2));
await Promise.all([
  check(tally, "types (tsc)", "tsc", ["-p", "."]),
  check(tally, "lint and format (biome)", "biome", ["check", "."]),
  check(tally, "unused files, exports and packages (knip)", "knip", []),
]);
await Promise.all([
  runTests(tally, files.waiting, 1),
  runTests(tally, files.unit, availableParallelism()).then(() =>
    runTests(tally, files.acceptance, availableParallelism() + 1),
  ),
]);

for (const test of tally.skipped) console.log(`skipped ${test}`);
console.log(`${((performance.now() - started) / 1000).toFixed(0)} s in all`);
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed > 0 ? 1 : 0;
