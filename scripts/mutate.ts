import { spawn } from "node:child_process";
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, normalize, relative } from "node:path";
import { parseArgs } from "node:util";
import { Random } from "../src/core/random.ts";
import { ENVIRONMENT } from "../src/tasks/environment.ts";
import type { NodeTestOptions } from "./mutation-runner.ts";

/**
 * npm run mutate -- [folder or file of src ...] [--share 0.1] [--files 1] [--seed 1] [--tests 6] [--slowest 10] [--per-fault 8] [--minutes 30]
 * npm run mutate -- [folder or file of src ...] --again
 *
 * Makes small faults in a seeded share of the lines of a seeded share of the files (an operator swapped, a condition made always true) and runs, for
 * each fault, tests that reach it until one fails, the cheapest first, for `--per-fault` seconds. Tests of a folder are those of its files:
 * for each at most `--tests` files, first the one of the same name, then those that import the file, then those that import what imports
 * it; of each the fastest first, and none that takes longer than `--slowest` seconds. Prints every fault that no test noticed and, for each
 * folder, the score. What is not tried once `--minutes` are over, is left out.
 *
 * `--again` tries again what the last run found unnoticed, each fault in a process of its own, and leaves the rest of its results as they are.
 *
 * Faults that only change a text, an object or an array literal are not made: their types do not compile, or they are messages.
 */

const ROOT = new URL("..", import.meta.url).pathname;
const SCRATCH = join(ROOT, ".stryker-tmp");
const TIMES = join(SCRATCH, "times.json");

/** Both from 1. */
interface Place {
  readonly line: number;
  readonly column: number;
}

/** What Stryker's event recorder writes of a fault. */
interface Mutant {
  readonly fileName: string;
  readonly location: { readonly start: Place; readonly end: Place };
  readonly mutatorName: string;
  readonly replacement: string;
  readonly status: string;
}

interface Options {
  readonly again: boolean;
  readonly share: number;
  readonly files: number;
  readonly seed: number;
  readonly tests: number;
  readonly slowestSeconds: number;
  readonly secondsPerFault: number;
  readonly deadline: number;
}

const IMPORTS = new Map<string, readonly string[]>();

