/** Leaves layers of a quantized model in float until it is as good as it has to be, and says what each of them is worth. */
import type { Model, Node } from "../../onnx/ir.ts";
import { predictedBytes } from "../../onnx/save.ts";
import { type ControlResult, controlAccuracy, type LayerSensitivity, rankLayers } from "./accuracy-control.ts";
import type { StaticResult } from "./quantize-static.ts";

export interface AccuracyTarget {
  /** How good a model is; higher is better. */
  readonly score: (model: Model) => Promise<number>;
  /** How fast a model is, for the record. */
  readonly speedup: (model: Model) => Promise<number>;
  readonly target: number;
  readonly maxTrials: number;
}

export interface LayersInFloat {
  readonly result: StaticResult;
  /** The most useful layer to leave in float first; empty where none was needed. */
  readonly sensitivity: readonly LayerSensitivity[];
  readonly control: ControlResult;
  /** The layers in float whose weights are stored in 8 bits, by name. */
  readonly stored: ReadonlySet<string>;
}

/** Layers, or groups of neighbours, that are ranked. */
const MAX_RANKED = 64;
/** Layers whose weights are tried in 8 bits one by one, the largest first. */
const MAX_STORED = 8;

/**
 * Makes the model with the named layers in float, the weights of those `stored` in 8 bits. With `nothing` stored all weights stay floats that no
 * kernel reads in 8 bits: those of layers that are in float for another reason, and tables, too.
 */
type Build = (layers: ReadonlySet<string>, stored: ReadonlySet<string> | "nothing") => StaticResult;

const NONE: ReadonlySet<string> = new Set();

/**
 * Leaves layers in float; their weights are stored in 8 bits as far as the target holds even so. Where no layers are enough, weights that are only
 * stored in 8 bits are taken back, if that is better. `sqnrDb` is what layers are ranked by.
 */
export async function leaveInFloat(
  build: Build,
  sqnrDb: (model: Model) => Promise<number>,
  { score, speedup, target, maxTrials }: AccuracyTarget,
  runtime: {
    readonly signal?: AbortSignal | undefined;
    readonly onProgress?: ((step: "rank" | "control", fraction: number, message: string) => void) | undefined;
  },
): Promise<LayersInFloat> {
  const { signal, onProgress = () => {} } = runtime;
  const inFloats = (layers: ReadonlySet<string>) => build(layers, NONE);
  let sensitivity: LayerSensitivity[] = [];
  const rank = async () => {
    const layers = inFloats(new Set()).computeLayers;
    sensitivity = await rankLayers(layers, (names) => inFloats(names).model, sqnrDb, MAX_RANKED, {
      signal,
      onTrial: (done, of) => onProgress("rank", done / of, `${done} of ${of} layers`),
    });
    return sensitivity.map(({ names }) => names);
  };
  const control = await controlAccuracy(rank, (names) => inFloats(names).model, {
    ...{ score, speedup, target, maxTrials, signal },
    onTrial: (_, count) => onProgress("control", count / maxTrials, `${count} models tried`),
  });
  const { floatLayers, reached, trials } = control;
  const layers = new Set(floatLayers);
  const float = inFloats(layers);
  const found = { result: float, sensitivity, control, stored: NONE };
  if (reached && layers.size === 0) return found;
  const most = Math.max(...trials.map((it) => it.score));
  const other = reached
    ? await storeWeights(float, layers, build, score, target)
    : await storeNothing(layers, build, score, most);
  if (!other) return found;
  const trial = {
    floatLayers,
    score: other.score,
    speedup: await speedup(other.result.model),
    bytes: predictedBytes(other.result.model),
  };
  const isChosen = (names: readonly string[]) =>
    names.length === layers.size && names.every((name) => layers.has(name));
  return {
    result: other.result,
    stored: other.stored,
    sensitivity,
    control: {
      ...control,
      reached: other.score >= target,
      trials: trials.map((it) => (isChosen(it.floatLayers) ? trial : it)),
    },
  };
}

/** The model without weights that are only stored in 8 bits; undefined where it is no better than the best. */
async function storeNothing(
  layers: ReadonlySet<string>,
  build: Build,
  score: AccuracyTarget["score"],
  most: number,
): Promise<Stored | undefined> {
  const result = build(layers, "nothing");
  const reached = await score(result.model);
  return reached > most ? { result, score: reached, stored: NONE } : undefined;
}

interface Stored {
  readonly result: StaticResult;
  readonly score: number;
  readonly stored: ReadonlySet<string>;
}

/** The model with the weights of all layers in 8 bits, or of as many of the largest as hold the target; undefined where none does. */
async function storeWeights(
  float: StaticResult,
  layers: ReadonlySet<string>,
  build: Build,
  score: AccuracyTarget["score"],
  target: number,
): Promise<Stored | undefined> {
  const trialOf = async (stored: ReadonlySet<string>): Promise<Stored | undefined> => {
    const result = build(layers, stored);
    const reached = await score(result.model);
    return reached >= target ? { result, score: reached, stored } : undefined;
  };
  const all = await trialOf(layers);
  if (all || layers.size === 1) return all;
  const bytes = new Map(float.model.graph.nodes.map((node) => [node.name, weightBytesOf(node)]));
  const largest = [...layers].sort((a, b) => (bytes.get(b) ?? 0) - (bytes.get(a) ?? 0)).slice(0, MAX_STORED);
  let best: Stored | undefined;
  for (const name of largest) best = (await trialOf(new Set([...(best?.stored ?? []), name]))) ?? best;
  return best;
}

function weightBytesOf({ inputs }: Node): number {
  return inputs.reduce((sum, input) => sum + (input?.constant?.byteLength ?? 0), 0);
}
