/**
 * Mixed precision: what each layer computes in, so that a model costs least for what it may lose. Each layer alone is put in each precision, all else in
 * float, and the error of the outputs is measured. Errors of different layers are taken to add up, which they do nearly while they are small: the choice is
 * a knapsack with one item of each group, and what it is really worth is for whoever chose to measure.
 */
import { checkCancelled } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import { predictedBytes } from "../../onnx/save.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { Feeds } from "../calibration/calibrate.ts";
import type { Calibration } from "./calibration.ts";
import type { LayerPrecision } from "./layer-precisions.ts";
import { FORMS } from "./layers-asked.ts";
import { OutputReference, type OutputRunOptions } from "./output-error.ts";
import { quantizeStatic, type StaticOptions } from "./quantize-static.ts";
import type { FloatNode } from "./storage.ts";

/** What one layer, or a few neighbours, can be put in. */
export interface LayerOption {
  readonly precision: LayerPrecision | "int8";
  /** Noise of the outputs over their power, of the worst output, with nothing else rounded. */
  readonly noise: number;
  /** What the model's file is larger, of the same with float weights; negative. */
  readonly bytes: number;
  /** Microseconds of a run. */
  readonly us: number;
}

export interface LayerChoice {
  /** Labels of nodes. */
  readonly nodes: readonly string[];
  readonly options: readonly LayerOption[];
}

export interface MixedRuntime extends OutputRunOptions {
  /** What a node takes in float and in 8 bits, by its label; undefined where it was not measured. */
  readonly usOf: (label: string) => { readonly floatUs: number; readonly int8Us: number } | undefined;
  /** Layers that are told apart; more share a place with their neighbours. As many as `MAX_GROUPS` unless given. */
  readonly groups?: number;
  /** What layers are put in besides 8 bits: all there is unless given. Each but `float32` takes a run. */
  readonly precisions?: readonly LayerPrecision[];
  readonly onProgress?: (done: number, of: number) => void;
}

export const MAX_GROUPS = 32;

const IN_FLOAT: readonly LayerPrecision[] = ["int8_weights", "int4_weights", "float32"];

/** Models that are run for each group with these precisions: 8 bits, and each of them but float, which needs none. */
export function runsForGroup(precisions: readonly LayerPrecision[] = IN_FLOAT): number {
  return 1 + precisions.filter((precision) => precision !== "float32").length;
}

/** Measures every layer of `float` that can compute in 8 bits in each precision, on `samples`. */
export async function measureLayers(
  float: Model,
  calibration: Calibration,
  options: StaticOptions,
  samples: readonly Feeds[],
  runtime: MixedRuntime,
): Promise<LayerChoice[]> {
  const { openModel, signal, usOf, groups: most = MAX_GROUPS, precisions = IN_FLOAT, onProgress } = runtime;
  const session = await openModel(float);
  const outputs: Record<string, Tensor>[] = [];
  try {
    for (const feeds of samples) outputs.push(await session.run(feeds, undefined, signal));
  } finally {
    await session.close();
  }
  const reference = OutputReference.of(samples, outputs, runtime);
  const inFloat = new Map([...float.nodes()].map(({ name }) => [name, FORMS.float32]));
  const build = (others: ReadonlyMap<string, FloatNode>) =>
    quantizeStatic(float, calibration, { ...options, floatWhereSlower: undefined, excludeNodes: others }).model;
  const plain = predictedBytes(build(inFloat));
  const { computeLayers } = quantizeStatic(float, calibration, options);
  const labels = new Map([...float.nodes()].map(({ name, label }) => [name, label]));
  const groups = evenly(computeLayers, most);
  const choices: LayerChoice[] = [];
  for (const [i, names] of groups.entries()) {
    onProgress?.(i, groups.length);
    const nodes = [...new Set(names.map((name) => labels.get(name)!))];
    const us = (of: "floatUs" | "int8Us") => nodes.reduce((sum, label) => sum + (usOf(label)?.[of] ?? 0), 0);
    const measured: LayerOption[] = [];
    for (const precision of ["int8", ...precisions] as const) {
      checkCancelled(signal);
      const others = new Map<string, FloatNode>(inFloat);
      for (const name of names) {
        if (precision === "int8") others.delete(name);
        else others.set(name, FORMS[precision]);
      }
      const model = build(others);
      const noise = precision === "float32" ? 0 : 10 ** (-(await reference.sqnrDb(model)) / 10);
      measured.push({
        ...{ precision, noise, bytes: predictedBytes(model) - plain },
        us: us(precision === "int8" ? "int8Us" : "floatUs"),
      });
    }
    choices.push({ nodes, options: measured });
  }
  return choices;
}

function evenly<T>(items: readonly T[], count: number): T[][] {
  const groups = Math.min(count, items.length);
  return Array.from({ length: groups }, (_, g) =>
    items.slice(Math.floor((g * items.length) / groups), Math.floor(((g + 1) * items.length) / groups)),
  );
}

type Measure = (option: LayerOption) => number;

/** Halvings of the price of a unit of load: enough for every choice that some price makes. */
const HALVINGS = 60;

/**
 * One option of each group so that the cost is small and the load together at most `limit`: those that some price of the load makes best (Lagrangian
 * relaxation), and then whichever single changes still fit, the one that saves most first. Undefined where even the least loads are too much.
 */
export function chooseOptions(
  groups: readonly (readonly LayerOption[])[],
  cost: Measure,
  load: Measure,
  limit: number,
): LayerOption[] | undefined {
  const total = (chosen: readonly LayerOption[], of: Measure) => chosen.reduce((sum, option) => sum + of(option), 0);
  const least = (by: Measure) =>
    groups.map((options) => options.reduce((best, option) => (by(option) < by(best) ? option : best)));
  const free = least(cost);
  if (total(free, load) <= limit) return free;
  const lightest = least(load);
  if (!(total(lightest, load) <= limit)) return undefined;
  let chosen = lightest;
  let [low, high] = [Math.log(1e-15), Math.log(1e15)];
  for (let i = 0; i < HALVINGS; i++) {
    const middle = (low + high) / 2;
    const priced = least((option) => cost(option) + Math.exp(middle) * load(option));
    if (total(priced, load) <= limit) {
      chosen = total(priced, cost) < total(chosen, cost) ? priced : chosen;
      high = middle;
    } else low = middle;
  }
  return improved(groups, chosen, cost, load, limit - total(chosen, load));
}

/** Single changes that save cost and fit what room there is. */
function improved(
  groups: readonly (readonly LayerOption[])[],
  start: readonly LayerOption[],
  cost: Measure,
  load: Measure,
  slack: number,
): LayerOption[] {
  const chosen = [...start];
  let room = slack;
  for (;;) {
    const changes = groups.flatMap((options, at) =>
      options.map((option) => ({
        ...{ at, option, saves: cost(chosen[at]!) - cost(option) },
        takes: load(option) - load(chosen[at]!),
      })),
    );
    const [best] = changes
      .filter(({ saves, takes }) => saves > 0 && takes <= room)
      .toSorted((a, b) => b.saves - a.saves);
    if (!best) return chosen;
    chosen[best.at] = best.option;
    room -= best.takes;
  }
}

/** What nodes compute in, by label, where it is not 8 bits. */
export function layersOf(
  choices: readonly LayerChoice[],
  chosen: readonly LayerOption[],
): Readonly<Record<string, LayerPrecision>> {
  return Object.fromEntries(
    choices.flatMap(({ nodes }, i) => {
      const { precision } = chosen[i]!;
      return precision === "int8" ? [] : nodes.map((node) => [node, precision] as const);
    }),
  );
}
