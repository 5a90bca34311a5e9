/**
 * A float16 model in the form in which it really rounds.
 *
 * onnxruntime has few float16 kernels for CPUs. It computes the others in float32 and leaves out the roundings between two of them: what
 * leaves the range of float16, or its precision, is not seen on a CPU. Here every operator that computes reads its float16 inputs as
 * float32 and has its result cast to float16, by Casts that belong to the model and so are not left out. That is how devices compute that
 * sum in float32 and store in float16.
 */
import { onnxOfDtype } from "../onnx/dtype.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { arrayOf, deriveTensors } from "../onnx/tensor.ts";
import { type OpType, operatorOf } from "../operators/operators.ts";
import { removeDeadCode } from "./dead-code.ts";
import { inferDTypes } from "./value-dtypes.ts";

/** The model with its roundings; values have the names that they had. Undefined when nothing in it is computed in float16. */
export function roundedForm(original: Model): Model | undefined {
  const model = original.clone();
  const half = new Set([...inferDTypes(model)].filter(([, dtype]) => dtype === "float16").map(([value]) => value));
  const isHalf = (value: Value | undefined): value is Value => value !== undefined && half.has(value);
  const widened = new Map<Value, Value>();
  const nodes = [...model.nodes()].filter((node) => computes(node) && node.inputs.some(isHalf));
  if (nodes.length === 0) return undefined;
  for (const node of nodes) {
    for (const [index, value] of node.inputs.entries()) {
      if (isHalf(value)) node.setInput(index, widen(value, widened));
    }
    for (const value of [...node.outputs].filter(isHalf)) half.add(round(node, value));
  }
  removeDeadCode.run(model, () => {});
  return model;
}

/** What only moves elements has nothing to round, and a Cast rounds by itself. */
function computes(node: Node): boolean {
  if (node.bodies().length > 0 || node.attrs.has("dtype")) return false;
  const { moves, chooses } = operatorOf(node) ?? {};
  return node.domain !== "" || !(moves || chooses || NOT_COMPUTING.has(node.opType));
}

const NOT_COMPUTING: ReadonlySet<string> = new Set<OpType>(["Cast", "Constant", "ConstantOfShape", "CastLike"]);

function widen(value: Value, widened: Map<Value, Value>): Value {
  const known = widened.get(value);
  if (known) return known;
  const { graph, producer, constant } = value;
  const { model } = graph;
  const name = `${value.name}_wide`;
  let wide: Value;
  if (constant && !graph.isOverridable(value)) {
    const { tensor } = deriveTensors({ tensor: { dtype: "float32", dims: constant.dims } }, () => {
      const { buffer } = Float32Array.from(arrayOf(constant, "float16"));
      return { tensor: new Uint8Array(buffer) };
    });
    wide = graph.addInitializer(name, tensor);
  } else {
    const init = castTo("float32", value, model.freshName(name));
    const cast = producer ? graph.insertAfter(producer, init) : graph.insertBefore(graph.nodes[0]!, init);
    wide = cast.outputs[0]!;
  }
  wide.retype("float32", value.shape);
  widened.set(value, wide);
  return wide;
}

/** Lets `node` give out float32, and what reads `value` read what is rounded, which is answered. */
function round(node: Node, value: Value): Value {
  const { graph } = node;
  const { name, shape } = value;
  const init = castTo("float16", value, graph.model.freshName(`${name}_rounded`));
  const rounded = graph.insertAfter(node, init).outputs[0]!;
  const { name: free } = rounded;
  rounded.retype("float16", shape);
  const isOutput = value.isGraphOutput && !graph.owner;
  graph.replaceUses(value, rounded);
  if (!isOutput) [value.name, rounded.name] = [free, name];
  value.retype("float32", shape);
  return rounded;
}

function castTo(dtype: "float16" | "float32", value: Value, name: string) {
  return {
    opType: "Cast",
    inputs: [value],
    outputs: [name],
    attrs: { to: { type: "int", value: onnxOfDtype(dtype) } } as const,
  };
}
