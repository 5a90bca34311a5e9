import { spawn } from "node:child_process";
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, normalize, relative } from "node:path";
import { parseArgs } from "node:util";
import { Random } from "../src/core/random.ts";
import { ENVIRONMENT } from "../src/tasks/environment.ts";

/**
 * npm run mutate -- [folder or file of src ...] [--share 0.1] [--seed 1] [--minutes 30] [--slowest 60]
 * npm run mutate -- [folder or file of src ...] --again
 *
 * Makes small faults in a seeded share of the lines of each file (an operator swapped, a condition made always true) and runs, for
 * each fault, the tests that reach it: those of the folder and those that import it directly, the fastest first, until one fails.
 * Acceptance and contract tests are left out, and test files that take longer than `--slowest` seconds. Prints every fault that no
 * test noticed and, for each folder, the score. Once `--minutes` are over, what has been tried so far is what counts.
 * `--again` tries again what the last run found unnoticed, and leaves the rest of its results as they are.
 *
 * Faults that only change a text, an object or an array literal are not made: their types do not compile, or they are messages.
 */

const ROOT = new URL("..", import.meta.url).pathname;
const SCRATCH = join(ROOT, ".stryker-tmp");

/** Both from 1. */
interface Place {
  readonly line: number;
  readonly column: number;
}

/** What Stryker's event recorder writes of a fault. */
interface Mutant {
  readonly id: string;
  readonly fileName: string;
  readonly location: { readonly start: Place; readonly end: Place };
  readonly mutatorName: string;
  readonly replacement: string;
  readonly status: string;
}

interface Options {
  readonly again: boolean;
  readonly share: number;
  readonly seed: number;
  readonly slowestSeconds: number;
  readonly deadline: number;
}

/** The folders that have files of their own, each a unit of the run. */
function foldersOf(named: readonly string[]): string[] {
  const files = globSync("src/{core,service}/**/*.ts", { cwd: ROOT }).sort();
  const chosen = named.length === 0 ? files : files.filter((file) => named.some((name) => isIn(file, name)));
  if (chosen.length === 0) throw new Error(`No file of src/core or src/service is in ${named.join(", ")}.`);
  return [...new Set(chosen.map((file) => dirname(file)))];
}

function isIn(file: string, folderOrFile: string): boolean {
  const name = normalize(folderOrFile)
    .replace(/^(?!src\/)/, "src/")
    .replace(/\/$/, "");
  return file === name || file.startsWith(`${name}/`);
}

/** Lines of code in a file, from 1: what is neither empty, nor a comment, nor an import. */
function codeLines(text: string): number[] {
  return text
    .split("\n")
    .flatMap((line, at) => (/^\s*($|\/\/|\/?\*|import\b|export \*|[)}\]]*[;,]?$)/.test(line) ? [] : [at + 1]));
}

/** Ranges of the lines of a file in which faults are made, as Stryker reads them. */
function sampledLines(file: string, { share, seed }: Options): string[] {
  const random = new Random(seed, file);
  return codeLines(readFileSync(join(ROOT, file), "utf8"))
    .filter(() => random.uniform() < share)
    .map((line) => `${file}:${line}-${line}`);
}

