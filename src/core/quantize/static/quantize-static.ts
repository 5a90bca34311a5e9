/**
 * Static int8: activations and weights in 8 bits, with ranges that calibration has found. The float model is observed once; quantized models
 * are then made from what was seen, as often as sensitivity analysis and accuracy control need them.
 */

import type { QdqPattern } from "../../facts.ts";
import type { Model, Node, Value } from "../../onnx/ir.ts";
import { removeDeadCode } from "../../passes/dead-code.ts";
import { checkInvariants, type NodeTest, type Note, noteOn, runPasses } from "../../passes/pass.ts";
import { simplify } from "../../passes/simplify.ts";
import { unfuse } from "../../passes/unfuse.ts";
import type { WeightViews } from "../../passes/weight-views.ts";
import type { CostTable } from "../../targets/cost-tables.ts";
import type { CalibrateOptions, Feeds } from "../calibration/calibrate.ts";
import type { CalibrationMethod } from "../calibration/calibration-methods.ts";
import type { Range } from "../calibration/thresholds.ts";
import { type AffineParams, codeRange } from "../params.ts";
import { nodesOf, type QuantizationPlan, weightsOf } from "../plan.ts";
import type { RoundedWeights } from "../rounding/round-layers.ts";
import type { WeightDecision } from "../weights/rewrite.ts";
import { activationParams } from "./activation-params.ts";
import { type BiasShifts, type CorrectableLayer, correctableLayers, shiftBias } from "./bias-correction.ts";
import type { Calibration } from "./calibration.ts";
import { kernelScheme, lostChannels } from "./channel-weights.ts";
import type { Emission, QdqScheme } from "./emission.ts";
import { formsFor } from "./forms.ts";
import { inferTypes } from "./infer-types.ts";
import { type ElementsOf, type KernelCosts, predictedCosts, slowParts } from "./kernel-cost.ts";
import { type MeasuredCosts, measuredCosts } from "./measured-costs.ts";
import { type Placement, placeQuantizers } from "./placement.ts";
import { notesOf, QUANTIZED } from "./placement-notes.ts";
import { emitQdq } from "./qdq.ts";
import { observationOf, rangesOf } from "./range-finder.ts";
import { type FloatNode, planFloatWeights, storeFloatWeights } from "./storage.ts";
import type { WeightBits } from "./stored-weights.ts";
import { nodesInFloat, type StretchedForms, type StretchedGroup, stretchedGroups } from "./stretched.ts";
import type { PlacementOptions, Unit } from "./units.ts";

/** What was measured of a model on the machine at hand. */
export interface SlowerKernels {
  /** What kernels take: whatever is placed, what they make slower in 8 bits stays in float. */
  readonly costs?: MeasuredCosts | undefined;
  /** Nodes that stay in float in any case, by name. */
  readonly nodes?: ReadonlyMap<string, FloatNode> | undefined;
}

export interface StaticOptions {
  readonly method: CalibrationMethod;
  /** Share of the values that `percentile` keeps, in percent. */
  readonly percentile: number;
  readonly activationDType: "uint8" | "int8";
  readonly perChannel: boolean;
  /** Of weights that kernels read, 8 unless given: those of fewer are stored in as many, and computed with in 8. */
  readonly weightBits?: WeightBits | undefined;
  /** Keep those in int8 constants however few bits they have: for models that are run in parts, and not stored. */
  readonly unpacked?: boolean | undefined;
  /** For processors that add pairs of 8-bit products in 16 bits. */
  readonly reduceRange: boolean;
  /** Leave in float what is slower in 8 bits: by a table of costs, or by what was measured. */
  readonly floatWhereSlower?: { readonly table: CostTable } | SlowerKernels | undefined;
  readonly excludeNodes?: ReadonlyMap<string, FloatNode>;
  /** Nodes that the job leaves alone. */
  readonly isExcluded?: NodeTest;
  /** Of weights that no kernel reads in 8 bits only those are stored so that the job asks for. */
  readonly onlyAsked?: boolean;
  /** And of those only tables that rows are looked up in. */
  readonly onlyTables?: boolean;
  /** What becomes of nodes in front of operators that stretch small values. */
  readonly stretched?: StretchedForms | undefined;
  /** Scales and zero points of values that are decided, by name, in place of those that follow from calibration. */
  readonly given?: Readonly<Record<string, AffineParams>> | undefined;
  /** Weights by name that are rounded already; all others are rounded to nearest. */
  readonly rounded?: StaticRounded | undefined;
  /** Corrections that quantized layers' biases get. */
  readonly biasShifts?: BiasShifts;
  /** How pairs are put in; as onnxruntime's kernels on the CPU want them unless given. */
  readonly pattern?: QdqPattern | undefined;
}

