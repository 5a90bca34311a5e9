/**
 * Takes codes of 4 and 2 bits out of bytes by plain operators that exist in every opset: onnxruntime folds them when it loads the model. Exact in
 * float32.
 */
import { int } from "../../onnx/graph-builder.ts";
import type { Attr, Value } from "../../onnx/ir.ts";

/** Puts operators with one output into a graph, and float32 scalars. */
export interface Emitter {
  op(opType: string, inputs: readonly Value[], attrs?: Readonly<Record<string, Attr>>): Value;
  scalar(value: number): Value;
}

/** The codes that `packParts` has packed, and what it has filled up with, as floats [8 / bits · bytes]. */
export function unpackParts({ op, scalar }: Emitter, packed: Value, bits: 4 | 2): Value {
  let rest = op("Cast", [packed], { to: int(1) });
  const parts: Value[] = [];
  for (let i = 8 / bits - 1; i > 0; i--) {
    const part = op("Floor", [op("Mul", [rest, scalar(2 ** (-bits * i))])]);
    rest = op("Sub", [rest, op("Mul", [part, scalar(2 ** (bits * i))])]);
    parts.unshift(part);
  }
  return op("Concat", [rest, ...parts], { axis: int(0) });
}
