/**
 * Computation in float16 and bfloat16 taken to float32, for methods whose arithmetic starts from float32. Every number of either type is a
 * number of float32, so weights stay exactly what they are; what is computed is rounded less than before. The model's inputs and outputs
 * keep their types: a Cast stands behind or before each.
 *
 * A value is float32 when its type was known to be one of the two and no node that has to stay as it is makes it. Operators of unknown
 * domains, and nodes around values whose type is not known (sequences), keep working in the old types, with Casts around them.
 */
import { dtypeOfOnnx, onnxOfDtype } from "../onnx/dtype.ts";
import type { Attr, Graph, Model, Node, Value } from "../onnx/ir.ts";
import { arrayOf, deriveTensors, elementCount, floatsOf, type Tensor } from "../onnx/tensor.ts";
import { removeDeadCode } from "./dead-code.ts";
import { type Note, type NoteSink, type Pass, runPasses } from "./pass.ts";
import { sealWeights } from "./simplify.ts";
import { type DTypes, inferDTypes } from "./value-dtypes.ts";

/** Types whose numbers float32 has all of, in half the bytes. */
const NARROW: ReadonlySet<string> = new Set(["float16", "bfloat16"]);

/** Whether there is anything that `widenFloats` changes: not where only inputs and outputs are narrow, each with its Cast. */
function computesInNarrow(model: Model): boolean {
  return [...inferDTypes(model).values()].some((dtype) => NARROW.has(dtype)) && new Widening(model).isNeeded();
}

export const widenFloats: Pass = {
  name: "widen floats",
  run(model, note) {
    if (!computesInNarrow(model)) return false;
    sealWeights.run(model, note);
    new Widening(model, note).run();
    removeDeadCode.run(model, note);
    return true;
  },
};

/** Attributes that name the type of what an operator gives out. */
const DTYPE_ATTRIBUTES = ["to", "dtype", "output_datatype", "output_dtype", "softmax_precision"] as const;

class Widening {
  readonly #model: Model;
  readonly #types: DTypes;
  readonly #note: NoteSink;
  readonly #kept = new Set<Node>();
  /** The same value in the other type, and constants in float32. */
  readonly #casts = new Map<Value, Value>();
  readonly #constants = new Map<Value, Value>();

  constructor(model: Model, note: NoteSink = () => {}) {
    this.#model = model;
    this.#note = note;
    this.#types = inferDTypes(model);
    for (const node of model.nodes()) if (this.#mustKeep(node) || this.#isBorderCast(node)) this.#kept.add(node);
  }

  /** Whether a value would become float32, or a constant be read as such. */
  isNeeded(): boolean {
    return [...this.#types.keys()].some((value) =>
      this.#isConstant(value)
        ? this.#isNarrow(value) && value.uses.some(({ node }) => !this.#kept.has(node))
        : this.#isWidened(value),
    );
  }

  run(): void {
    const graphs = [...this.#model.graphs()];
    for (const graph of graphs) for (const node of [...graph.nodes]) this.#convert(node);
    for (const graph of graphs) this.#convertOutputs(graph);
    for (const [value] of this.#types) if (this.#isWidened(value)) value.retype("float32");
    this.#note({
      outcome: "changed",
      name: this.#model.graph.name || "model",
      op: "",
      code: "widened",
      message: "Its float16 or bfloat16 is taken to float32 first; inputs and outputs keep their types.",
    });
  }

  #mustKeep(node: Node): boolean {
    if (node.domain === "" && ["If", "Loop", "Scan"].includes(node.opType)) return false;
    if (node.bodies().length > 0 || node.opType === "BitCast" || !["", "com.microsoft"].includes(node.domain))
      return true;
    return [...node.inputs, ...node.outputs].some((value) => value && value.name !== "" && !this.#types.has(value));
  }

  /** A Cast of what the model is given to float32, or of a float32 to what it gives out: what `widenFloats` puts there itself. */
  #isBorderCast(node: Node): boolean {
    const [input] = node.inputs;
    const [output] = node.outputs;
    if (node.opType !== "Cast" || node.domain !== "" || node.graph !== this.#model.graph || !input || !output)
      return false;
    const isGiven = input.producer === undefined && input.graph === this.#model.graph && !this.#isConstant(input);
    if (this.#isNarrow(input)) return isGiven && this.#types.get(output) === "float32";
    return output.isGraphOutput && this.#isNarrow(output) && this.#types.get(input) === "float32";
  }

  #isNarrow(value: Value | undefined): value is Value {
    return value !== undefined && NARROW.has(this.#types.get(value) ?? "");
  }

  /** Constants have no type of their own here: each reader gets the one it wants. */
  #isConstant(value: Value): boolean {
    return value.constant !== undefined && !value.graph.isOverridable(value);
  }

  #isWidened(value: Value): boolean {
    if (!this.#isNarrow(value) || value.constant) return false;
    if (value.producer) return !this.#kept.has(value.producer);
    return this.#widensBorder(value.graph);
  }

  /** Whether what crosses the border of a graph is float32 then: not that of the model, nor of what is run on the elements of a sequence. */
  #widensBorder({ owner }: Graph): boolean {
    return owner !== undefined && !this.#kept.has(owner);
  }

