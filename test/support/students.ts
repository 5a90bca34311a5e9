import type { Model } from "../../src/core/onnx/ir.ts";
import { loadModel } from "../../src/core/onnx/load.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { checkInvariants } from "../../src/core/passes/pass.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { transformer } from "./networks.ts";

/** A small teacher, what it is asked, and what students of it answer. */

/** An encoder of `tokens`. */
export const encoder = (layers: number) =>
  transformer({ layers, width: 16, heads: 2, length: 6, vocabulary: 20, classes: 3, seed: 5 });
export const tokens = tensorOf("int64", [2, 6], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

/** What the first output holds, of a model that holds together and has been written and read. */
export async function outputs(model: Model, feeds: Record<string, Tensor>): Promise<number[]> {
  checkInvariants(model, "test");
  const session = await openSession({ bytes: modelToBytes(loadModel(modelToBytes(model))) });
  const results = await session.run(feeds);
  await session.close();
  return [...floatsOf(Object.values(results)[0]!)];
}
