/**
 * Whether a model computes what another one does, found out in a process of its own, because a model that is wrong may end the process.
 * Runs both on one set of inputs in onnxruntime, and knows nothing of how the service judges.
 */
import { type ChildProcess, fork } from "node:child_process";
import { readFile } from "node:fs/promises";
import { memorySource } from "../../src/core/data/byte-source.ts";
import { feedsFor } from "../../src/core/data/fit.ts";
import { readNpz } from "../../src/core/data/npz.ts";
import { DTYPES } from "../../src/core/onnx/dtype.ts";
import { type ArrayDType, arrayOf, floatsOf, type Tensor, tensor } from "../../src/core/onnx/tensor.ts";
import { openSession, type Session } from "../../src/core/runtime/session.ts";

/** Paths of files; `feeds` is a .npz of the inputs, null when they cannot be stored in one. */
export interface Trial {
  readonly original: string;
  readonly result: string;
  readonly feeds: string | null;
}

/** What came of the original, or of a result where the original runs. */
export type Verdict =
  /** Of the original: the model does not load or run, so that nothing can be said of a result. */
  | { readonly kind: "original_fails"; readonly detail: string }
  /** Loaded; there was nothing to run it on. */
  | { readonly kind: "loads" }
  | { readonly kind: "does_not_load"; readonly detail: string }
  | { readonly kind: "does_not_run"; readonly detail: string }
  | { readonly kind: "crashes"; readonly detail: string }
  | { readonly kind: "other_outputs"; readonly detail: string }
  | { readonly kind: "not_finite"; readonly detail: string }
  /** `worstDb`: the smallest SQNR of an output, Infinity when all are equal; of integers, 0 when one differs. */
  | { readonly kind: "compared"; readonly worstDb: number };

type Outputs = Readonly<Record<string, Tensor>>;

const TIMEOUT_MS = 120_000;

/** A child that answers one trial after the other, and is replaced when a trial ends it. */
export class Judge {
  #child: ChildProcess | undefined;

  async judge(trial: Trial): Promise<Verdict> {
    this.#child ??= fork(import.meta.filename, ["judge"], { serialization: "advanced" });
    const child = this.#child;
    const answer = Promise.withResolvers<Verdict>();
    const ended = (code: number | null, signal: NodeJS.Signals | null) => {
      this.#child = undefined;
      answer.resolve({ kind: "crashes", detail: `the process ended with ${signal ?? `exit code ${code}`}` });
    };
    child.once("message", (verdict: Verdict) => answer.resolve(verdict));
    child.once("exit", ended);
    const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT_MS);
    child.send(trial);
    const verdict = await answer.promise;
    clearTimeout(timer);
    child.removeAllListeners("message").off("exit", ended);
    return verdict;
  }

  close(): void {
    this.#child?.kill("SIGKILL");
  }
}

async function verdictOf({ original, result, feeds }: Trial): Promise<Verdict> {
  let expected: Outputs | undefined;
  let again: Outputs | undefined;
  try {
    const session = await openSession({ path: original });
    expected = feeds === null ? undefined : await session.run(await feedsOf(session, feeds));
    again = feeds === null ? undefined : await session.run(await feedsOf(session, feeds));
    await session.close();
  } catch (error) {
    return { kind: "original_fails", detail: (error as Error).message };
  }
  let session: Session;
  try {
    session = await openSession({ path: result });
  } catch (error) {
    return { kind: "does_not_load", detail: (error as Error).message };
  }
  try {
    if (feeds === null || !expected || !again) return { kind: "loads" };
    return compare(expected, again, await session.run(await feedsOf(session, feeds)));
  } catch (error) {
    return { kind: "does_not_run", detail: (error as Error).message };
  } finally {
    await session.close();
  }
}

/** In the dtypes that the model takes: a result may take other floats than the original. */
async function feedsOf(session: Session, path: string): Promise<Record<string, Tensor>> {
  const arrays = await readNpz(memorySource(await readFile(path)), true);
  const tensors = arrays.map(({ name, dtype, dims, source }) => [
    name,
    tensor(dtype, dims, source.read(0, source.size)),
  ]);
  return feedsFor(session.inputs, Object.fromEntries(tensors));
}

/** Outputs that the original itself gives differently the second time (random ones) are left out. */
function compare(expected: Outputs, again: Outputs, actual: Outputs): Verdict {
  let worstDb = Number.POSITIVE_INFINITY;
  for (const [name, before] of Object.entries(expected)) {
    const after = actual[name];
    if (!after || `${after.dims}` !== `${before.dims}`) {
      return {
        kind: "other_outputs",
        detail: `"${name}" is [${before.dims}] and became [${after?.dims ?? "nothing"}]`,
      };
    }
    const x = valuesOf(before);
    const repeated = valuesOf(again[name]!);
    if (x.some((value, i) => !Object.is(value, repeated[i]))) continue;
    const y = valuesOf(after);
    const lost = x.findIndex((value, i) => Number.isFinite(value) !== Number.isFinite(y[i]));
    if (lost >= 0) return { kind: "not_finite", detail: `"${name}" at ${lost}: ${x[lost]} became ${y[lost]}` };
    worstDb = Math.min(worstDb, DTYPES[before.dtype].kind === "float" ? sqnrDb(x, y) : equalDb(x, y));
  }
  return { kind: "compared", worstDb };
}

function valuesOf(source: Tensor): Float32Array | Float64Array {
  const { kind } = DTYPES[source.dtype];
  if (kind === "float" && source.dtype !== "float64") return floatsOf(source);
  return Float64Array.from(arrayOf(source, source.dtype as ArrayDType) as ArrayLike<number | bigint>, Number);
}

/** 10·log10(Σx² / Σ(x−y)²) over the finite elements. */
function sqnrDb(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let signal = 0;
  let noise = 0;
  for (let i = 0; i < x.length; i++) {
    if (!Number.isFinite(x[i])) continue;
    signal += x[i]! ** 2;
    noise += (x[i]! - y[i]!) ** 2;
  }
  return noise === 0 ? Number.POSITIVE_INFINITY : 10 * Math.log10(signal / noise);
}

function equalDb(x: ArrayLike<number>, y: ArrayLike<number>): number {
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return 0;
  return Number.POSITIVE_INFINITY;
}

if (process.argv[2] === "judge") {
  process.on("disconnect", () => process.exit());
  process.on("message", (trial: Trial) => {
    verdictOf(trial).then((verdict) => process.send!(verdict));
  });
}
