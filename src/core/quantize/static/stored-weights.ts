/**
 * Weights of 8, 4 and 2 bits as constants that an integer kernel reads. onnxruntime fuses DequantizeLinear with a kernel where it reads int8,
 * and folds everything in front of it when it loads the model: so fewer bits are stored in fewer bytes, and turned into int8 by plain
 * operators that exist in every opset. Only the file is smaller than with int8; speed and memory are the same.
 * What is packed is q − qmin.
 */
import { GraphBuilder, int } from "../../onnx/graph-builder.ts";
import type { Graph, Value } from "../../onnx/ir.ts";
import { arrayOf, deriveTensors, elementCount, type Tensor } from "../../onnx/tensor.ts";
import { packParts } from "../packing.ts";
import type { CodeRange } from "../params.ts";
import { unpackParts } from "../weights/packed-parts.ts";

export type WeightBits = 8 | 4 | 2;

/** The least and the largest value of symmetric weights: −127 … 127, −8 … 7, −2 … 1. */
export function weightRange(bits: WeightBits): CodeRange {
  const max = 2 ** (bits - 1) - 1;
  return { min: bits === 8 ? -max : -max - 1, max };
}

/** Smaller weights take less room in int8 than with the operators that unpack them. */
const MIN_PACKED_ELEMENTS = 2048;

/** `q`, int8, as a value at the front of `graph`, stored in `bits`. It is read when its bytes are asked for. */
export function addStoredWeight(graph: Graph, name: string, q: Tensor, bits: WeightBits): Value {
  const { dims } = q;
  const count = elementCount(dims);
  if (bits === 8 || count < MIN_PACKED_ELEMENTS) return graph.addInitializer(`${name}_q`, q);
  const length = Math.ceil((count * bits) / 8);
  const { min } = weightRange(bits);
  const packed = graph.addInitializer(`${name}_q${bits}`, packedTensor(q, length, bits));
  const g = new GraphBuilder(graph);
  const first = graph.nodes[0];
  const unpack = () => {
    const all = unpackParts(
      { op: (...of) => g.op(...of), scalar: (value) => g.constant("float32", [], [value]) },
      packed,
      bits,
    );
    all.dtype = "float32";
    const isFull = (length * 8) / bits === count;
    const used = isFull ? all : g.op("Slice", [all, g.shape([0]), g.shape([count])]);
    const signed = g.add(g.reshape(used, dims), min);
    const int8 = g.op("Cast", [signed], { to: int(3) });
    int8.retype("int8", dims);
    return int8;
  };
  return first ? g.before(first, unpack) : unpack();
}

/** Bytes [length] of the values of an int8 tensor. */
function packedTensor(q: Tensor, length: number, bits: WeightBits): Tensor {
  const { min } = weightRange(bits);
  return deriveTensors({ packed: { dtype: "uint8", dims: [length] } }, () => {
    return {
      packed: packParts(
        Uint8Array.from(arrayOf(q, "int8"), (value) => value - min),
        bits,
      ),
    };
  }).packed;
}