/**
 * A copy of `model` in the form that everything here works on: simpler, with the types of its values known, in operators that have 8-bit kernels
 * where they have an equal one, unless `pattern` quantizes other operators. `sample` is any valid input.
 */
export async function prepareStatic(
  model: Model,
  sample: Feeds,
  { openModel, signal }: Pick<CalibrateOptions, "openModel" | "signal">,
  pattern?: QdqPattern | undefined,
): Promise<{ readonly model: Model; readonly notes: readonly Note[] }> {
  const evaluate = async (constants: Model) => {
    const session = await openModel(constants);
    try {
      return await session.run({}, undefined, signal);
    } finally {
      await session.close();
    }
  };
  const simplified = await simplify(model, { evaluate, ...(signal && { signal }) });
  const simple = runPasses(simplified.model, [unfuse]);
  await inferTypes(simple.model, sample, openModel, signal);
  const { model: prepared, notes } = runPasses(simple.model, [...formsFor(pattern), removeDeadCode]);
  return { model: prepared, notes: [...simplified.notes, ...notes] };
}

/** Weights by name, rounded in the forms that they get: what kernels read in 8 bits, and what is stored and computed with in float. */
export interface StaticRounded {
  readonly kernels: RoundedWeights;
  readonly stored: RoundedWeights;
}

export interface StaticResult {
  readonly model: Model;
  readonly layers: readonly CorrectableLayer[];
  /** Names of the nodes that multiply with weights or each other in 8 bits, in order. */
  readonly computeLayers: readonly string[];
  readonly plan: QuantizationPlan;
  /** Names of the nodes that stay in float for speed. */
  readonly slower: readonly string[];
  /** The weights that kernels read in 8 bits, and what decided how. */
  readonly weights: Emission["weights"];
  readonly notes: readonly Note[];
}

/** The range of what was not calibrated. */
const UNKNOWN: Range = { min: -1, max: 1 };

/** The code of what stays in float for speed. */
export const SLOWER = "slower";

/**
 * A quantized copy of `model`. Nothing is computed yet: weights are rounded when their bytes are asked for. Without a calibration the result has
 * the structure that one of ordinary activations gives, and ranges that mean nothing.
 */
export function quantizeStatic(
  model: Model,
  calibration: Calibration | undefined,
  options: StaticOptions,
): StaticResult {
  const { finish, marked: _, results: __, storage: ___, ...result } = placeStatic(model, calibration, options, options);
  return { ...result, ...finish(result.model) };
}

export interface PlacedStatic extends Omit<StaticResult, "notes" | "plan">, Pick<Emission, "marked" | "results"> {
  /** What becomes of the weights that are still in float, of `model`. */
  readonly storage: (views: WeightViews) => readonly WeightDecision[];
  /** Stores the weights that are still in float, of this model or a copy, and says what became of every node. */
  readonly finish: (model: Model) => Pick<StaticResult, "notes" | "plan">;
}

