/** Leaves layers of a quantized model in float until it is as good as it has to be, and says what each of them is worth. */
import type { Model } from "../../onnx/ir.ts";
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
  /** Whether the weights of layers in float are stored in 8 bits. */
  readonly storesWeights: boolean;
}

/** Layers, or groups of neighbours, that are ranked. */
const MAX_RANKED = 64;

/**
 * `build` makes the model with the named layers in float, the weights of these as floats or in 8 bits; `sqnrDb` is what layers are ranked by. Their
 * weights are stored in 8 bits if the target holds even so.
 */
export async function leaveInFloat(
  build: (layers: ReadonlySet<string>, storesWeights: boolean) => StaticResult,
  sqnrDb: (model: Model) => Promise<number>,
  { score, speedup, target, maxTrials }: AccuracyTarget,
  runtime: {
    readonly signal?: AbortSignal | undefined;
    readonly onProgress?: (step: "rank" | "control", fraction: number, message: string) => void;
  },
): Promise<LayersInFloat> {
  const { signal, onProgress = () => {} } = runtime;
  const inFloats = (layers: ReadonlySet<string>) => build(layers, false);
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
  const found = { result: inFloats(layers), sensitivity, control, storesWeights: false };
  if (!reached || layers.size === 0) return found;
  const stored = build(layers, true);
  const storedScore = await score(stored.model);
  if (!(storedScore >= target)) return found;
  const trial = {
    floatLayers,
    score: storedScore,
    speedup: await speedup(stored.model),
    bytes: predictedBytes(stored.model),
  };
  const isChosen = (other: readonly string[]) =>
    other.length === layers.size && other.every((name) => layers.has(name));
  return {
    result: stored,
    storesWeights: true,
    sensitivity,
    control: { ...control, trials: trials.map((it) => (isChosen(it.floatLayers) ? trial : it)) },
  };
}
