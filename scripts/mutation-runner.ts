import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { relative, resolve } from "node:path";
import { mock } from "node:test";
import { pathToFileURL } from "node:url";

/**
 * A test runner for Stryker that runs tests of node:test in its own process, one fault after the other, without starting a process for
 * each. Test files are loaded anew for each fault, and import from here what they would import from `node:test`; what they test is
 * loaded once. So a fault in what is computed once and kept may look unnoticed: `npm run mutate -- --again` starts a process for each.
 *
 * The first run, without a fault, tells which tests reach a fault and how long each takes. Of those the cheapest are run first, until one
 * fails or the fault has taken its time. A file with a test that fails without a fault is left out.
 */

/** Stryker's `TestStatus`. */
const SUCCESS = 0;
const FAILED = 1;

interface TestResult {
  readonly id: string;
  readonly name: string;
  readonly timeSpentMs: number;
  readonly status: number;
  readonly failureMessage?: string;
}

/** What the instrumented code and Stryker tell each other. */
interface Shared {
  activeMutant: string | undefined;
  currentTestId: string | undefined;
  hitCount: number | undefined;
  hitLimit: number | undefined;
  mutantCoverage: { static: Record<string, number>; perTest: Record<string, Record<string, number>> };
}

interface MutantRun {
  readonly activeMutant: { readonly id: string; readonly fileName: string };
  readonly testFilter?: readonly string[];
  readonly hitLimit?: number;
}

type Work = (context: TestContext) => unknown;

interface TestContext {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly mock: typeof mock;
  after(work: () => unknown): void;
  diagnostic(text: string): void;
  skip(): void;
}

type Hook = "before" | "after" | "beforeEach" | "afterEach";

interface Suite {
  readonly name: string;
  readonly parent: Suite | undefined;
  readonly hooks: Record<Hook, (() => unknown)[]>;
  readonly parts: (Suite | { readonly name: string; readonly work: Work })[];
}

const newSuite = (name: string, parent: Suite | undefined): Suite => ({
  name,
  parent,
  hooks: { before: [], after: [], beforeEach: [], afterEach: [] },
  parts: [],
});

let current = newSuite("", undefined);

/** node:test's arguments: a name, options, a function; the first two may be left out. */
function argumentsOf<T>(all: readonly unknown[]): { name: string; work: T | undefined; skipped: boolean } {
  const work = all.find((it) => typeof it === "function") as T | undefined;
  const options = all.find((it) => typeof it === "object") as { skip?: unknown; todo?: unknown } | undefined;
  return { name: typeof all[0] === "string" ? all[0] : "", work, skipped: Boolean(options?.skip ?? options?.todo) };
}

export function test(...all: readonly unknown[]): void {
  const { name, work, skipped } = argumentsOf<Work>(all);
  if (work && !skipped) current.parts.push({ name, work });
}

export function it(...all: readonly unknown[]): void {
  test(...all);
}

export function describe(...all: readonly unknown[]): void {
  const { name, work, skipped } = argumentsOf<() => void>(all);
  if (!work || skipped) return;
  const outer = current;
  current = newSuite(name, outer);
  outer.parts.push(current);
  work();
  current = outer;
}

const hook = (kind: Hook) => (work: () => unknown) => void current.hooks[kind].push(work);
export const before = hook("before");
export const after = hook("after");
export const beforeEach = hook("beforeEach");
export const afterEach = hook("afterEach");

/** Milliseconds of the processor since `started`: a machine that is busy, or a process that was stopped, does not lengthen them. */
function spentMs(started: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1000;
}

let loads = 0;

/** The tests of a file, which is evaluated once more for them. */
async function load(file: string): Promise<Suite> {
  current = newSuite("", undefined);
  const root = current;
  await import(`${pathToFileURL(resolve(file)).href}?load=${loads++}`);
  return root;
}

/** The pseudo test that is the evaluation of a file. */
const loadId = (file: string) => `${file}#`;

/** What the first run learnt, for the processes that take over from its own: milliseconds of the processor for each test, and for the rest of its file. */
interface Learnt {
  readonly tests: Record<string, number>;
  readonly files: Record<string, number>;
}

const LEARNT = "learnt-of-tests.json";

export interface NodeTestOptions {
  readonly files: readonly string[];
  /** Files with tests by the file that faults are made in, the nearest first. */
  readonly near: Readonly<Record<string, readonly string[]>>;
  /** Of the processor, for all tests of one fault. Those of the nearest file are run in any case. */
  readonly secondsPerFault: number;
}

export class NodeTestRunner {
  static readonly inject = ["options"] as const;
  readonly #options: NodeTestOptions;
  readonly #shared: Shared;
  /** Files whose tests need those before them. */
  readonly #inOrder = new Set<string>();
  #learnt: Learnt = { tests: {}, files: {} };
  #stray: unknown;