/** The same without what comes last: float weights are not stored yet. With `marked` weights none is rounded. */
export function placeStatic(
  model: Model,
  calibration: Calibration | undefined,
  options: StaticOptions,
  weightOptions: QdqScheme["weights"],
): PlacedStatic {
  const ranges = calibration && rangesOf(calibration, options);
  const { pattern } = options;
  const symmetric = pattern?.symmetric === true;
  const codes = codeRange(options.activationDType, { symmetric });
  const stretched = calibration ? nodesInFloat(stretchedIn(model, calibration), options.stretched) : [];
  const kernels = slowerKernels(calibration, options);
  const excludeNodes = new Map([...kernels.nodes, ...stretched, ...(options.excludeNodes ?? [])]);
  const elementsOf = calibration && elementsIn(calibration);
  const computedSums = new Set<string>();
  for (;;) {
    const copy = model.clone();
    const placement = placeQuantizers(copy, { ...placementOptions(options), excludeNodes, elementsOf, computedSums });
    if (calibration && excludeUnseen(placement, calibration, excludeNodes)) continue;
    if (kernels.costs && excludeSlower(placement, kernels.costs, excludeNodes)) continue;
    const found = new Map<string, Range>();
    for (const entry of placement.values.values())
      if (entry.leaf) found.set(entry.value.name, ranges?.of(entry) ?? UNKNOWN);
    const { params, inexpressible } = activationParams(placement, found, codes, options.given, symmetric);
    if (inexpressible.size > 0) {
      for (const name of inexpressible) computedSums.add(name);
      continue;
    }
    for (const { node, quantized } of placement.units) {
      const shift = options.biasShifts?.get(node.name);
      // A layer that stays in float has nothing to make up for.
      if (quantized && shift) shiftBias(node, shift);
    }
    const placed = notesOf(placement, options);
    const layers = correctableLayers(placement);
    const computeLayers = placement.units
      .filter(({ rule, quantized }) => quantized && rule.kind === "compute")
      .map(({ node }) => node.name);
    const { activationDType: dtype } = options;
    const values = [...params].map(([{ name }, { scale, zeroPoint }]) => [name, { dtype, scale, zeroPoint }] as const);
    const nodes = new Map(placement.units.map(({ node }) => [node.name, node]));
    const maximaOf = (name: string) => calibration && channelMaxima(name, calibration);
    const emission = emitQdq(copy, placement, params, maximaOf, {
      activationDType: dtype,
      weights: weightOptions,
      rounded: options.rounded?.kernels,
      biases: pattern?.biases,
    });
    // However many values are used, those on both sides of 0 are a step apart.
    const scheme = { ...kernelScheme(options), symmetric: true };
    const multiplied = emission.weights.flatMap(({ name, readers }) =>
      readers.map((reader) => ({ name, node: nodes.get(reader)!.label, scheme, storage: QUANTIZED })),
    );
    // The forms of what is stored are fast in onnxruntime.
    const stored = pattern && { onlyAsked: true };
    const storing = { ...options, ...stored, excludeNodes };
    const storage = (views: WeightViews) => planFloatWeights(copy, views, storing);
    const finish = (quantized: Model) => {
      const { notes, uses } = storeFloatWeights(quantized, placed, storing);
      checkInvariants(quantized, "static quantization");
      const plan: QuantizationPlan = {
        values: Object.fromEntries(values),
        weights: weightsOf([...multiplied, ...uses]),
        nodes: nodesOf(notes),
        results: Object.fromEntries(emission.results),
      };
      return { notes: [...notes, ...lostRoundings(emission.weights, nodes, weightOptions)], plan };
    };
    const slow = placement.units.filter(({ quantized, reason }) => !quantized && reason?.code === SLOWER);
    const slower = slow.map(({ node }) => node.name);
    return { model: copy, layers, computeLayers, slower, ...emission, storage, finish };
  }
}

/** Layers of which some weights could not stay as they were rounded for samples. */
function lostRoundings(
  weights: Emission["weights"],
  nodes: ReadonlyMap<string, Node>,
  options: QdqScheme["weights"],
): Note[] {
  if (options === "marked") return [];
  return weights.flatMap(({ weight, context, readers }) => {
    const lost = lostChannels(weight, context, options);
    if (lost === 0) return [];
    const all = weight.dims[context.layout.axis]!;
    const where = options.perChannel ? `In ${lost} of ${all} channels` : "In all channels, which share one scale,";
    const message = `${where} its weights are rounded to the nearest after all: a bias does not fit the scale that they were rounded at.`;
    return readers.map((reader) => noteOn(nodes.get(reader)!, "simplified", "rounding_lost", message));
  });
}

function placementOptions({ excludeNodes, isExcluded, pattern }: StaticOptions): PlacementOptions {
  return { ...(excludeNodes && { excludeNodes }), ...(isExcluded && { isExcluded }), ...(pattern && { pattern }) };
}

/** The largest value of each channel of a value that meets weights. */
function channelMaxima(name: string, { channels, derived }: Calibration): Float64Array | undefined {
  const { base, factor, shift } = derived.get(name) ?? { base: name, factor: 1, shift: 0 };
  return channels.get(base)?.max.map((max) => factor * max + shift);
}

/** Nodes in front of operators that stretch what was seen of them. */
export function stretchedIn(model: Model, { activations }: Calibration): StretchedGroup[] {
  return stretchedGroups(model, (name) => activations.get(name));
}

