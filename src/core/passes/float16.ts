/**
 * Conversion to float16: weights, and the computation on them, in half the bytes.
 *
 * Every node that has float32 inputs or outputs is either converted or kept. A value is float16 when a converted node makes it; where a
 * node wants the other type a Cast stands between, one for each value. Bodies of If, Loop and Scan agree with the node that runs them:
 * what crosses their border is float16 when that node is converted.
 *
 * onnxruntime has few float16 kernels for CPUs and casts around the others: there the file is half the size, and not faster.
 */
import { type DType, dtypeOfOnnx, onnxOfDtype } from "../onnx/dtype.ts";
import type { Attr, Graph, Model, Node, NodeInit, Value } from "../onnx/ir.ts";
import { arrayOf, deriveTensors, elementCount, tensorOf } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import { removeDeadCode } from "./dead-code.ts";
import { MAX_HALF } from "./float16-exact.ts";
import { type Kept, keptInFloat32, pinnedInputs, pinnedOutputs } from "./float16-keep.ts";
import type { KeptReason } from "./float16-policy.ts";
import { MAX_ACTIVATION, MIN_NORMAL, unfitReason, type ValueRanges } from "./float16-range.ts";
import { bypassIdentities } from "./identity.ts";
import { EXCLUDED, type Exclusions, exclusionTest, type NoteSink, noteOn, type Pass } from "./pass.ts";
import { sealWeights } from "./simplify.ts";
import { bodyInputs, bodyOutputOffset, type DTypes, inferDTypes } from "./value-dtypes.ts";

export interface Float16Options {
  /** The model's own inputs and outputs stay float32. */
  readonly keepIo: boolean;
  readonly exclude: Exclusions;
  /** What values were on samples: those that float16 cannot hold stay float32, with the nodes on both sides of them. */
  readonly ranges?: ValueRanges | undefined;
}

/** The smallest number above zero. */
const MIN_HALF = 2 ** -24;
/** Constants of so few elements are parameters of a formula (an epsilon), which must not become zero. */
const MAX_PARAMETER_ELEMENTS = 4;

export function float16Pass(options: Float16Options): Pass {
  return {
    name: "float16",
    run: (model, note) => {
      const sealed = sealWeights.run(model, note);
      nameTypes(model);
      const converted = new Conversion(model, options, note).run();
      // A file of ai.onnx.ml alone does not import the domain that Cast is from.
      if (converted && !model.opsets.has("")) model.requireOpset("", opsetOf(model.irVersion));
      return converted || sealed;
    },
  };
}

/**
 * CastLike, which has no float16 form, becomes a Cast to the type that it takes from another value. A cast of float32 to itself becomes an
 * Identity: onnxruntime 1.30 does not load one of float16 to itself.
 */
function nameTypes(model: Model): void {
  const casts = [...model.nodes()].filter(({ domain, opType }) => domain === "" && /^Cast(Like)?$/.test(opType));
  const types = casts.length > 0 ? inferDTypes(model) : undefined;
  for (const node of casts) {
    const [value, like] = node.inputs;
    const [result] = node.outputs;
    const dtype = types?.get(result!);
    const isIdentity = dtype !== undefined && value !== undefined && types?.get(value) === dtype;
    if (!dtype || (like === undefined && !isIdentity)) continue;
    const attrs: Record<string, Attr> = {
      ...Object.fromEntries(node.attrs),
      to: { type: "int", value: onnxOfDtype(dtype) },
    };
    const { name } = node;
    const cast = node.graph.insertBefore(node, {
      ...{ name, inputs: [value], outputs: 1, standsFor: node },
      ...(isIdentity ? { opType: "Identity" } : { opType: "Cast", attrs }),
    });
    cast.outputs[0]!.retype(dtype, result!.shape);
    node.graph.replaceUses(result!, cast.outputs[0]!);
    node.graph.remove(node);
  }
}

/** The first version of ai.onnx that goes with a version of the file format, from version 8 on. */
const OPSETS = [15, 19, 21, 23];

function opsetOf(irVersion: number): number {
  return irVersion < 8 ? 10 : (OPSETS[irVersion - 8] ?? OPSETS.at(-1)!);
}

class Conversion {
  readonly #model: Model;
  readonly #options: Float16Options;
  readonly #note: NoteSink;
  readonly #types: DTypes;
  readonly #kept: Kept;
  readonly #half = new Set<Node>();
  /** The same value in the other type. */
  readonly #casts = new Map<Value, Value>();
  readonly #constants = new Map<Value, Value>();
  readonly #magnitudes = new Map<Value, Magnitudes>();
  #limits: readonly Value[] | undefined;