  constructor(options: { readonly nodeTest: NodeTestOptions }) {
    this.#options = options.nodeTest;
    const scope = globalThis as { __stryker__?: Partial<Shared> };
    scope.__stryker__ ??= {};
    scope.__stryker__.mutantCoverage ??= { static: {}, perTest: {} };
    this.#shared = scope.__stryker__ as Shared;
  }

  capabilities() {
    return { reloadEnvironment: false };
  }

  async init(): Promise<void> {
    if (existsSync(LEARNT)) this.#learnt = JSON.parse(readFileSync(LEARNT, "utf8"));
    const isTest = (url: string | undefined) => url !== undefined && /\/test\/.*\.ts(\?|$)/.test(url);
    registerHooks({
      resolve: (specifier, context, next) =>
        specifier === "node:test" && isTest(context.parentURL)
          ? { url: import.meta.url, shortCircuit: true }
          : next(specifier, context),
    });
    process.on("unhandledRejection", (reason) => {
      this.#stray = reason;
    });
  }

  async dryRun() {
    const results: TestResult[] = [];
    const { static: once, perTest } = this.#shared.mutantCoverage;
    for (const file of this.#options.files) {
      const found: TestResult[] = [];
      const started = process.cpuUsage();
      try {
        this.#shared.currentTestId = undefined;
        await load(file);
        // What evaluating the file reaches a second time is not done once for all by what it imports.
        this.#shared.currentTestId = loadId(file);
        await this.#runSuite(await load(file), file, undefined, false, found);
      } catch (error) {
        found.push({ id: loadId(file), name: "load", timeSpentMs: 1, status: FAILED, failureMessage: String(error) });
      }
      this.#shared.currentTestId = undefined;
      const failed = found.find(({ status }) => status === FAILED);
      if (failed) {
        console.error(`left out, for it fails as it is: ${failed.id}: ${failed.failureMessage}`);
        for (const id of Object.keys(perTest)) if (id.startsWith(loadId(file))) delete perTest[id];
        continue;
      }
      const inTests = found.reduce((sum, { timeSpentMs }) => sum + timeSpentMs, 0);
      this.#learnt.files[file] = spentMs(started) - inTests;
      for (const { id, timeSpentMs } of found) this.#learnt.tests[id] = timeSpentMs;
      results.push({ id: loadId(file), name: loadId(file), timeSpentMs: 1, status: SUCCESS }, ...found);
      for (const id of Object.keys(perTest[loadId(file)] ?? {})) delete once[id];
    }
    writeFileSync(LEARNT, JSON.stringify(this.#learnt));
    return { status: "complete", tests: results, mutantCoverage: this.#shared.mutantCoverage };
  }

  async mutantRun({ activeMutant, testFilter, hitLimit }: MutantRun) {
    Object.assign(this.#shared, {
      activeMutant: activeMutant.id,
      hitLimit,
      hitCount: hitLimit === undefined ? undefined : 0,
    });
    const results: TestResult[] = [];
    const started = process.cpuUsage();
    try {
      const [nearest] = this.#nearTo(activeMutant.fileName);
      for (const [file, wanted] of this.#chosen(activeMutant.fileName, testFilter)) {
        const isOver = spentMs(started) > 1000 * this.#options.secondsPerFault;
        if (isOver && results.length > 0 && file !== nearest) continue;
        const failed = await this.#runFile(file, wanted, results);
        if (this.#shared.hitCount! > hitLimit!) return { status: "timeout", reason: "a loop without end" };
        if (!failed) continue;
        const { id, failureMessage } = failed;
        return { status: "killed", killedBy: [id], failureMessage, nrOfTests: results.length };
      }
      return { status: "survived", nrOfTests: results.length };
    } finally {
      this.#shared.activeMutant = undefined;
    }
  }

  /** Files with tests, the nearest first. */
  #nearTo(fileName: string): readonly string[] {
    return this.#options.near[relative(process.cwd(), fileName)] ?? [];
  }

  /**
   * Tests that reach a fault, by file: the cheapest, as many as there is time for, and those of the nearest file in any case. Tests of near
   * files count as cheaper than they are. Where Stryker cannot tell which tests reach it, it is all tests of near files.
   */
  #chosen(fileName: string, testFilter: readonly string[] | undefined): Map<string, ReadonlySet<string>> {
    const near = this.#nearTo(fileName);
    const reaching = testFilter && new Set(testFilter);
    const found = Object.entries(this.#learnt.tests).flatMap(([id, ms]) => {
      const file = id.slice(0, id.indexOf("#"));
      const at = near.indexOf(file);
      if (reaching ? !reaching.has(id) && !reaching.has(loadId(file)) : at < 0) return [];
      return [{ id, file, ms, isNearest: at === 0, order: (ms + 1) * (at < 0 ? near.length + 1 : at + 1) }];
    });
    found.sort((one, other) => one.order - other.order);
    const chosen = new Map<string, Set<string>>();
    let leftMs = 1000 * this.#options.secondsPerFault;
    for (const { id, file, ms, isNearest } of found) {
      const costMs = ms + (chosen.has(file) ? 0 : this.#learnt.files[file]!);
      if (costMs > leftMs && chosen.size > 0 && !isNearest) continue;
      leftMs -= costMs;
      chosen.set(file, (chosen.get(file) ?? new Set()).add(id));
    }
    return chosen;
  }

  /**
   * The test of a file that fails first. Where it fails without the fault, too, it may need the tests before it, which are run from then on;
   * else this process is spoilt.
   */
  async #runFile(file: string, wanted: ReadonlySet<string>, results: TestResult[]): Promise<TestResult | undefined> {
    const failedIn = async (ids: ReadonlySet<string> | undefined, into: TestResult[]) => {
      try {
        await this.#runSuite(await load(file), file, ids, true, into);
      } catch (error) {
        const failureMessage = String(error);
        into.push({ id: loadId(file), name: "load", timeSpentMs: 1, status: FAILED, failureMessage });
      }
      return into.find(({ status }) => status === FAILED);
    };
    const inOrder = this.#inOrder.has(file);
    const found: TestResult[] = [];
    const failed = await failedIn(inOrder ? undefined : wanted, found);
    if (failed && !inOrder) {
      const { activeMutant } = this.#shared;
      this.#shared.activeMutant = undefined;
      const alone = await failedIn(new Set([failed.id]), []);
      if (alone && (await failedIn(undefined, []))) process.exit(1);
      this.#shared.activeMutant = activeMutant;
      if (alone) {
        this.#inOrder.add(file);
        return await this.#runFile(file, wanted, results);
      }
    }
    results.push(...found);
    return failed;
  }

