import type { Model, Node, Value } from "../../src/core/onnx/ir.ts";
import { loadModel } from "../../src/core/onnx/load.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { arrayOf, type Tensor } from "../../src/core/onnx/tensor.ts";
import { type Note, type Pass, runPasses } from "../../src/core/passes/pass.ts";
import { unpackRows } from "../../src/core/quantize/packing.ts";
import { runModel } from "./open-model.ts";

/** A compressed copy as it comes out of the file, and the notes about it. */
export function compress(model: Model, ...passes: Pass[]): { readonly model: Model; readonly notes: readonly Note[] } {
  const result = runPasses(model, passes);
  return { model: loadModel(modelToBytes(result.model)), notes: result.notes };
}

/** Operators of all graphs in order, without Constant nodes. */
export function operatorsOf(model: Model): string[] {
  return [...model.nodes()].map(({ opType }) => opType).filter((opType) => opType !== "Constant");
}

/** The only node of an operator. */
export function only(model: Model, opType: string): Node {
  const nodes = [...model.nodes()].filter((node) => node.opType === opType);
  if (nodes.length !== 1) throw new Error(`There are ${nodes.length} nodes of ${opType}.`);
  return nodes[0]!;
}

/** What a value of the main graph is in one run, computed by the operators as they stand. */
export async function computedValue(
  model: Model,
  value: Value,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<Tensor> {
  if (value.constant) return value.constant;
  const copy = model.clone();
  const producer = copy.graph.nodes.find(({ outputs }) => outputs.some(({ name }) => name === value.name))!;
  const output = producer.outputs.find(({ name }) => name === value.name)!;
  output.retype("float32", undefined);
  if (!output.isGraphOutput) copy.graph.addOutput(output);
  return (await runModel(copy, feeds, { optimization: "disabled" }))[value.name]!;
}

/** The weight [N, K] of a MatMulNBits, by the documented layout of its inputs. */
export function matMulNBitsWeight(node: Node): Float32Array {
  const [K, N, bits, block] = ["K", "N", "bits", "block_size"].map((name) => node.int(name)!) as [
    number,
    number,
    2 | 4 | 8,
    number,
  ];
  const blocks = Math.ceil(K / block);
  const codes = unpackRows(node.inputs[1]!.constant!.bytes, N * blocks * block, blocks * block, bits, false);
  const scales = floatArray(node.inputs[2]!.constant!);
  const zeros = node.inputs[3] && unpackRows(node.inputs[3].constant!.bytes, N * blocks, blocks, bits, false);
  return Float32Array.from({ length: N * K }, (_, i) => {
    const [n, k] = [Math.floor(i / K), i % K];
    const at = n * blocks + Math.floor(k / block);
    return (codes[n * blocks * block + k]! - (zeros ? zeros[at]! : 2 ** (bits - 1))) * scales[at]!;
  });
}

export function floatArray(tensor: Tensor): Float32Array {
  return tensor.dtype === "float16"
    ? Float32Array.from(arrayOf(tensor, "float16"))
    : (arrayOf(tensor, "float32") as Float32Array);
}

/** Σ_k x[m, k] · w[k, n] in float64. */
export function product(
  x: ArrayLike<number>,
  weight: (k: number, n: number) => number,
  [M, K, N]: readonly [number, number, number],
): Float64Array {
  const y = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[m * K + k]! * weight(k, n);
      y[m * N + n] = sum;
    }
  }
  return y;
}