/** Files of this repository that a file imports. */
function importsOf(file: string): readonly string[] {
  const known = IMPORTS.get(file);
  if (known) return known;
  const text = readFileSync(join(ROOT, file), "utf8");
  const found = [...text.matchAll(/(?:from|import\()\s*"(\.[^"]+\.ts)"/g)];
  const files = found.map((match) => normalize(join(dirname(file), match[1]!)));
  IMPORTS.set(file, files);
  return files;
}

/** What a test imports, by way of what tests share, too. */
function readBy(test: string): readonly string[] {
  const found = new Set(importsOf(test));
  for (const file of found) {
    if (!file.startsWith("test/support/") || !existsSync(join(ROOT, file))) continue;
    for (const it of importsOf(file)) found.add(it);
  }
  return [...found];
}

/** Whether a test is named after a file: `api-jobs` after `jobs` and `job-operations`. */
function isNamedAfter(test: string, file: string): boolean {
  const words = (path: string) =>
    basename(path)
      .split(".")[0]!
      .split("-")
      .map((word) => word.replace(/s$/, ""));
  const named = words(test);
  return words(file).some((word) => word.length > 2 && named.includes(word));
}

/** Tests by how far they are from a file: of its name; that import it; that import what imports it, and so on. */
function testsByDistance(file: string): string[][] {
  const tests = globSync("test/**/*.test.ts", { cwd: ROOT }).filter((test) =>
    file.startsWith("src/service/") ? !test.startsWith("test/chaos/") : !BY_PROCESSES.test(test),
  );
  const source = globSync("src/**/*.ts", { cwd: ROOT });
  const own = file.replace(/^src\//, "test/").replace(/\.ts$/, ".test.ts");
  const groups = [tests.filter((test) => test === own)];
  const reached = new Set([file]);
  for (let hops = 0; hops < 5; hops++) {
    const known = new Set(groups.flat());
    const found = tests.filter((test) => !known.has(test) && readBy(test).some((it) => reached.has(it)));
    groups.push(
      found.filter((test) => isNamedAfter(test, file)),
      found.filter((test) => !isNamedAfter(test, file)),
    );
    if (groups.flat().length > 0 && hops > 0) break;
    for (const it of source) if (importsOf(it).some((imported) => reached.has(imported))) reached.add(it);
  }
  return groups;
}

/** Tests that start the service do so in their own process, where a fault is seen; what core does, child processes do for them. */
const BY_PROCESSES = /^test\/(acceptance|contract)\//;

/** The tests of a file: the nearest, and of those the fastest, first. */
async function testsOf(file: string, { tests, slowestSeconds }: Options): Promise<string[]> {
  const chosen: string[] = [];
  for (const group of testsByDistance(file)) {
    if (chosen.length >= tests) break;
    const timed = [];
    for (const test of group) timed.push({ test, seconds: await secondsOf(test) });
    const usable = timed.filter(({ seconds }) => seconds <= slowestSeconds).sort((a, b) => a.seconds - b.seconds);
    chosen.push(...usable.map(({ test }) => test));
  }
  return chosen.slice(0, tests);
}

const seconds: Record<string, number> = existsSync(TIMES) ? JSON.parse(readFileSync(TIMES, "utf8")) : {};

/** Says at the end of a process how many microseconds of the processor it has taken, however busy the machine is. */
const TELLS_ITS_TIME =
  "import { writeSync } from 'node:fs'; process.on('exit', () => writeSync(3, JSON.stringify(process.cpuUsage())));";

/** How long a test file takes as it is: measured once, then remembered. One that fails is of no use, and takes for ever. */
async function secondsOf(file: string): Promise<number> {
  if (seconds[file] !== undefined) return seconds[file];
  const imported = `data:text/javascript,${encodeURIComponent(TELLS_ITS_TIME)}`;
  const child = spawn(process.execPath, ["--import", imported, file], {
    cwd: ROOT,
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    timeout: 180_000,
  });
  let told = "";
  child.stdio[3]!.on("data", (text) => (told += text));
  const code = await exitCode(child);
  const { user, system } = code === 0 ? JSON.parse(told) : { user: 1e15, system: 0 };
  seconds[file] = (user + system) / 1e6;
  mkdirSync(SCRATCH, { recursive: true });
  writeFileSync(TIMES, JSON.stringify(seconds));
  return seconds[file];
}

function exitCode(child: ReturnType<typeof spawn>): Promise<number | null> {
  return new Promise((resolve) => child.on("close", resolve).on("error", () => resolve(null)));
}

/**
 * Lines of code in a file, from 1: what is neither empty, nor a comment, nor an import, nor only closes something. Stryker 10 fails on lines that
 * count up what is asserted to be there (`counts[i]!++`): they are left out.
 */
function codeLines(text: string): number[] {
  return text
    .split("\n")
    .flatMap((line, at) =>
      /^\s*($|\/\/|\/?\*|import\b|export \*|[)}\]]*[;,]?$)|!(\+\+|--)|(\+\+|--)\S+!/.test(line) ? [] : [at + 1],
    );
}

/** Ranges of the lines of a file in which faults are made, as Stryker reads them. */
function sampledLines(file: string, { share, files, seed }: Options): string[] {
  const random = new Random(seed, file);
  if (random.uniform() >= files) return [];
  return codeLines(readFileSync(join(ROOT, file), "utf8"))
    .filter(() => random.uniform() < share)
    .map((line) => `${file}:${line}-${line}`);
}

const slug = (file: string) => file.replaceAll("/", "-");
const recordOf = (file: string) => join(SCRATCH, "results", `${slug(file)}.json`);

function lastResults(file: string): Mutant[] {
  return existsSync(recordOf(file)) ? JSON.parse(readFileSync(recordOf(file), "utf8")) : [];
}

function isMissed({ status }: Mutant): boolean {
  return status === "Survived" || status === "NoCoverage";
}