  #convert(node: Node): void {
    const kept = this.#kept.has(node);
    for (const [index, value] of node.inputs.entries()) {
      if (!this.#isNarrow(value)) continue;
      if (this.#isConstant(value)) {
        if (!kept) node.setInput(index, this.#wideConstant(value));
      } else if (this.#isWidened(value) === kept) node.setInput(index, this.#cast(value));
    }
    if (kept) return;
    for (const name of DTYPE_ATTRIBUTES) {
      const dtype = node.int(name);
      if (dtype !== undefined && NARROW.has(dtypeOfOnnx(dtype) ?? "")) node.setAttr(name, onnxFloat32());
    }
    const value = node.opType === "ConstantOfShape" ? node.tensor("value") : undefined;
    if (value && NARROW.has(value.dtype)) node.setAttr("value", { type: "tensor", value: wideTensor(value) });
  }

  /** Outputs of bodies in float32, those of the model in the type they had. */
  #convertOutputs(graph: Graph): void {
    const wide = this.#widensBorder(graph);
    const outputs = graph.outputs.map((value) => {
      if (!this.#isNarrow(value)) return value;
      if (this.#isConstant(value)) return wide ? this.#wideConstant(value) : value;
      if (this.#isWidened(value) === wide) return value;
      return wide ? graph.append(this.#castNode(value)).outputs[0]! : this.#renamedCast(value);
    });
    for (const value of [...graph.outputs]) graph.removeOutput(value);
    for (const value of outputs) graph.addOutput(value);
  }

  /** A Cast that gives a model's output out in the type it had, under its name; what reads it inside the model reads the other value. */
  #renamedCast(value: Value): Value {
    const { name, source, shape, graph } = value;
    const output = graph.append(this.#castNode(value)).outputs[0]!;
    value.name = output.name;
    output.name = name;
    output.retype(this.#types.get(value), shape);
    output.source = source;
    return output;
  }

  #cast(value: Value): Value {
    const known = this.#casts.get(value);
    if (known) return known;
    const { graph, producer } = value;
    const init = this.#castNode(value);
    const node = producer ? graph.insertAfter(producer, init) : graph.insertBefore(graph.nodes[0]!, init);
    const cast = node.outputs[0]!;
    cast.retype(this.#isWidened(value) ? this.#types.get(value) : "float32", value.shape);
    this.#casts.set(value, cast);
    return cast;
  }

  #castNode(value: Value) {
    const to = this.#isWidened(value) ? this.#types.get(value)! : "float32";
    const attrs: Record<string, Attr> = { to: { type: "int", value: onnxOfDtype(to) } };
    return { opType: "Cast", inputs: [value], outputs: [this.#model.freshName(`${value.name}_${to}`)], attrs };
  }

  #wideConstant(value: Value): Value {
    const known = this.#constants.get(value);
    if (known) return known;
    const wide = value.graph.addInitializer(`${value.name}_float32`, wideTensor(value.constant!));
    this.#constants.set(value, wide);
    return wide;
  }
}

const onnxFloat32 = (): Attr => ({ type: "int", value: onnxOfDtype("float32") });

function wideTensor(tensor: Tensor): Tensor {
  const { wide } = deriveTensors({ wide: { dtype: "float32", dims: tensor.dims } }, () => {
    const data = floatsOf(tensor);
    return { wide: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  });
  return wide;
}

/** A copy of a model that computes in float32 where it computed in float16 or bfloat16, and what was done; undefined where nothing did. */
export function widened(model: Model): { readonly model: Model; readonly notes: readonly Note[] } | undefined {
  return computesInNarrow(model) ? runPasses(model, [widenFloats]) : undefined;
}

/** Smaller constants are not worth a node. */
const MIN_STORED_ELEMENTS = 1024;

/**
 * Stores constants in float16 that are no other number there, each behind a Cast that a runtime does once when it loads the model: what a
 * method has left alone of weights that `widenFloats` made larger. The model computes the same.
 */
const storeNarrow: Pass = {
  name: "store narrow",
  run(model) {
    let changed = false;
    for (const graph of [...model.graphs()]) {
      for (const value of [...graph.initializers]) {
        const { constant } = value;
        if (constant?.dtype !== "float32" || elementCount(constant.dims) < MIN_STORED_ELEMENTS) continue;
        if (value.isGraphOutput || value.useCount === 0 || graph.isOverridable(value) || !isHalf(constant)) continue;
        const { half } = deriveTensors({ half: { dtype: "float16", dims: constant.dims } }, () => ({
          half: new Uint8Array(Float16Array.from(arrayOf(constant, "float32")).buffer),
        }));
        const stored = graph.addInitializer(`${value.name}_float16`, half);
        const first = graph.nodes[0]!;
        const cast = graph.insertBefore(first, {
          opType: "Cast",
          inputs: [stored],
          outputs: [model.freshName(`${value.name}_cast`)],
          attrs: { to: onnxFloat32() },
        });
        cast.outputs[0]!.retype("float32", value.shape);
        graph.replaceUses(value, cast.outputs[0]!);
        graph.removeInitializer(value);
        changed = true;
      }
    }
    return changed;
  },
};

/** A copy of a model made from a widened one, with its larger constants in float16 again where that loses nothing. */
export function narrowed(model: Model): Model {
  return runPasses(model, [storeNarrow]).model;
}

function isHalf(tensor: Tensor): boolean {
  return arrayOf(tensor, "float32").every((x) => Math.f16round(x) === x || Number.isNaN(x));
}