  constructor(model: Model, options: Float16Options, note: NoteSink) {
    this.#model = model;
    this.#options = options;
    this.#note = note;
    this.#types = inferDTypes(model);
    this.#kept = keptInFloat32(model, this.#types);
  }

  run(): boolean {
    this.#choose();
    const { inputs, outputs } = this.#model.graph;
    const isIo = [...inputs, ...outputs].some((value) => this.#isFloat32(value) && !value.constant);
    if (this.#half.size === 0 && (this.#options.keepIo || !isIo)) {
      const name = this.#model.graph.name || "model";
      this.#note({
        outcome: "skipped",
        name,
        op: "",
        code: "no_float32",
        message: "There is nothing in float32 to convert.",
      });
      return false;
    }
    // Casts are inserted on the way, in outer graphs too.
    const graphs = [...this.#model.graphs()];
    for (const graph of graphs) for (const node of [...graph.nodes]) this.#convert(node);
    for (const graph of graphs) this.#convertOutputs(graph);
    for (const [value, dtype] of this.#types) {
      if (this.#isHalf(value)) value.retype("float16");
      else value.dtype ??= dtype;
    }
    // A model that computes in float16 already has Casts on its border, which now cast a type to itself.
    bypassIdentities.run(this.#model, this.#note);
    removeDeadCode.run(this.#model, this.#note);
    for (const [old, half] of this.#constants) if (old.uses.length === 0 && !old.isGraphOutput) half.name = old.name;
    return true;
  }

  // ---- which nodes -------------------------------------------------------------------------------------------------

  #choose(): void {
    const { exclude } = this.#options;
    const isExcluded = exclusionTest(exclude);
    const visit = (graph: Graph, inExcluded: boolean): void => {
      for (const node of graph.nodes) {
        const excluded = inExcluded || isExcluded(node);
        if (this.#touchesFloat32(node)) {
          const reason = excluded ? EXCLUDED : (this.#kept.nodes.get(node) ?? this.#otherReason(node));
          if (!reason) this.#half.add(node);
          else if (reason.message !== "" && !inExcluded)
            this.#note(noteOn(node, "skipped", reason.code, reason.message));
        }
        for (const body of node.bodies()) visit(body, excluded);
      }
    };
    visit(this.#model.graph, false);
  }

  #otherReason(node: Node): KeptReason | undefined {
    const { ranges } = this.#options;
    const unfit = ranges && unfitReason(node, ranges);
    if (unfit) return unfit;
    if (node.bodies().some((body) => !this.#agrees(node, body))) {
      return { code: "unknown_type", message: "The types at the border of its body are not known." };
    }
    for (const [index, value] of node.inputs.entries()) {
      if (!value || !this.#isConstant(value) || pinnedInputs(node).includes(index)) continue;
      const { largest, overflow } = this.#magnitudesOf(value);
      if (largest > 0 && largest < MIN_NORMAL && isFactor(node, index)) {
        const message = `"${value.name}" holds at most ${largest.toPrecision(3)}, and float16 loses digits below ${MIN_NORMAL.toPrecision(3)}.`;
        return { code: "weight_underflow", message };
      }
      if (overflow === Number.POSITIVE_INFINITY) continue;
      // A limit that no number of float16 reaches is no limit there either.
      if (operatorOf(node)?.limits) continue;
      return {
        code: "weight_overflow",
        message: `"${value.name}" holds ${largest.toPrecision(6)}, and float16 ends at ${MAX_HALF}.`,
      };
    }
    return undefined;
  }

  #touchesFloat32(node: Node): boolean {
    if (node.isConstant) return false;
    return [...node.inputs, ...node.outputs].some((value) => this.#isFloat32(value));
  }

  /** Whether what a body takes and gives is float32 on both sides of its border, or on neither. */
  #agrees(node: Node, body: Graph): boolean {
    const offset = bodyOutputOffset(node);
    const pairs = [
      ...bodyInputs(node, body),
      ...node.outputs.map((value, i) => [body.outputs[i + offset], value] as const),
    ];
    return pairs.every(
      ([inside, outside]) => !inside || !outside || this.#isFloat32(inside) === this.#isFloat32(outside),
    );
  }

  /** Read once for each constant: the only thing that this pass must know of weights before they are written. */
  #magnitudesOf(value: Value): Magnitudes {
    const known = this.#magnitudes.get(value) ?? magnitudes(value);
    this.#magnitudes.set(value, known);
    return known;
  }

  // ---- types -------------------------------------------------------------------------------------------------------

  #isFloat32(value: Value | undefined): boolean {
    return value !== undefined && this.#types.get(value) === "float32";
  }

  /** Constants have no type of their own here: each reader gets the one it wants. */
  #isConstant(value: Value): boolean {
    return value.constant?.dtype === "float32" && !value.graph.isOverridable(value);
  }

  #isHalf(value: Value): boolean {
    if (!this.#isFloat32(value) || value.constant) return false;
    const { producer, graph } = value;
    if (producer) return this.#half.has(producer) && !pinnedOutputs(producer).includes(producer.outputs.indexOf(value));
    if (!graph.inputs.includes(value)) return false;
    return graph.owner ? this.#half.has(graph.owner) : !this.#options.keepIo;
  }

  // ---- the rewrite -------------------------------------------------------------------------------------------------

  #convert(node: Node): void {
    const half = this.#half.has(node);
    const pinned = pinnedInputs(node);
    let weights = false;
    for (const [index, value] of node.inputs.entries()) {
      if (!value || !this.#isFloat32(value)) continue;
      const wanted = half && !pinned.includes(index);
      if (this.#isConstant(value)) {
        if (!wanted) continue;
        node.setInput(index, this.#halfConstant(value));
        weights ||= elementCount(value.constant!.dims) > MAX_PARAMETER_ELEMENTS;
      } else if (this.#isHalf(value) !== wanted) node.setInput(index, this.#cast(value));
    }
    if (half)
      convertAttributes(
        node,
        node.outputs.some((value) => this.#isHalf(value)),
      );
    if (weights) this.#note(noteOn(node, "changed", "float16", "Weights and computation are float16."));
  }

  /** Outputs of a graph in the types that the outside expects. */
  #convertOutputs(graph: Graph): void {
    const { owner } = graph;
    const wanted = owner ? this.#half.has(owner) : !this.#options.keepIo;
    const outputs = graph.outputs.map((value) => {
      if (!this.#isFloat32(value) || (!owner && value.constant)) return value;
      if (this.#isConstant(value)) return wanted ? this.#halfConstant(value) : value;
      if (this.#isHalf(value) === wanted) return value;
      return owner ? this.#castIn(graph, value) : this.#renamedCast(value);
    });
    for (const value of [...graph.outputs]) graph.removeOutput(value);
    for (const value of outputs) graph.addOutput(value);
  }

  /** A Cast that gives a model's output out in the type asked for, under its name; what reads it inside the model reads the other value. */
  #renamedCast(value: Value): Value {
    const { name, source, shape } = value;
    const output = this.#castIn(this.#model.graph, value);
    value.name = output.name;
    output.name = name;
    output.retype(this.#options.keepIo ? "float32" : "float16", shape);
    if (this.#options.keepIo) output.source = source;
    return output;
  }

  #castIn(graph: Graph, value: Value): Value {
    const limited = this.#mustLimit(value) ? graph.append(this.#limitNode(value)).outputs[0]! : value;
    return this.#typed(graph.append(this.#castNode(value, limited)).outputs[0]!, value);
  }

  /** `cast` with the type that `value` is cast to. */
  #typed(cast: Value, value: Value): Value {
    cast.retype(this.#isHalf(value) ? "float32" : "float16", value.shape);
    return cast;
  }

  #cast(value: Value): Value {
    const known = this.#casts.get(value);
    if (known) return known;
    const { graph, producer } = value;
    const insert = (init: NodeInit): Value =>
      (producer ? graph.insertAfter(producer, init) : graph.insertBefore(graph.nodes[0]!, init)).outputs[0]!;
    // What is inserted after the producer last comes first.
    const cast = this.#typed(insert(this.#castNode(value, value)), value);
    if (this.#mustLimit(value)) cast.producer!.setInput(0, insert(this.#limitNode(value)));
    this.#casts.set(value, cast);
    return cast;
  }

  #castNode(value: Value, input: Value): NodeInit {
    const to: DType = this.#isHalf(value) ? "float32" : "float16";
    const attrs: Record<string, Attr> = { to: { type: "int", value: onnxOfDtype(to) } };
    return { opType: "Cast", inputs: [input], outputs: [this.#model.freshName(`${value.name}_${to}`)], attrs };
  }

  /** Whether a value has to be brought into the range of float16 before it is cast: what is infinite there was a number here. */
  #mustLimit(value: Value): boolean {
    if (this.#isHalf(value)) return false;
    return this.#kept.wide.has(value) || (this.#options.ranges?.get(value.name)?.largest ?? 0) > MAX_ACTIVATION;
  }

  #limitNode(value: Value): NodeInit {
    const outputs = [this.#model.freshName(`${value.name}_limited`)];
    if (this.#model.opset < 11) {
      const attrs: Record<string, Attr> = {
        min: { type: "float", value: -MAX_HALF },
        max: { type: "float", value: MAX_HALF },
      };
      return { opType: "Clip", inputs: [value], outputs, attrs };
    }
    this.#limits ??= [-MAX_HALF, MAX_HALF].map((limit) =>
      this.#model.graph.addInitializer("float16_limit", tensorOf("float32", [], [limit])),
    );
    return { opType: "Clip", inputs: [value, ...this.#limits], outputs };
  }

  #halfConstant(value: Value): Value {
    const known = this.#constants.get(value);
    if (known) return known;
    const constant = value.constant!;
    const clamped = this.#magnitudesOf(value).overflow < Number.POSITIVE_INFINITY;
    const { half } = deriveTensors({ half: { dtype: "float16", dims: constant.dims } }, () => ({
      half: halfBytes(arrayOf(constant, "float32"), clamped),
    }));
    const converted = value.graph.addInitializer(`${value.name}_float16`, half);
    this.#constants.set(value, converted);
    return converted;
  }
}

/** Whether the result is in proportion to input `index`, so that digits lost there are lost. */
function isFactor(node: Node, index: number): boolean {
  return node.opType === "Mul" || node.opType === "Div" || (index === 1 && operatorOf(node)?.estimates === true);
}

/** Attributes that name the type an operator gives out. */
function convertAttributes(node: Node, givesHalf: boolean): void {
  if (node.domain !== "" || !givesHalf) return;
  const rule = operatorOf(node)?.results?.[0];
  if (typeof rule === "object") {
    const given = node.int(rule.attribute);
    const dtype = given === undefined ? rule.otherwise : dtypeOfOnnx(given);
    if (dtype === "float32") node.setAttr(rule.attribute, { type: "int", value: onnxOfDtype("float16") });
  }
  if (node.opType === "ConstantOfShape") {
    const value = node.tensor("value");
    const number = value ? arrayOf(value, "float32")[0]! : 0;
    node.setAttr("value", { type: "tensor", value: tensorOf("float16", [1], [number]) });
  }
}

interface Magnitudes {
  /** Of the finite elements. */
  readonly largest: number;
  /** The smallest that float16 cannot hold; infinity when there is none. */
  readonly overflow: number;
}

function magnitudes(value: Value): Magnitudes {
  const { buffer, byteOffset, length } = arrayOf(value.constant!, "float32");
  const bits = new Int32Array(buffer, byteOffset, length);
  const INFINITY_BITS = 0x7f800000;
  const MAX_HALF_BITS = 0x477fe000;
  let largest = 0;
  let overflow = INFINITY_BITS;
  for (let i = 0; i < length; i++) {
    const magnitude = bits[i]! & 0x7fffffff;
    if (magnitude > largest && magnitude < INFINITY_BITS) largest = magnitude;
  }
  if (largest > MAX_HALF_BITS) {
    for (let i = 0; i < length; i++) {
      const magnitude = bits[i]! & 0x7fffffff;
      if (magnitude > MAX_HALF_BITS && magnitude < overflow) overflow = magnitude;
    }
  }
  const [a, b] = new Float32Array(Int32Array.of(largest, overflow).buffer) as unknown as [number, number];
  return { largest: a, overflow: b };
}

/** Rounded to nearest even. Parameters of formulas stay apart from zero, and with `clamped` finite values stay finite. */
function halfBytes(values: Float32Array, clamped: boolean): Uint8Array {
  const half = new Float16Array(values.length);
  half.set(values);
  const parameters = values.length <= MAX_PARAMETER_ELEMENTS;
  for (let i = 0; (clamped || parameters) && i < half.length; i++) {
    const value = values[i]!;
    if (Math.abs(value) > MAX_HALF && Number.isFinite(value)) half[i] = Math.sign(value) * MAX_HALF;
    else if (parameters && value !== 0 && half[i] === 0) half[i] = Math.sign(value) * MIN_HALF;
  }
  return new Uint8Array(half.buffer);
}
