import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import type { Tensor } from "../../src/core/onnx/tensor.ts";
import { openSession, type Session, type SessionOptions } from "../../src/core/runtime/session.ts";

/** Loads a model that fits in memory, as the job process does with files. */
export function openModel(model: Model, options?: SessionOptions): Promise<Session> {
  return openSession({ bytes: modelToBytes(model) }, options);
}

/** All outputs of one run. */
export async function runModel(
  model: Model,
  feeds: Readonly<Record<string, Tensor>>,
  options?: SessionOptions,
): Promise<Record<string, Tensor>> {
  const session = await openModel(model, options);
  try {
    return await session.run(feeds);
  } finally {
    await session.close();
  }
}
