/**
 * Writes a placement into the graph as pairs of QuantizeLinear and DequantizeLinear: the float model with rounding in it, in standard
 * operators, which onnxruntime turns into integer kernels when it loads the model.
 */
import { CoreError } from "../../errors.ts";
import type { Graph, Model, Node, Value } from "../../onnx/ir.ts";
import { type Tensor, tensorOf } from "../../onnx/tensor.ts";
import { parameterOf } from "../../operators/operators.ts";
import { type AffineParams, codeRange } from "../params.ts";
import { giveBodiesCodes } from "./body-readers.ts";
import { type BiasUse, quantizeWeight, type WeightContext, type WeightOptions } from "./channel-weights.ts";
import type { ChannelMaxima, Emission, EmittedWeight, MarkedWeight, QdqScheme, ResultNames } from "./emission.ts";
import { scalarOf, type WeightOperand } from "./operators.ts";
import type { Placement, QuantizedValue } from "./placement.ts";
import { addStoredWeight } from "./stored-weights.ts";
import { biasOf, subtractNegatedBias } from "./unit-bias.ts";
import type { Unit } from "./units.ts";

/** Per-axis QuantizeLinear and DequantizeLinear exist since this version. */
export const MIN_OPSET = 13;

/**
 * Quantizes `model` in place. `params` has scale and zero point of every quantized value and alias of the placement, which was made from
 * this very model and is of no use afterwards. The names in the answer are those of values whose rounded form is all that others read;
 * other values keep theirs, as far as they are still there.
 */
export function emitQdq(
  model: Model,
  placement: Placement,
  params: ReadonlyMap<Value, AffineParams>,
  channelMaxima: ChannelMaxima,
  scheme: QdqScheme,
): Emission {
  if (model.opset < MIN_OPSET) {
    throw new CoreError("internal", `Q/DQ needs operator set ${MIN_OPSET}; the model has ${model.opset}.`);
  }
  return new Emitter(model, placement, params, channelMaxima, scheme).emit();
}

interface SharedWeight {
  readonly weight: Value;
  readonly operand: WeightOperand;
  readonly readers: { readonly unit: Unit; readonly input: Value; readonly inputScale: number }[];
}

/** How far beyond the largest value seen in calibration a channel may go before products can saturate. */
const CODE_MARGIN = 1.1;

/**
 * Names of what pairs add. There are hundreds of them, each named several times: with long names, and names for the nodes, a small network is a
 * tenth larger.
 */
const NAMES = { codes: "q", dequantized: "d", scale: "s", zeroPoint: "z" } as const;

/** Inputs of nodes that read integers. */
type ActivationUses = Map<Node, ReadonlySet<number>>;

class Emitter {
  readonly #model: Model;
  readonly #placement: Placement;
  readonly #params: ReadonlyMap<Value, AffineParams>;
  readonly #channelMaxima: ChannelMaxima;
  readonly #scheme: QdqScheme;
  readonly #activations: ActivationUses = new Map();
  /** What Q reads instead of a unit's result, and its scale in units of the result's. */
  readonly #lowered = new Map<Value, { readonly source: Value; readonly factor: number }>();
  readonly #codes = new Map<Value, Value>();
  readonly #dequantized = new Map<Graph, Map<Value, Value>>();
  readonly #constants = new Map<string, Value>();
  readonly #emitted: EmittedWeight[] = [];
  readonly #marked: MarkedWeight[] = [];

  constructor(
    model: Model,
    placement: Placement,
    params: ReadonlyMap<Value, AffineParams>,
    channelMaxima: ChannelMaxima,
    scheme: QdqScheme,
  ) {
    this.#model = model;
    this.#placement = placement;
    this.#params = params;
    this.#channelMaxima = channelMaxima;
    this.#scheme = scheme;
  }

