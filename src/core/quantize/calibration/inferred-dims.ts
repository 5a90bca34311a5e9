import { CoreError } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import type { Tensor } from "../../onnx/tensor.ts";
import type { OpenModel } from "./calibrate.ts";

/** Weights of so many bytes are left out: none is needed to tell dims, and sizes and axes are smaller. */
const WEIGHT_BYTES = 1024;

/** `model` itself with its large weights as inputs: what onnxruntime is given to infer types and dims from. */
export function withoutWeights(model: Model): Model {
  const { graph } = model;
  for (const weight of [...graph.initializers]) {
    const { name, constant } = weight;
    const isKept = constant!.dtype !== "float32" || constant!.byteLength < WEIGHT_BYTES || weight.isGraphOutput;
    if (isKept || graph.isOverridable(weight)) continue;
    const input = graph.addInput(model.freshName(name), constant!.dtype, constant!.dims);
    for (const { node, index } of weight.uses) node.setInput(index, input);
    graph.removeInitializer(weight);
  }
  return model;
}

/**
 * The dims that float32 values of the main graph have for `feeds`, by name, as far as they follow from those of the feeds alone. onnxruntime infers
 * them from the graph without its weights: nothing is run.
 */
export async function inferredDims(
  model: Model,
  names: ReadonlySet<string>,
  feeds: Readonly<Record<string, Tensor>>,
  openModel: OpenModel,
): Promise<ReadonlyMap<string, readonly number[]>> {
  const copy = model.clone();
  const { graph } = copy;
  for (const output of [...graph.outputs]) graph.removeOutput(output);
  for (const input of graph.inputs) {
    const feed = feeds[input.name];
    if (feed) input.retype(feed.dtype, feed.dims);
  }
  for (const value of graph.nodes.flatMap(({ outputs }) => outputs)) {
    // onnxruntime infers it itself; a declaration that has become wrong would be refused.
    value.source = undefined;
    value.shape = undefined;
    if (names.has(value.name) && !value.constant) graph.addOutput(value);
  }
  if (graph.outputs.length === 0) return new Map();
  try {
    // Sizes that are computed from others are known when those are folded.
    const session = await openModel(withoutWeights(copy), { optimization: "basic" });
    await session.close();
    return new Map(
      session.outputs.flatMap(({ name, dtype, shape }): [string, readonly number[]][] =>
        dtype === "float32" && shape?.every((dim) => typeof dim === "number") ? [[name, shape as number[]]] : [],
      ),
    );
  } catch (error) {
    // A kernel may insist on weights that are constant.
    if (error instanceof CoreError && error.code === "invalid_model") return new Map();
    throw error;
  }
}
