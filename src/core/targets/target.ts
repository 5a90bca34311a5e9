/** What a runtime can do with operators in 8 bits: what it fuses, what it refuses, what it costs. What a method prefers is not said here. */
import type { NoteReason } from "../facts.ts";
import type { Node } from "../onnx/ir.ts";

/**
 * How a kernel takes an operator between a DequantizeLinear and a QuantizeLinear: it `computes` a new result on quantized values, or `moves`
 * quantized values as they are, which keeps their scale and zero point.
 */
export interface Int8Support {
  readonly runs: "computes" | "moves";
  /** Inputs that carry activations; the first unless given. */
  readonly activations?: (node: Node) => readonly number[];
  readonly bias?: number;
  /** Whether the kernel can give out float32. One that cannot runs in float unless its output is quantized. */
  readonly floatOutput?: true;
  /** Why the kernel does not take this node. */
  readonly refuse?: (node: Node) => NoteReason | undefined;
}

/** Microseconds for a call, for 1000 multiplications and for 1000 elements of the output. */
export type Cost = readonly [call: number, products: number, elements: number];

export interface Costs {
  readonly float: Cost;
  readonly int8: Cost;
}