const UNSEEN: FloatNode = {
  code: "not_reached",
  message: "Calibration never reached it, so its range is not known.",
  storesWeights: true,
};
const NON_FINITE: FloatNode = {
  code: "non_finite",
  message: "It computes infinities or NaN, which have no code.",
  storesWeights: true,
};

/** Excludes units next to values that have no usable range; answers whether there were any. */
function excludeUnseen(placement: Placement, calibration: Calibration, excludeNodes: Map<string, FloatNode>): boolean {
  let found = false;
  for (const { value, leaf } of placement.values.values()) {
    const histogram = observationOf(value.name, calibration)?.seen.histogram;
    if (!leaf || (histogram && histogram.nonFinite === 0 && histogram.count > 0)) continue;
    for (const { node } of unitsAround(value, placement)) {
      excludeNodes.set(node.name, histogram?.nonFinite ? NON_FINITE : UNSEEN);
      found = true;
    }
  }
  return found;
}

/** How many elements values have in one run, as calibration has seen them. */
export function elementsIn(calibration: Calibration): ElementsOf {
  return ({ name }) => {
    const count = observationOf(name, calibration)?.seen.elements;
    return count && count / calibration.batches;
  };
}

/** The costs that placements keep to, and what stays in float in any case; nothing of it without a calibration, which tells sizes. */
function slowerKernels(
  calibration: Calibration | undefined,
  { floatWhereSlower: by }: StaticOptions,
): { readonly costs: KernelCosts | undefined; readonly nodes: ReadonlyMap<string, FloatNode> } {
  const nodes = (by && "nodes" in by && by.nodes) || new Map<string, FloatNode>();
  if (!calibration || by === undefined) return { costs: undefined, nodes };
  const elementsOf = elementsIn(calibration);
  if ("table" in by) return { costs: predictedCosts(by.table, elementsOf), nodes };
  return { costs: by.costs && measuredCosts(by.costs, elementsOf), nodes };
}

/** Excludes what 8 bits slow down by these costs; answers whether there was anything. */
function excludeSlower(placement: Placement, costs: KernelCosts, excludeNodes: Map<string, FloatNode>): boolean {
  const slower = slowerNodes(placement, costs);
  for (const [name, why] of slower) excludeNodes.set(name, why);
  return slower.size > 0;
}

/**
 * The nodes of a placement that should compute in float by these costs, by name. What was one node for the user stays in one kind of arithmetic, so that
 * it can be asked for by name.
 */
export function slowerNodes(placement: Placement, costs: KernelCosts): Map<string, FloatNode> {
  const slower = new Map<string, FloatNode>();
  for (const { units, floatUs, int8Us } of slowParts(placement, costs)) {
    const message = `Where it is, 8 bits are ${costs.basis} to take ${(int8Us / floatUs).toFixed(1)} times as long as float.`;
    for (const { node } of units) {
      for (const label of node.origins) slower.set(label, { code: SLOWER, message, storesWeights: true });
    }
  }
  return new Map(
    placement.units.flatMap(({ node, quantized }): [string, FloatNode][] => {
      const why = quantized ? node.origins.map((label) => slower.get(label)).find((it) => it) : undefined;
      return why ? [[node.name, why]] : [];
    }),
  );
}

/** Where all that has usable ranges computes in 8 bits: on a copy of `model`. */
export function placeEverywhere(model: Model, calibration: Calibration, options: StaticOptions): Placement {
  const stretched = nodesInFloat(stretchedIn(model, calibration), options.stretched);
  const excludeNodes = new Map([...stretched, ...(options.excludeNodes ?? [])]);
  const elementsOf = elementsIn(calibration);
  for (;;) {
    const placement = placeQuantizers(model.clone(), { ...placementOptions(options), excludeNodes, elementsOf });
    if (!excludeUnseen(placement, calibration, excludeNodes)) return placement;
  }
}

/** Quantized units that make or read a value. */
function unitsAround(value: Value, { units, aliases }: Placement): Unit[] {
  return units.filter(
    ({ node, rule, outputs, quantized }) =>
      quantized &&
      (outputs.includes(value) ||
        rule.activations(node).some((index) => {
          const input = node.inputs[index];
          return input && (aliases.get(input)?.base ?? input) === value;
        })),
  );
}