  /** Answers whether to go on. Suites without a wanted test are left out, with their hooks. */
  async #runSuite(
    suite: Suite,
    path: string,
    wanted: ReadonlySet<string> | undefined,
    bail: boolean,
    results: TestResult[],
  ): Promise<boolean> {
    const prefix = suite.parent ? `${path}/${suite.name}` : `${path}#`;
    const holdsWanted = (part: Suite["parts"][number], at: string): boolean =>
      "work" in part
        ? !wanted || wanted.has(`${at}/${part.name}`)
        : part.parts.some((inner) => holdsWanted(inner, `${at}/${part.name}`));
    const parts = suite.parts.filter((part) => holdsWanted(part, prefix));
    if (parts.length === 0) return true;
    try {
      const started = await this.#attempt(`${prefix}/before`, results, async () => {
        for (const work of suite.hooks.before) await work();
      });
      if (!started) return !bail;
      for (const part of parts) {
        const id = `${prefix}/${part.name}`;
        const goOn =
          "work" in part
            ? await this.#runTest(suite, id, part.work, results)
            : await this.#runSuite(part, prefix, wanted, bail, results);
        if (!goOn && bail) return false;
      }
      return true;
    } finally {
      for (const work of suite.hooks.after) await Promise.resolve(work()).catch(() => undefined);
    }
  }

  async #runTest(suite: Suite, id: string, work: Work, results: TestResult[]): Promise<boolean> {
    const cleanups: (() => unknown)[] = [];
    const context: TestContext = {
      ...{ name: id, signal: new AbortController().signal, mock },
      after: (cleanup) => void cleanups.push(cleanup),
      diagnostic: () => undefined,
      skip: () => undefined,
    };
    const enclosing: Suite[] = [];
    for (let it: Suite | undefined = suite; it; it = it.parent) enclosing.unshift(it);
    return await this.#attempt(id, results, async () => {
      try {
        for (const { hooks } of enclosing) for (const each of hooks.beforeEach) await each();
        await work(context);
      } finally {
        for (const cleanup of cleanups) await cleanup();
        for (const { hooks } of enclosing.reverse()) for (const each of hooks.afterEach) await each();
        mock.restoreAll();
      }
    });
  }

  /** Runs a test, or what comes before all of a suite, which is a result only where it fails. */
  async #attempt(id: string, results: TestResult[], work: () => Promise<void>): Promise<boolean> {
    const started = process.cpuUsage();
    this.#shared.currentTestId = id;
    this.#stray = undefined;
    try {
      await work();
      await new Promise((next) => setImmediate(next));
      if (this.#stray !== undefined) throw this.#stray;
      const timeSpentMs = spentMs(started);
      if (!id.endsWith("/before")) results.push({ id, name: id, timeSpentMs, status: SUCCESS });
      return true;
    } catch (error) {
      const failureMessage = error instanceof Error ? error.message : String(error);
      results.push({ id, name: id, timeSpentMs: spentMs(started), status: FAILED, failureMessage });
      return false;
    }
  }
}

export const strykerPlugins = [{ kind: "TestRunner", name: "node-test", injectableClass: NodeTestRunner }];
