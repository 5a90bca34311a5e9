import { registerHooks } from "node:module";
import { resolve } from "node:path";
import { mock } from "node:test";
import { pathToFileURL } from "node:url";

/**
 * A test runner for Stryker that runs tests of node:test in its own process, one fault after the other, without starting a process for
 * each. Test files are loaded anew for each fault, and import from here what they would import from `node:test`; what they test is
 * loaded once. So a fault in what is computed once and kept may look unnoticed: `npm run mutate -- --again` starts a process for each.
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
  readonly activeMutant: { readonly id: string };
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

/** Tests that need those before them in their file, and the service that hooks start. */
const IN_ORDER = /^test\/(acceptance|contract)\//;

export class NodeTestRunner {
  static readonly inject = ["options"] as const;
  readonly #files: readonly string[];
  readonly #shared: Shared;
  #stray: unknown;

  constructor(options: { readonly nodeTest: { readonly files: readonly string[] } }) {
    this.#files = options.nodeTest.files;
    const scope = globalThis as { __stryker__?: Partial<Shared> };
    scope.__stryker__ ??= {};
    scope.__stryker__.mutantCoverage ??= { static: {}, perTest: {} };
    this.#shared = scope.__stryker__ as Shared;
  }

  capabilities() {
    return { reloadEnvironment: false };
  }

  async init(): Promise<void> {
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
    for (const file of this.#files) {
      this.#shared.currentTestId = undefined;
      await load(file);
      // What evaluating the file reaches a second time is not done once for all by what it imports.
      const id = loadId(file);
      this.#shared.currentTestId = id;
      const root = await load(file);
      results.push({ id, name: id, timeSpentMs: 1, status: SUCCESS });
      await this.#runSuite(root, file, undefined, false, results);
    }
    this.#shared.currentTestId = undefined;
    const { static: once, perTest } = this.#shared.mutantCoverage;
    for (const file of this.#files) for (const id of Object.keys(perTest[loadId(file)] ?? {})) delete once[id];
    return { status: "complete", tests: results, mutantCoverage: this.#shared.mutantCoverage };
  }

  async mutantRun({ activeMutant, testFilter, hitLimit }: MutantRun) {
    Object.assign(this.#shared, {
      activeMutant: activeMutant.id,
      hitLimit,
      hitCount: hitLimit === undefined ? undefined : 0,
    });
    const results: TestResult[] = [];
    try {
      for (const file of this.#files) {
        const mine = testFilter?.filter((id) => id.startsWith(`${file}#`));
        if (mine?.length === 0) continue;
        const wanted = !mine || mine.includes(loadId(file)) || IN_ORDER.test(file) ? undefined : new Set(mine);
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

  /** The test of a file that fails first. One that fails without the fault, too, tells that this process is spoilt. */
  async #runFile(file: string, wanted: ReadonlySet<string> | undefined, results: TestResult[]) {
    const failedIn = async (ids: ReadonlySet<string> | undefined, into: TestResult[]) => {
      try {
        await this.#runSuite(await load(file), file, ids, true, into);
      } catch (error) {
        const failureMessage = String(error);
        into.push({ id: loadId(file), name: "load", timeSpentMs: 1, status: FAILED, failureMessage });
      }
      return into.find(({ status }) => status === FAILED);
    };
    const failed = await failedIn(wanted, results);
    if (!failed || IN_ORDER.test(file)) return failed;
    const { activeMutant } = this.#shared;
    this.#shared.activeMutant = undefined;
    const alone = await failedIn(new Set([failed.id]), []);
    this.#shared.activeMutant = activeMutant;
    if (alone) process.exit(1);
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
    const started = performance.now();
    this.#shared.currentTestId = id;
    this.#stray = undefined;
    try {
      await work();
      await new Promise((next) => setImmediate(next));
      if (this.#stray !== undefined) throw this.#stray;
      const timeSpentMs = performance.now() - started;
      if (!id.endsWith("/before")) results.push({ id, name: id, timeSpentMs, status: SUCCESS });
      return true;
    } catch (error) {
      const failureMessage = error instanceof Error ? error.message : String(error);
      results.push({ id, name: id, timeSpentMs: performance.now() - started, status: FAILED, failureMessage });
      return false;
    }
  }
}

export const strykerPlugins = [{ kind: "TestRunner", name: "node-test", injectableClass: NodeTestRunner }];
