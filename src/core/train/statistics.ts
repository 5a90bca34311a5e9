/** Means and variances that BatchNormalization normalises with: those of a batch, and what inference uses in their place. */
import { CoreError, checkCancelled } from "../errors.ts";
import { float, int } from "../onnx/graph-builder.ts";
import type { Model, Node } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { elementCount, floatsOf, type Tensor } from "../onnx/tensor.ts";
import type { OpenSession } from "../runtime/session.ts";
import { createTrainable, exportTrained, type RunningStatistics } from "./trainable.ts";

/**
 * Makes BatchNormalization use the statistics of its batch, which become its second and third output (that is what they are with a momentum
 * of 0). Answers the nodes, each with the running statistics that it had. Throws `invalid_params`, at `training.batch_size`, for a node whose
 * batch is known to have one value for each channel: it is its own mean, so that every output is the bias and the variance 0.
 */
export function useBatchStatistics(
  nodes: readonly Node[],
  statistics: readonly RunningStatistics[],
  check = checkBatch,
): readonly { readonly running: RunningStatistics; readonly node: Node }[] {
  return nodes.flatMap((node) => {
    if (node.opType !== "BatchNormalization" || node.domain !== "") return [];
    const running = statistics.find(({ meanName }) => node.inputs[3]?.name === meanName);
    if (!running) return [];
    check(node);
    node.setAttr("training_mode", int(1));
    node.setAttr("momentum", float(0));
    while (node.outputs.length < 3) node.addOutput(`${node.outputs[0]!.name}_statistics`, "float32");
    return [{ running, node }];
  });
}

function checkBatch(node: Node): void {
  const shape = node.inputs[0]?.shape;
  if (!shape?.every((dim) => typeof dim === "number")) return;
  // [N, C, …]: all axes but that of the channels.
  const values = elementCount(shape.filter((_, axis) => axis !== 1) as readonly number[]);
  if (values > 1) return;
  throw new CoreError(
    "invalid_params",
    `BatchNormalization "${node.label}" would take its mean and variance from one value for each channel, [${shape.join(", ")}]: train in batches of 2 samples or more.`,
    node.label,
    { path: ["training", "batch_size"] },
  );
}

/**
 * A copy of `model` whose BatchNormalizations use the mean over `batches` of each batch's mean and variance. What was cut out of a model
 * before them has changed what they see; with the old statistics it may answer no better than chance. The model itself comes back when it
 * has none, and a node whose batches have one value for each channel keeps what it had. Throws `unsupported` where the model cannot be trained.
 */
export async function estimateStatistics(
  model: Model,
  batches: readonly Readonly<Record<string, Tensor>>[],
  options: { readonly openSession: OpenSession; readonly threads: number; readonly signal?: AbortSignal | undefined },
): Promise<Model> {
  if (!model.graph.nodes.some(({ opType, domain }) => opType === "BatchNormalization" && domain === "")) return model;
  const { source, graph: probe, statistics, feeds } = createTrainable(model);
  const { graph } = probe;
  const found = useBatchStatistics(graph.nodes, statistics, () => {});
  for (const value of [...graph.outputs]) graph.removeOutput(value);
  for (const { node } of found) for (const value of node.outputs.slice(1, 3)) graph.addOutput(value);
  if (found.length === 0 || batches.length === 0) return model;
  const session = await options.openSession({ bytes: modelToBytes(probe) }, { threads: options.threads });
  const means = found.map(({ running, node }) => {
    const [, mean, variance] = node.outputs;
    return [
      { name: mean!.name, into: running.mean, sum: new Float64Array(running.mean.length) },
      { name: variance!.name, into: running.variance, sum: new Float64Array(running.variance.length) },
    ];
  });
  try {
    for (const batch of batches) {
      checkCancelled(options.signal);
      const results = await session.run({ ...feeds, ...batch });
      for (const { name, sum } of means.flat()) for (const [i, x] of floatsOf(results[name]!).entries()) sum[i]! += x;
    }
  } finally {
    await session.close();
  }
  for (const both of means) {
    const isOfOneValue = both[1]!.sum.every((x) => x === 0);
    if (isOfOneValue) continue;
    for (const { into, sum } of both) for (const [i, x] of sum.entries()) into[i] = x / batches.length;
  }
  return exportTrained({ source, graph: probe, statistics, feeds, parameters: [] });
}