/** Ranges of what the last run found unnoticed. A range holds smaller faults inside it, too. */
function missedRanges(file: string): string[] {
  const at = ({ line, column }: Place) => `${line}:${column - 1}`;
  return lastResults(file)
    .filter(isMissed)
    .map(({ location: { start, end } }) => `${file}:${at(start)}-${at(end)}`);
}

/** At first the tests run in one process, one fault after the other; what they did not notice is looked at in one of its own. */
function configuration(
  ranges: readonly string[],
  near: NodeTestOptions["near"],
  events: string,
  { again, secondsPerFault }: Options,
): object {
  const files = [...new Set(Object.values(near).flat())];
  const nodeTest: NodeTestOptions = { files, near, secondsPerFault };
  return {
    mutate: ranges,
    mutator: { excludedMutations: ["StringLiteral", "ObjectLiteral", "ArrayDeclaration"] },
    coverageAnalysis: "perTest",
    testRunner: "node-test",
    plugins: [join(import.meta.dirname, "mutation-runner.ts")],
    nodeTest,
    maxTestRunnerReuse: again ? 1 : 200,
    // What is computed while a module is loaded takes a process of its own for each fault.
    ignoreStatic: true,
    reporters: ["event-recorder"],
    eventReporter: { baseDir: events },
    concurrency: 1,
    timeoutMS: 60_000,
    timeoutFactor: 3,
    dryRunTimeoutMinutes: 30,
    tempDirName: ".stryker-tmp",
    cleanTempDir: "always",
    ignorePatterns: ["/docs", "/bench", "/examples", ".stryker-tmp"],
    allowEmpty: true,
    logLevel: "warn",
    warnings: false,
  };
}

/** The faults tried in files of a folder; none where none of their lines was drawn, or they are tested nowhere. */
async function mutantsOf(files: readonly string[], options: Options): Promise<Mutant[]> {
  const near: Record<string, readonly string[]> = {};
  const ranges: string[] = [];
  for (const file of files) {
    const mine = options.again ? missedRanges(file) : sampledLines(file, options);
    if (mine.length === 0) continue;
    const tests = await testsOf(file, options);
    if (tests.length === 0) console.log(`no test is near ${file}`);
    else {
      near[file] = tests;
      ranges.push(...mine);
    }
  }
  if (ranges.length === 0) return [];
  const { mutants, said, ok } = await runStryker(ranges, near, options);
  if (said.trim() !== "") console.log(said.trim());
  if (!ok) console.log(`not finished: ${Object.keys(near).join(" ")}`);
  return mutants;
}

