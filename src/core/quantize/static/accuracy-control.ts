/**
 * Keeps layers in float until a model is as good as it has to be.
 *
 * Layers are ranked by what the model gains when one alone is left in float, on a few samples. Then the shortest prefix of that ranking is
 * looked for that reaches the target, by doubling and bisection; and what turns out not to be needed, now that others are in float, is
 * quantized again. Every model that was tried is remembered: together they are the curve of accuracy over size.
 */
import { checkCancelled } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import { predictedBytes } from "../../onnx/save.ts";

export interface LayerSensitivity {
  readonly names: readonly string[];
  /** The output error, in dB of signal to noise, with these layers in float and all others quantized. */
  readonly sqnrDb: number;
  /** What that is better than with all layers quantized. */
  readonly gainDb: number;
}

/**
 * What leaving each layer in float does for the outputs, the most useful first. Neighbouring layers share a place when there are more than
 * `maxTrials`. `build` makes the model with the named layers in float.
 */
export async function rankLayers(
  layers: readonly string[],
  build: (float: ReadonlySet<string>) => Model,
  sqnrDb: (model: Model) => Promise<number>,
  maxTrials: number,
  options: { readonly signal?: AbortSignal | undefined; readonly onTrial?: (done: number, of: number) => void } = {},
): Promise<LayerSensitivity[]> {
  const all = await sqnrDb(build(new Set()));
  const groups = evenly(layers, Math.max(1, maxTrials));
  const ranked: LayerSensitivity[] = [];
  for (const names of groups) {
    checkCancelled(options.signal);
    const reached = await sqnrDb(build(new Set(names)));
    ranked.push({ names, sqnrDb: reached, gainDb: reached - all });
    options.onTrial?.(ranked.length, groups.length);
  }
  return ranked.sort((a, b) => b.gainDb - a.gainDb);
}

/** Items in their order, in at most `count` groups of nearly one size. */
function evenly<T>(items: readonly T[], count: number): T[][] {
  const groups = Math.min(count, items.length);
  return Array.from({ length: groups }, (_, g) =>
    items.slice(Math.floor((g * items.length) / groups), Math.floor(((g + 1) * items.length) / groups)),
  );
}

export interface Trial {
  readonly floatLayers: readonly string[];
  /** Higher is better. */
  readonly score: number;
  /** Latency of the float model over that of this one. */
  readonly speedup: number;
  /** Of the model's file. */
  readonly bytes: number;
}

export interface ControlOptions {
  /** How good a model is; higher is better. */
  readonly score: (model: Model) => Promise<number>;
  /** How fast a model is, for the record: nothing is decided by it. */
  readonly speedup: (model: Model) => Promise<number>;
  readonly target: number;
  /** Models that may be scored, the fully quantized one included. */
  readonly maxTrials: number;
  readonly signal?: AbortSignal | undefined;
  readonly onTrial?: (trial: Trial, count: number) => void;
}

export interface ControlResult {
  /** The layers to leave in float. */
  readonly floatLayers: readonly string[];
  readonly reached: boolean;
  /** In the order in which they were made. */
  readonly trials: readonly Trial[];
}

/**
 * Looks for the fewest groups of layers to leave in float for the target to be met; `rank` answers them, the most useful first, and is only
 * asked when the fully quantized model misses the target. When it cannot be met within the budget, answers the best model that was tried.
 */
export async function controlAccuracy(
  rank: () => Promise<readonly (readonly string[])[]>,
  build: (float: ReadonlySet<string>) => Model,
  options: ControlOptions,
): Promise<ControlResult> {
  const { score, speedup, target, maxTrials, signal, onTrial } = options;
  const trials: Trial[] = [];
  const attempt = async (groups: readonly (readonly string[])[]): Promise<boolean> => {
    checkCancelled(signal);
    const floatLayers = groups.flat();
    const model = build(new Set(floatLayers));
    const trial = {
      floatLayers,
      score: await score(model),
      speedup: await speedup(model),
      bytes: predictedBytes(model),
    };
    trials.push(trial);
    onTrial?.(trial, trials.length);
    return trial.score >= target;
  };
  const isLeft = () => trials.length < maxTrials;

  if (await attempt([])) return { floatLayers: [], reached: true, trials };
  const ranked = await rank();
  // Doubling: `failed` is the longest prefix known not to do, `enough` the shortest known to do.
  let failed = 0;
  let enough: number | undefined;
  while (enough === undefined && failed < ranked.length && isLeft()) {
    const next = Math.min(Math.max(1, 2 * failed), ranked.length);
    if (await attempt(ranked.slice(0, next))) enough = next;
    else failed = next;
  }
  while (enough !== undefined && enough - failed > 1 && isLeft()) {
    const middle = Math.floor((failed + enough) / 2);
    if (await attempt(ranked.slice(0, middle))) enough = middle;
    else failed = middle;
  }
  if (enough === undefined) {
    const best = trials.reduce((a, b) => (b.score > a.score ? b : a));
    return { floatLayers: best.floatLayers, reached: false, trials };
  }
  // Each in turn, the least useful first, is quantized again where the target still holds.
  let kept: readonly (readonly string[])[] = ranked.slice(0, enough);
  for (let i = kept.length - 2; i >= 0 && isLeft(); i--) {
    const without = kept.filter((_, k) => k !== i);
    if (await attempt(without)) kept = without;
  }
  return { floatLayers: kept.flat(), reached: true, trials };
}