/** Files of this repository that a file imports. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  return [...text.matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)].map((match) =>
    normalize(join(dirname(file), match[1]!)),
  );
}

/** Tests of a folder, and those elsewhere that import a file of it. */
function testsOf(folder: string): string[] {
  const own = folder.replace(/^src\//, "test/");
  return globSync("test/**/*.test.ts", { cwd: ROOT })
    .filter((file) => !/^test\/(acceptance|chaos|contract)\//.test(file))
    .filter((file) => dirname(file) === own || importsOf(file).some((it) => dirname(it) === folder));
}

interface Timed {
  readonly file: string;
  readonly seconds: number;
}

/** Runs each test file once as it is: which of them pass, in order of the time that they take. */
async function timed(files: readonly string[]): Promise<Timed[]> {
  const runs: Timed[] = [];
  for (const file of files) {
    const started = performance.now();
    const code = await exitCode(spawn(process.execPath, [file], { cwd: ROOT, stdio: "ignore" }));
    if (code !== 0) console.log(`left out, as it fails without a fault: ${file}`);
    else runs.push({ file, seconds: (performance.now() - started) / 1000 });
  }
  return runs.sort((a, b) => a.seconds - b.seconds);
}

function exitCode(child: ReturnType<typeof spawn>): Promise<number | null> {
  return new Promise((resolve) => child.on("close", resolve).on("error", () => resolve(null)));
}

function configuration(ranges: readonly string[], tests: readonly string[], events: string): object {
  return {
    mutate: ranges,
    mutator: { excludedMutations: ["StringLiteral", "ObjectLiteral", "ArrayDeclaration"] },
    testRunner: "tap",
    tap: { testFiles: tests, nodeArgs: ["--test-reporter=tap", "-r", "{{hookFile}}", "{{testFile}}"], forceBail: true },
    coverageAnalysis: "perTest",
    plugins: ["@stryker-mutator/tap-runner"],
    reporters: ["event-recorder"],
    eventReporter: { baseDir: events },
    concurrency: 1,
    timeoutMS: 20_000,
    timeoutFactor: 3,
    dryRunTimeoutMinutes: 20,
    tempDirName: ".stryker-tmp",
    cleanTempDir: "always",
    ignorePatterns: ["/docs", "/bench", "/examples", ".stryker-tmp"],
    allowEmpty: true,
    logLevel: "warn",
  };
}

/** Where the results of the last run of a folder are kept. */
function recordOf(folder: string): string {
  return join(SCRATCH, "results", `${folder.replaceAll("/", "-")}.json`);
}

function lastResults(folder: string): Mutant[] {
  return existsSync(recordOf(folder)) ? JSON.parse(readFileSync(recordOf(folder), "utf8")) : [];
}

function isMissed({ status }: Mutant): boolean {
  return status === "Survived" || status === "NoCoverage";
}

/** Ranges of what the last run found unnoticed. A range holds smaller faults inside it, too. */
function missedRanges(folder: string): string[] {
  const at = ({ line, column }: Place) => `${line}:${column - 1}`;
  return lastResults(folder)
    .filter(isMissed)
    .map(({ fileName, location: { start, end } }) => `${fileName}:${at(start)}-${at(end)}`);
}

/** The faults tried in a folder. The run is ended at the deadline, and then these are fewer than were planned. */
async function mutantsOf(folder: string, options: Options): Promise<Mutant[]> {
  const files = globSync(`${folder}/*.ts`, { cwd: ROOT }).sort();
  const ranges = options.again ? missedRanges(folder) : files.flatMap((file) => sampledLines(file, options));
  if (ranges.length === 0) return [];
  const tests = (await timed(testsOf(folder))).filter(({ seconds }) => seconds <= options.slowestSeconds);
  const events = join(SCRATCH, "events", folder.replaceAll("/", "-"));
  const config = join(SCRATCH, `${folder.replaceAll("/", "-")}.json`);
  rmSync(events, { recursive: true, force: true });
  mkdirSync(events, { recursive: true });
  writeFileSync(
    config,
    JSON.stringify(
      configuration(
        ranges,
        tests.map(({ file }) => file),
        events,
      ),
    ),
  );
  const run = spawn("stryker", ["run", config], { cwd: ROOT, stdio: "inherit" });
  const timer = setTimeout(() => run.kill(), Math.max(0, options.deadline - Date.now()));
  await exitCode(run);
  clearTimeout(timer);
  return globSync(`${events}/*-onMutantTested.json`)
    .map((file): Mutant => JSON.parse(readFileSync(file, "utf8")))
    .filter(({ status }) => status !== "Ignored")
    .map((mutant) => ({ ...mutant, fileName: relative(ROOT, mutant.fileName) }));
}

const sameFault = (one: Mutant, other: Mutant) =>
  one.fileName === other.fileName &&
  one.replacement === other.replacement &&
  one.location.start.line === other.location.start.line &&
  one.location.start.column === other.location.start.column;

/** Keeps the results of a run; of a second look, only what it says of faults of the first. */
function keep(folder: string, found: readonly Mutant[], options: Options): Mutant[] {
  const again = (old: Mutant) => (isMissed(old) ? (found.find((it) => sameFault(it, old)) ?? old) : old);
  const mutants = options.again ? lastResults(folder).map(again) : [...found];
  mkdirSync(dirname(recordOf(folder)), { recursive: true });
  writeFileSync(recordOf(folder), JSON.stringify(mutants));
  return mutants;
}

function report(folder: string, mutants: readonly Mutant[]): void {
  const missed = mutants.filter(isMissed);
  for (const { fileName, location, status, mutatorName, replacement } of missed) {
    const { line, column } = location.start;
    const text = readFileSync(join(ROOT, fileName), "utf8").split("\n")[line - 1]!.trim();
    console.log(`${status} ${fileName}:${line}:${column} ${mutatorName}\n    ${text}\n    becomes ${replacement}`);
  }
  const noticed = mutants.filter(({ status }) => status === "Killed" || status === "Timeout").length;
  const counted = noticed + missed.length;
  const score = counted === 0 ? "" : `${((100 * noticed) / counted).toFixed(1)} %`;
  console.log(`score ${folder}: ${noticed} of ${counted} noticed ${score}`);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    share: { type: "string", default: "0.1" },
    seed: { type: "string", default: "1" },
    minutes: { type: "string", default: "30" },
    slowest: { type: "string", default: "60" },
    again: { type: "boolean", default: false },
  },
});
process.env.ORT_DISABLE_TELEMETRY = ENVIRONMENT.ORT_DISABLE_TELEMETRY;
process.env.NODE_COMPILE_CACHE ??= join(tmpdir(), "node-compile-cache");
process.env.JOB_THREADS ??= "1";

const options: Options = {
  again: values.again,
  share: Number(values.share),
  seed: Number(values.seed),
  slowestSeconds: Number(values.slowest),
  deadline: Date.now() + Number(values.minutes) * 60_000,
};
for (const folder of foldersOf(positionals)) {
  if (Date.now() > options.deadline) console.log(`not reached in time: ${folder}`);
  else report(folder, keep(folder, await mutantsOf(folder, options), options));
}
