import { CoreError } from "../errors.ts";
import type { ValueFacts } from "../facts.ts";
import { DTYPES, type DType } from "../onnx/dtype.ts";
import { type Dim, type Graph, Model, type Node, type Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import type { OpenSession } from "../runtime/session.ts";

/** A tensor's type with every size known. */
export interface ConcreteType {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/**
 * Asks onnxruntime for the types of all values that the nodes of `graph` make (not those of bodies below it): the graph is loaded with
 * every value as an untyped output, and the session says what they are. Nothing is run, and no weight is loaded: constants that are too
 * large for a shape become inputs. What the runtime cannot say is missing from the answer; undefined, when it cannot load the graph with
 * these types.
 *
 * `known` gives the types of the graph's inputs, and of values of outer graphs that it reads.
 */
export async function probeTypes(
  graph: Graph,
  known: ReadonlyMap<Value, ConcreteType>,
  openSession: OpenSession,
): Promise<ReadonlyMap<Value, ConcreteType> | undefined> {
  const { model } = graph;
  const probe = new Model({
    irVersion: Math.max(model.irVersion, 4),
    opsets: model.opsets,
    graphName: "probe",
    functions: model.functions,
  });
  const copies = new Map<Value, Value>();
  for (const value of capturedBy(graph)) {
    const copy = value.constant
      ? probe.graph.addInitializer(value.name, value.constant)
      : declareInput(probe, value.name, known.get(value));
    if (!copy) return undefined;
    copies.set(value, copy);
  }
  graph.copyInto(probe.graph, copies);
  for (const input of graph.inputs) {
    const type = known.get(input);
    if (type) copies.get(input)!.retype(type.dtype, type.shape);
  }
  // Bodies of loops give out values under their own names only; here all values are outputs.
  for (const output of new Set(probe.graph.outputs)) while (output.isGraphOutput) probe.graph.removeOutput(output);
  for (const inner of probe.graphs()) {
    takeOutWeights(inner);
    inner.nodes.forEach(fellTrees);
  }
  const outputs = graph.nodes.flatMap((node) =>
    node.isConstant ? [] : node.outputs.filter(({ name }) => name !== ""),
  );
  for (const value of outputs) {
    const copy = copies.get(value)!;
    copy.retype(undefined);
    probe.graph.addOutput(copy);
  }
  return readTypes(probe, new Map(outputs.map((value) => [copies.get(value)!.name, value])), openSession);
}

async function readTypes(
  probe: Model,
  byName: ReadonlyMap<string, Value>,
  openSession: OpenSession,
): Promise<ReadonlyMap<Value, ConcreteType> | undefined> {
  let outputs: readonly ValueFacts[];
  try {
    // `basic` folds constants, and with them the shape arithmetic that plain inference stops at.
    const session = await openSession({ bytes: modelToBytes(probe) }, { optimization: "basic" });
    outputs = session.outputs;
    await session.close();
  } catch (error) {
    if (error instanceof CoreError && error.code !== "cancelled") return undefined;
    throw error;
  }
  const types = new Map<Value, ConcreteType>();
  for (const { name, dtype, shape } of outputs) {
    const value = byName.get(name);
    if (value && dtype && shape && isConcrete(shape)) types.set(value, { dtype, shape });
  }
  return types;
}

export function isConcrete(shape: readonly Dim[]): shape is readonly number[] {
  return shape.every((dim) => typeof dim === "number");
}

/** Values of outer graphs that the graph, or a body below it, reads. */
function capturedBy(graph: Graph): Set<Value> {
  const inside = new Set(graph.walk());
  const captured = new Set<Value>();
  for (const inner of inside) {
    for (const value of [...inner.nodes.flatMap((node) => node.inputs), ...inner.outputs]) {
      if (value && !inside.has(value.graph)) captured.add(value);
    }
  }
  return captured;
}

function declareInput(probe: Model, name: string, type: ConcreteType | undefined): Value | undefined {
  return type && probe.graph.addInput(name, type.dtype, type.shape);
}

const ENSEMBLES: Readonly<Record<string, string>> = {
  TreeEnsembleClassifier: "class",
  TreeEnsembleRegressor: "target",
};

/** Leaves of an ensemble's trees a single leaf. No type depends on them, and an ensemble of hundreds of megabytes takes long to write and to load. */
function fellTrees(node: Node): void {
  const votes = node.domain === "ai.onnx.ml" ? ENSEMBLES[node.opType] : undefined;
  if (votes === undefined) return;
  for (const name of node.attrs.keys()) if (/^(nodes|class|target)_/.test(name)) node.setAttr(name, undefined);
  for (const name of ["treeids", "nodeids", "featureids", "truenodeids", "falsenodeids"])
    node.setAttr(`nodes_${name}`, { type: "ints", value: [0] });
  node.setAttr("nodes_modes", { type: "strings", value: ["LEAF"] });
  node.setAttr("nodes_values", { type: "floats", value: [0] });
  for (const name of ["treeids", "nodeids", "ids"]) node.setAttr(`${votes}_${name}`, { type: "ints", value: [0] });
  node.setAttr(`${votes}_weights`, { type: "floats", value: [0] });
}

/** Shapes, axes and scalars are smaller; inference reads those. */
const MAX_KEPT_BYTES = 1024;

/** Types that inputs of a session cannot have. */
function isPlain(dtype: DType): boolean {
  return DTYPES[dtype].kind !== "complex" && !/^(bfloat16|float8|float4|u?int2|string)/.test(dtype);
}

function takeOutWeights(graph: Graph): void {
  const isWeight = ({ constant, isGraphOutput }: Value) =>
    constant !== undefined && constant.byteLength > MAX_KEPT_BYTES && isPlain(constant.dtype) && !isGraphOutput;
  const becomeInput = (value: Value) => {
    const { model } = graph;
    const input = model.graph.addInput(
      model.freshName(`${value.name}_type`),
      value.constant!.dtype,
      value.constant!.dims,
    );
    graph.replaceUses(value, input);
  };
  for (const value of [...graph.initializers].filter(isWeight)) {
    becomeInput(value);
    graph.removeInitializer(value);
  }
  for (const node of [...graph.nodes]) {
    const [value] = node.outputs;
    if (!value || !node.isConstant || !isWeight(value)) continue;
    becomeInput(value);
    graph.remove(node);
  }
}