  emit(): Emission {
    const { values, aliases } = this.#placement;
    // A value that takes over an output takes its name too.
    const originalNames = new Map([...values.keys(), ...aliases.keys()].map((value) => [value, value.name]));
    const units = this.#placement.units.filter((unit) => unit.quantized);
    const weights = this.#weights(units);
    for (const { node, rule } of units) this.#activations.set(node, new Set(rule.activations(node)));
    for (const unit of units) if (unit.node.opType === "HardSigmoid") this.#lowerHardSigmoid(unit);
    for (const entry of values.values()) this.#insertPair(entry);
    for (const [value, { base }] of aliases) this.#redirect(value, values.get(base)!);
    const { weights: options } = this.#scheme;
    for (const weight of weights) {
      if (options === "marked") this.#markWeight(weight);
      else this.#quantizeWeight(weight, options);
    }
    for (const node of this.#activations.keys()) this.#quantizeConstantOperands(node);
    this.#removeUnread(units);
    giveBodiesCodes(this.#model);
    return { results: this.#results(originalNames), weights: this.#emitted, marked: this.#marked };
  }

  /** Values that are read in rounded form only, and what their readers read. */
  #results(originalNames: ReadonlyMap<Value, string>): ResultNames {
    const results = new Map<string, string>();
    for (const [value, name] of originalNames) {
      const rounded = this.#dequantized.get(value.graph)?.get(value);
      if (!rounded || value.isGraphOutput || (rounded.uses.length === 0 && !rounded.isGraphOutput)) continue;
      const quantize = this.#codes.get(this.#placement.aliases.get(value)?.base ?? value)?.producer;
      if (value.uses.every(({ node }) => node === quantize)) results.set(name, rounded.name);
    }
    return results;
  }

  // ---- activations -------------------------------------------------------------------------------------------------

  #insertPair(entry: QuantizedValue): void {
    const { value, source } = entry;
    const { source: read, factor } = this.#lowered.get(source) ?? { source, factor: 1 };
    const { scale, zeroPoint } = this.#params.get(value)!;
    const init = {
      opType: "QuantizeLinear",
      inputs: [read, this.#scale(read.graph, scale * factor), this.#zeroPoint(read.graph, zeroPoint)],
      outputs: [read.graph.model.freshName(NAMES.codes)],
    };
    const quantize = read.producer ? read.graph.insertAfter(read.producer, init) : read.graph.prepend(init);
    this.#codes.set(value, quantize.outputs[0]!);
    this.#redirect(value, entry);
  }

  /** Lets those who should read codes, or everyone if there is nothing else, read `value` (an alias, maybe) from the codes of `entry`. */
  #redirect(value: Value, entry: QuantizedValue): void {
    const codes = this.#codes.get(entry.value)!;
    for (const { node, index } of [...value.uses]) {
      if (node === codes.producer) continue;
      if (entry.integer || this.#activations.get(node)?.has(index)) {
        node.setInput(index, this.#dequantize(value, codes, node.graph));
      }
    }
    if (!entry.integer || !value.isGraphOutput) return;
    value.graph.replaceUses(value, this.#dequantize(value, codes, value.graph));
    if (value === entry.source) codes.producer!.setInput(0, value);
  }

  /** `value` out of its codes, in `graph`; made once. */
  #dequantize(value: Value, codes: Value, graph: Graph): Value {
    const made = this.#dequantized.get(graph) ?? new Map<Value, Value>();
    this.#dequantized.set(graph, made);
    const existing = made.get(value);
    if (existing) return existing;
    const { scale, zeroPoint } = this.#params.get(value)!;
    const init = {
      opType: "DequantizeLinear",
      inputs: [codes, this.#scale(codes.graph, scale), this.#zeroPoint(codes.graph, zeroPoint)],
      outputs: [graph.model.freshName(NAMES.dequantized)],
    };
    const node = graph === codes.graph ? graph.insertAfter(codes.producer!, init) : graph.prepend(init);
    made.set(value, node.outputs[0]!);
    return node.outputs[0]!;
  }

  /** max(0, min(1, α·x + β)) is α times the sum x + β/α when that saturates at 0 and 1/α. */
  #lowerHardSigmoid({ node, result }: Unit): void {
    const alpha = parameterOf(node, "alpha");
    const shift = node.graph.addInitializer(`${node.label}_shift`, scalar(parameterOf(node, "beta") / alpha));
    const add = node.graph.insertBefore(node, {
      opType: "Add",
      name: node.name,
      standsFor: node,
      inputs: [node.inputs[0], shift],
      outputs: [node.graph.model.freshName(`${result.name}_shifted`)],
    });
    this.#activations.set(add, new Set([0]));
    this.#lowered.set(result, { source: add.outputs[0]!, factor: 1 / alpha });
  }

  // ---- constants ---------------------------------------------------------------------------------------------------

  /** Weights, each with the units that read it along the same axis and so share its codes. */
  #weights(units: readonly Unit[]): SharedWeight[] {
    const groups = new Map<string, SharedWeight>();
    for (const unit of units) {
      const operand = unit.rule.weight?.(unit.node);
      if (!operand) continue;
      const weight = unit.node.inputs[operand.input]!;
      const input = unit.node.inputs[unit.rule.activations(unit.node)[0]!]!;
      const key = `${operand.axis} ${operand.groups} ${weight.name}`;
      const group = groups.get(key) ?? { weight, operand, readers: [] };
      group.readers.push({ unit, input, inputScale: this.#params.get(input)!.scale });
      groups.set(key, group);
    }
    return [...groups.values()];
  }

  /**
   * The bias stays as it is where the output is quantized: onnxruntime rounds it to the int32 that the kernel takes, at load, for which the scale of
   * the weight has been chosen. A kernel that gives out float takes codes only. Other runtimes may want it one way throughout.
   */
  #quantizeWeight({ weight, operand, readers }: SharedWeight, options: WeightOptions): void {
    const uses = readers.map(({ unit, inputScale }): BiasUse => ({ bias: biasOf(unit)?.constant, inputScale }));
    const inputLimits = largestOf(readers.map(({ input }) => this.#inputLimits(input)));
    const rounded = this.#scheme.rounded?.get(weight.name);
    const context: WeightContext = { layout: operand, uses, inputLimits, rounded };
    const quantized = quantizeWeight(weight.constant!, context, options);
    this.#emitted.push({
      name: weight.name,
      weight: weight.constant!,
      context,
      input: operand.input,
      readers: readers.map(({ unit }) => unit.node.name),
    });
    const owner = weight.graph;
    const bits = options.unpacked ? 8 : (options.weightBits ?? 8);
    const codes = addStoredWeight(owner, weight.name, quantized.q, bits);
    const scale = owner.addInitializer(`${weight.name}_scale`, quantized.scale);
    const { biases = "kernels" } = this.#scheme;
    readers.forEach(({ unit }, i) => {
      const { node, rule } = unit;
      node.setInput(operand.input, this.#dequantizeConstant(node, codes, scale, operand.axis));
      const isInteger = this.#placement.values.get(unit.outputs[0]!)?.integer;
      if (biases === "float32" || (isInteger && biases !== "int32")) return;
      const bias = quantized.biases[i];
      if (bias && rule.bias !== undefined) {
        const name = biasOf(unit)!.name;
        const biasCodes = owner.addInitializer(`${name}_q`, bias.q);
        const biasScale = owner.addInitializer(`${name}_scale`, bias.scale);
        node.setInput(rule.bias, this.#dequantizeConstant(node, biasCodes, biasScale, 0));
      }
      if (unit.biasAdd && biases === "kernels") subtractNegatedBias(unit);
    });
  }

  #markWeight({ weight, operand, readers }: SharedWeight): void {
    const mark = (node: Node, index: number): string => {
      const input = node.inputs[index]!;
      const marker = node.graph.insertBefore(node, {
        opType: "Identity",
        inputs: [input],
        outputs: [node.graph.model.freshName(`${input.name}_marked`)],
      }).outputs[0]!;
      marker.retype("float32", input.constant!.dims);
      node.setInput(index, marker);
      return marker.name;
    };
    const biases: MarkedWeight["biases"][number][] = [];
    const markers = readers.map(({ unit, input, inputScale }) => {
      const { node, rule } = unit;
      const bias = biasOf(unit);
      if (bias?.constant) {
        const isInteger = this.#placement.values.get(unit.outputs[0]!)?.integer === true;
        // What is added to a product in float is not rounded.
        if (!isInteger && unit.biasAdd) subtractNegatedBias(unit);
        else {
          const marker = rule.bias === undefined || unit.biasAdd ? undefined : mark(node, rule.bias);
          const storage = isInteger ? "float32" : "int32";
          biases.push({ bias: bias.name, inputScale: this.#scale(input.graph, inputScale).name, marker, storage });
        }
      }
      return mark(node, operand.input);
    });
    this.#marked.push({ weight: weight.name, axis: operand.axis, markers, biases });
  }

  /**
   * The largest code of each channel of an activation, counted from the lowest, which is how kernels see signed ones too. With a margin for
   * what calibration has not seen.
   */
  #inputLimits(input: Value): Float64Array | undefined {
    const { scale, zeroPoint } = this.#params.get(input)!;
    const { min, max } = codeRange(this.#scheme.activationDType);
    return this.#channelMaxima(input.name)?.map((largest) => {
      // Padding puts the zero point where there is no value.
      const code = zeroPoint - min + Math.ceil((CODE_MARGIN * Math.max(largest, 0)) / scale);
      return Math.min(code, max - min);
    });
  }

  #dequantizeConstant(reader: Node, codes: Value, scale: Value, axis: number): Value {
    const zeroPoint = this.#constant(
      codes.graph,
      NAMES.zeroPoint,
      tensorOf(codes.dtype as "int8" | "int32", scale.constant!.dims, new Array(scale.constant!.dims[0] ?? 1).fill(0)),
    );
    return reader.graph.insertBefore(reader, {
      opType: "DequantizeLinear",
      inputs: [codes, scale, zeroPoint],
      outputs: [reader.graph.model.freshName(NAMES.dequantized)],
      attrs: scale.constant!.dims.length > 0 ? { axis: { type: "int", value: axis } } : {},
    }).outputs[0]!;
  }

  /** Single numbers among the operands of a pointwise node: the largest code, at a scale that makes it that number. */
  #quantizeConstantOperands(node: Node): void {
    if (node.opType !== "Add" && node.opType !== "Mul") return;
    node.inputs.forEach((input, index) => {
      const number = scalarOf(input);
      if (number === undefined) return;
      const { min, max } = codeRange(this.#scheme.activationDType);
      const code = number < 0 ? min : max;
      const zeroPoint = this.#scheme.activationDType === "uint8" && number < 0 ? max : 0;
      const { graph } = input!;
      const codes = graph.addInitializer(
        `${input!.name}_q`,
        tensorOf(this.#scheme.activationDType, input!.constant!.dims, [code]),
      );
      const dequantize = node.graph.insertBefore(node, {
        opType: "DequantizeLinear",
        inputs: [
          codes,
          this.#scale(graph, number === 0 ? 1 : number / (code - zeroPoint)),
          this.#zeroPoint(graph, zeroPoint),
        ],
        outputs: [graph.model.freshName(NAMES.dequantized)],
      });
      node.setInput(index, dequantize.outputs[0]!);
    });
  }

  #scale(graph: Graph, scale: number): Value {
    return this.#constant(graph, NAMES.scale, scalar(scale));
  }

  #zeroPoint(graph: Graph, zeroPoint: number): Value {
    return this.#constant(graph, NAMES.zeroPoint, tensorOf(this.#scheme.activationDType, [], [zeroPoint]));
  }

