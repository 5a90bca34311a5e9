import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Model } from "../../src/core/onnx/ir.ts";
import { loadModel } from "../../src/core/onnx/load.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { floatsOf, type Tensor } from "../../src/core/onnx/tensor.ts";
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

/** How many nodes of each operator are left when onnxruntime has fused what it can (all but memory layouts). */
export async function fusedOperators(model: Model): Promise<Record<string, number>> {
  const directory = await mkdtemp(join(tmpdir(), "fused-"));
  try {
    const optimizedModelPath = join(directory, "model.onnx");
    await (await openModel(model, { optimization: "extended", optimizedModelPath })).close();
    const operators: Record<string, number> = {};
    for (const { opType } of loadModel(await readFile(optimizedModelPath)).nodes()) {
      operators[opType] = (operators[opType] ?? 0) + 1;
    }
    return operators;
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** 10·log10(Σx² / Σ(x−y)²) over all outputs that are float. */
export function sqnrDb(reference: Readonly<Record<string, Tensor>>, actual: Readonly<Record<string, Tensor>>): number {
  let signal = 0;
  let noise = 0;
  for (const [name, tensor] of Object.entries(reference)) {
    if (tensor.dtype !== "float32") continue;
    const other = floatsOf(actual[name]!);
    floatsOf(tensor).forEach((x, i) => {
      signal += x * x;
      noise += (x - other[i]!) ** 2;
    });
  }
  return 10 * Math.log10(signal / noise);
}
