import { type BrokenModel, CoreError, checkCancelled, type Model } from "../../../../core/index.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";

/** Nodes that may be found to break a model, one by one, before a repair is given up. */
const MAX_CULPRITS = 12;

export interface RepairOptions {
  readonly broken: BrokenModel;
  /** The nodes that were changed or may have been, in the order of the graph. */
  readonly nodes: readonly { readonly label: string; readonly opType: string }[];
  /** The model with these nodes left alone. */
  readonly build: (kept: ReadonlySet<string>) => Model;
  readonly environment: JobEnvironment;
  readonly scratch: string;
  readonly threads: number;
  readonly signal: AbortSignal;
  readonly onTrial?: (trials: number) => void;
}

/**
 * Finds nodes that must be left as they are so that a compressed model loads and runs: of those that may have been changed the shortest
 * beginning is looked for that breaks the model, by bisection; its last node is at fault. When two of one operator are, all of it are
 * left. Each trial runs in a process of its own. Throws `broken` when the model does not run with all of them left alone either.
 */
export async function findBreakingNodes(options: RepairOptions): Promise<ReadonlySet<string>> {
  const { broken, build, environment, scratch, threads, signal, onTrial } = options;
  const { files, measurePeak } = environment;
  let trials = 0;
  const runs = async (kept: ReadonlySet<string>): Promise<boolean> => {
    checkCancelled(signal);
    onTrial?.(++trials);
    const [main] = await files.writeModel(build(kept), scratch, "trial.onnx", { signal });
    const { feeds } = broken;
    try {
      await measurePeak({ modelPath: main!.path, feeds: feeds ?? {}, runs: feeds ? 1 : 0, threads }, signal);
      return true;
    } catch (error) {
      if (!(error instanceof CoreError) || error.code === "cancelled" || error.code === "limit_exceeded") throw error;
      return false;
    }
  };

  const kept = new Set<string>();
  const ops = new Set<string>();
  for (let culprits = 0; culprits < MAX_CULPRITS; culprits++) {
    const open = options.nodes.filter(({ label }) => !kept.has(label));
    const withFirst = (count: number) => new Set([...kept, ...open.slice(count).map(({ label }) => label)]);
    // With the first `good` of them changed it runs, with the first `bad` it does not.
    let good = 0;
    let bad = open.length;
    if (!(await runs(withFirst(good)))) throw broken;
    while (bad - good > 1) {
      const middle = Math.floor((good + bad) / 2);
      if (await runs(withFirst(middle))) good = middle;
      else bad = middle;
    }
    const culprit = open[good]!;
    if (ops.has(culprit.opType)) for (const { label, opType } of open) if (opType === culprit.opType) kept.add(label);
    ops.add(culprit.opType);
    kept.add(culprit.label);
    if (await runs(kept)) return kept;
  }
  throw broken;
}