async function runStryker(ranges: readonly string[], near: NodeTestOptions["near"], options: Options) {
  const name = slug(dirname(Object.keys(near)[0]!));
  const events = join(SCRATCH, "events", name);
  const config = join(SCRATCH, `${name}.json`);
  mkdirSync(events, { recursive: true });
  writeFileSync(config, JSON.stringify(configuration(ranges, near, events, options)));
  const run = spawn("stryker", ["run", config], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  const stop = () => {
    run.kill();
    process.exit(1);
  };
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, stop);
  let said = "";
  for (const stream of [run.stdout, run.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const tooLate = setTimeout(() => run.kill(), Math.max(0, options.deadline - Date.now()));
  const code = await exitCode(run);
  clearTimeout(tooLate);
  for (const signal of ["SIGINT", "SIGTERM"]) process.off(signal, stop);
  const mutants = globSync(`${events}/*-onMutantTested.json`)
    .map((path): Mutant => JSON.parse(readFileSync(path, "utf8")))
    .map((mutant) => ({ ...mutant, fileName: relative(ROOT, mutant.fileName) }));
  for (const path of [events, config]) rmSync(path, { recursive: true });
  return { mutants, said, ok: code === 0 };
}

const sameFault = (one: Mutant, other: Mutant) =>
  one.replacement === other.replacement &&
  one.location.start.line === other.location.start.line &&
  one.location.start.column === other.location.start.column;

/** Keeps the results of a run; of a second look, only what it says of faults of the first. */
function keep(file: string, found: readonly Mutant[], { again }: Options): Mutant[] {
  const second = (old: Mutant) => (isMissed(old) ? (found.find((it) => sameFault(it, old)) ?? old) : old);
  const mutants = again ? lastResults(file).map(second) : [...found];
  if (mutants.length === 0) return [];
  mkdirSync(dirname(recordOf(file)), { recursive: true });
  writeFileSync(recordOf(file), JSON.stringify(mutants));
  return mutants;
}

function describe(mutants: readonly Mutant[]): void {
  for (const { fileName, location, status, mutatorName, replacement } of mutants.filter(isMissed)) {
    const { line, column } = location.start;
    const text = readFileSync(join(ROOT, fileName), "utf8").split("\n")[line - 1]!.trim();
    console.log(`${status} ${fileName}:${line}:${column} ${mutatorName}\n    ${text}\n    becomes ${replacement}`);
  }
}

function printScore(of: string, mutants: readonly Mutant[]): void {
  // Those that are ignored were not made. Of a RuntimeError the process of the tests has died twice.
  const noticed = mutants.filter(({ status }) => /^(Killed|Timeout|RuntimeError)$/.test(status)).length;
  const counted = noticed + mutants.filter(isMissed).length;
  if (counted > 0)
    console.log(`score ${of}: ${noticed} of ${counted} noticed, ${((100 * noticed) / counted).toFixed(1)} %`);
}

function isIn(file: string, folderOrFile: string): boolean {
  const name = normalize(folderOrFile)
    .replace(/^(?!src\/)/, "src/")
    .replace(/\/$/, "");
  return file === name || file.startsWith(`${name}/`);
}

function filesOf(named: readonly string[]): string[] {
  const files = globSync("src/{core,service}/**/*.ts", { cwd: ROOT }).sort();
  const order = named.length === 0 ? ["src"] : named;
  const chosen = [...new Set(order.flatMap((name) => files.filter((file) => name === "src" || isIn(file, name))))];
  if (chosen.length === 0) throw new Error(`No file of src/core or src/service is in ${named.join(", ")}.`);
  return chosen;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    again: { type: "boolean", default: false },
    share: { type: "string", default: "0.1" },
    files: { type: "string", default: "1" },
    seed: { type: "string", default: "1" },
    tests: { type: "string", default: "6" },
    slowest: { type: "string", default: "10" },
    "per-fault": { type: "string", default: "8" },
    minutes: { type: "string", default: "30" },
  },
});
process.env.ORT_DISABLE_TELEMETRY = ENVIRONMENT.ORT_DISABLE_TELEMETRY;
process.env.NODE_COMPILE_CACHE ??= join(tmpdir(), "node-compile-cache");
process.env.JOB_THREADS ??= "1";

const options: Options = {
  again: values.again,
  share: Number(values.share),
  files: Number(values.files),
  seed: Number(values.seed),
  tests: Number(values.tests),
  slowestSeconds: Number(values.slowest),
  secondsPerFault: Number(values["per-fault"]),
  deadline: Date.now() + Number(values.minutes) * 60_000,
};
/** Folders below `core` and `service`, each with those inside it: what is started once. */
const parts = Map.groupBy(filesOf(positionals), (file) => dirname(file).split("/").slice(0, 3).join("/"));
const results = new Map<string, Mutant[]>();
const notReached: string[] = [];
for (const [part, files] of parts) {
  if (Date.now() > options.deadline) {
    notReached.push(part);
    continue;
  }
  const found = Map.groupBy(await mutantsOf(files, options), ({ fileName }) => fileName);
  for (const file of files) {
    const mutants = keep(file, found.get(file) ?? [], options);
    describe(mutants);
    printScore(file, mutants);
    results.set(dirname(file), [...(results.get(dirname(file)) ?? []), ...mutants]);
  }
}
for (const [folder, mutants] of results) printScore(folder, mutants);
printScore("all", [...results.values()].flat());
if (notReached.length > 0) console.log(`not reached in time: ${notReached.join(" ")}`);
