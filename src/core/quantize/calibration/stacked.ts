/** Samples as one batch, where a model takes them so: fewer runs, and less to take out of them. */
import { CoreError } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import { type Tensor, tensor } from "../../onnx/tensor.ts";
import type { Feeds } from "./calibrate.ts";

/** All samples as one, along the first axis; undefined where the model's inputs do not leave that open, or samples differ in size. */
export function stacked(model: Model, samples: readonly Feeds[]): Record<string, Tensor> | undefined {
  if (samples.length < 2) return undefined;
  const feeds: Record<string, Tensor> = {};
  for (const { name, shape, constant } of model.graph.inputs) {
    if (constant) continue;
    const parts = samples.map((sample) => sample[name]);
    const [first] = parts;
    if (!first || first.dims.length === 0 || typeof shape?.[0] === "number") return undefined;
    if (parts.some((part) => part?.dims.join() !== first.dims.join() || part.dtype !== first.dtype)) return undefined;
    const bytes = new Uint8Array(samples.length * first.byteLength);
    for (const [i, part] of parts.entries()) bytes.set(part!.bytes, i * first.byteLength);
    feeds[name] = tensor(first.dtype, [samples.length * first.dims[0]!, ...first.dims.slice(1)], bytes);
  }
  return feeds;
}

const RECOVERABLE: ReadonlySet<string> = new Set(["invalid_model", "invalid_dataset", "unsupported", "limit_exceeded"]);

/** Whether an error may come of stacked samples: a model that cannot be run on more than one says so in many ways. */
export function takesNoStack(error: unknown): boolean {
  return error instanceof CoreError && RECOVERABLE.has(error.code);
}