  /** An initializer of the main graph or a body; equal ones are made once. */
  #constant(graph: Graph, name: string, tensor: Tensor): Value {
    const key = `${graph.name} ${tensor.dtype} [${tensor.dims}] ${tensor.bytes}`;
    const existing = this.#constants.get(key);
    if (existing && existing.graph === graph) return existing;
    const value = graph.addInitializer(name, tensor);
    this.#constants.set(key, value);
    return value;
  }

  // ---- what is left over -------------------------------------------------------------------------------------------

  #removeUnread(units: readonly Unit[]): void {
    const nodes = new Set<Node>();
    for (const { node } of this.#placement.aliases.values()) nodes.add(node);
    for (const unit of units) {
      for (const node of unit.tail) nodes.add(node);
      if (this.#lowered.has(unit.result)) nodes.add(unit.node);
    }
    for (const made of this.#dequantized.values()) for (const value of made.values()) nodes.add(value.producer!);
    const isUnread = (value: Value) => value.useCount === 0 && !value.isGraphOutput;
    const removeConstant = (value: Value | undefined) => {
      if (!value?.constant || !isUnread(value)) return;
      if (value.producer) value.graph.remove(value.producer);
      else if (value.graph.initializers.has(value)) value.graph.removeInitializer(value);
    };
    for (let removed = true; removed; ) {
      removed = false;
      for (const node of nodes) {
        if (!node.outputs.every(isUnread)) continue;
        const { inputs } = node;
        node.graph.remove(node);
        nodes.delete(node);
        for (const input of inputs) removeConstant(input);
        removed = true;
      }
    }
    for (const graph of [...(units[0]?.node.graph.model.graphs() ?? [])]) {
      for (const value of [...graph.initializers]) removeConstant(value);
      for (const node of [...graph.nodes]) removeConstant(node.outputs[0]);
    }
  }
}

/** Element by element; undefined when nothing is known of one of them. */
function largestOf(limits: readonly (Float64Array | undefined)[]): Float64Array | undefined {
  return limits.reduce((a, b) => a && b && a.map((limit, i) => Math.max(limit, b[i] ?? 255)));
}

function scalar(value: number): Tensor {
  return tensorOf("float32", [], [value]);
}
