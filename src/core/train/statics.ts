import type { Model, Node, Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import type { Tensor } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import type { OpenSession } from "../runtime/session.ts";

/**
 * Gives every value of the main graph the dtype and shape that it has when the model runs on `feeds`, and turns what depends on shapes
 * alone (the target of a Reshape, the axes of a Slice) into constants. Facts come from onnxruntime: the model is run once with all its
 * values as outputs. From then on the graph is valid for inputs of these shapes only.
 */
export async function resolveStatics(
  model: Model,
  feeds: Readonly<Record<string, Tensor>>,
  openSession: OpenSession,
): Promise<void> {
  for (const value of model.graph.inputs) {
    const feed = feeds[value.name];
    if (feed) value.retype(feed.dtype, feed.dims);
  }
  const results = await runAllValues(model, feeds, openSession);
  for (const node of model.graph.nodes) {
    for (const value of node.outputs) {
      const result = results[value.name];
      if (result) value.retype(result.dtype, result.dims);
    }
  }
  foldStatics(model, results);
}

/** Every value that the nodes of the main graph make from `feeds`, by name; only tensors of numbers. The model itself is left alone. */
export async function runAllValues(
  model: Model,
  feeds: Readonly<Record<string, Tensor>>,
  openSession: OpenSession,
): Promise<Readonly<Record<string, Tensor>>> {
  const probe = model.clone();
  for (const value of probe.graph.inputs) {
    const feed = feeds[value.name];
    if (feed) value.retype(feed.dtype, feed.dims);
  }
  const outputs = new Set(probe.graph.outputs);
  for (const node of probe.graph.nodes) {
    for (const value of node.outputs) {
      if (value.name === "") continue;
      // What the file declares may be meant for another batch size.
      value.retype(undefined, undefined);
      if (!outputs.has(value)) probe.graph.addOutput(value);
    }
  }
  const session = await openSession({ bytes: modelToBytes(probe) }, { optimization: "disabled" });
  try {
    const readable = session.outputs.filter(({ dtype }) => dtype !== null && dtype !== "string");
    return await session.run(
      feeds,
      readable.map(({ name }) => name),
    );
  } finally {
    await session.close();
  }
}

/** Replaces what does not depend on the data by the constants it was computed to be, and drops the nodes behind it. */
function foldStatics(model: Model, results: Readonly<Record<string, Tensor>>): void {
  const dynamic = dependentOnData(model);
  const isStatic = (node: Node) => node.outputs.every((value) => !dynamic.has(value));
  for (const node of [...model.graph.nodes]) {
    if (!isStatic(node) || node.isConstant) continue;
    for (const value of node.outputs) {
      const result = results[value.name];
      const needed = value.uses.some((use) => use.node.graph !== model.graph || !isStatic(use.node));
      if (!result || !needed || value.isGraphOutput) continue;
      model.graph.replaceUses(value, model.graph.addInitializer(`${value.name}_static`, result));
    }
  }
  for (const node of [...model.graph.nodes].reverse()) {
    if (isStatic(node) && node.outputs.every((value) => value.useCount === 0 && !value.isGraphOutput)) {
      model.graph.remove(node);
    }
  }
  for (const value of [...model.graph.initializers]) {
    if (value.useCount === 0 && !value.isGraphOutput) model.graph.removeInitializer(value);
  }
}

/** Values that change with the content of the graph's inputs; their shapes do not. */
function dependentOnData(model: Model): ReadonlySet<Value> {
  const dynamic = new Set<Value>(model.graph.inputs.filter((value) => !value.constant));
  for (const node of model.graph.nodes) {
    const reads = [
      ...node.inputs,
      ...node.bodies().flatMap((body) => [...body.walk()].flatMap((g) => g.nodes.flatMap((n) => n.inputs))),
    ];
    const { random, ofShape } = operatorOf(node) ?? {};
    if (random || (!ofShape && reads.some((value) => value && dynamic.has(value)))) {
      for (const value of node.outputs) dynamic.add(value);
    }
  }
  return dynamic;
}
