import { findSyntheticInputs } from "../../src/core/evaluate/synthetic.ts";
import { type Tensor, tensor } from "../../src/core/onnx/tensor.ts";
import { type ModelSource, openSession } from "../../src/core/runtime/session.ts";
import { writeNpz } from "./dataset-writers.ts";

/**
 * Samples that a model accepts, drawn as the service draws them where a job has none: the bytes of an `.npz` with `count` of them from `first` on,
 * stacked. Of an input that has no axis for samples each is whole.
 */
export async function syntheticSamples(model: ModelSource): Promise<(first: number, count: number) => Uint8Array> {
  const session = await openSession(model);
  const synthetic = await findSyntheticInputs(session, { dims: {}, seed: 1 });
  const { inputs } = session;
  await session.close();
  return (first, count) => {
    const feeds = Array.from({ length: count }, (_, i) => synthetic.feeds(first + i, 1));
    const stacked = inputs.map(({ name, shape }): [string, Tensor] => {
      const all = feeds.map((feed) => feed[name]!);
      const { dtype, dims } = all[0]!;
      const hasSampleAxis = dims[0] === 1 && (typeof shape?.[0] !== "number" || shape[0] === 1);
      const sample = hasSampleAxis ? dims.slice(1) : dims;
      return [name, tensor(dtype, [count, ...sample], Buffer.concat(all.map(({ bytes }) => bytes)))];
    });
    return writeNpz(Object.fromEntries(stacked));
  };
}
