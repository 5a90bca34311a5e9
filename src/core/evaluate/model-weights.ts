import { DTYPES } from "../onnx/dtype.ts";
import type { Model, Node, Use, Value } from "../onnx/ir.ts";
import { elementCount, isFloat, type Tensor } from "../onnx/tensor.ts";
import { type OpType, operatorOf } from "../operators/operators.ts";

/**
 * What counts as a weight. Nothing in a file says so; the rule is
 *
 * - every float constant of two or more elements that a node reads as data. Not: operands that steer an operator (bounds of Clip, scales of
 *   Resize), and anything of one element (those are numbers in formulas);
 * - every constant that a node reads as quantized data (the codes of DequantizeLinear, the weight of MatMulNBits);
 * - every integer constant that plain operators turn into a weight, Mul(Sub(Cast(codes), Cast(zero points)), scales) (`storedCodes`).
 *
 * Scales and zero points belong to the weight they go with: they count in bytes and not as parameters. A tensor that two nodes read (a tied
 * embedding) is one weight.
 */
export interface Weight {
  readonly value: Value;
  readonly tensor: Tensor;
  /** Elements of the tensor that was quantized, where it is packed; 0 for scales and zero points. */
  readonly parameters: number;
}

/** Every weight of the model once, in order of first use, its bodies included. */
export function weightsOf(model: Model): Weight[] {
  const weights = new Map<Value, Weight>();
  const add = (value: Value, parameters: number) => {
    const known = weights.get(value);
    if (known && known.parameters >= parameters) return;
    weights.set(value, { value, tensor: value.constant!, parameters });
  };
  /** Scales, which would otherwise count as float weights of the Mul that reads them. */
  const scales = new Set<Value>();
  for (const node of model.nodes()) {
    for (const value of node.inputs) {
      const stored = value && !RESTORING.has(node.opType) ? storedCodes(value) : undefined;
      if (!stored) continue;
      add(stored.codes, stored.count);
      for (const part of stored.parameters) {
        scales.add(part);
        weights.set(part, { value: part, tensor: part.constant!, parameters: 0 });
      }
    }
  }
  for (const node of model.nodes()) {
    node.inputs.forEach((value, index) => {
      if (!value?.constant || scales.has(value)) return;
      const parameters = parametersIn(value.constant, { node, index });
      if (parameters !== undefined) add(value, parameters);
    });
  }
  return [...weights.values()];
}

/** Operators that turn codes into floats. In each of them the codes come in first. */
const RESTORING: ReadonlySet<string> = new Set<OpType>(["Cast", "Concat", "Mul", "Reshape", "Sub"]);

export interface StoredCodes {
  /** The integer constant. */
  readonly codes: Value;
  /** Scales and zero points. */
  readonly parameters: readonly Value[];
  /** Weights that the codes stand for. */
  readonly count: number;
}

/**
 * What a weight is stored as when plain operators restore it, which a runtime folds into a constant at load; undefined when `value` is
 * anything else. Two codes that share a byte are put one after the other by a Concat.
 */
export function storedCodes(value: Value): StoredCodes | undefined {
  const parameters: Value[] = [];
  let perElement = 1;
  let scaled = false;
  let at: Value | undefined = value;
  while (at && !at.constant) {
    const node: Node | undefined = at.producer;
    if (node?.domain !== "" || !RESTORING.has(node.opType)) return undefined;
    const second = node.inputs[1];
    if (node.opType === "Concat") perElement = node.inputs.length;
    if (node.opType === "Mul" && second?.constant) {
      scaled = true;
      parameters.push(second);
    }
    const zeroPoints =
      node.opType === "Sub" && second?.producer?.opType === "Cast" ? second.producer.inputs[0] : undefined;
    if (zeroPoints?.constant) parameters.push(zeroPoints);
    at = node.inputs[0];
  }
  if (!scaled || !at?.constant || elementCount(at.constant.dims) < 2) return undefined;
  const { kind, bits } = DTYPES[at.constant.dtype];
  // Wider integers are shapes and positions.
  if ((kind !== "int" && kind !== "uint") || bits > 8) return undefined;
  return { codes: at, parameters, count: elementCount(at.constant.dims) * perElement };
}

/** How many parameters a constant has where it is used so; undefined when it is no part of a weight there. */
function parametersIn(tensor: Tensor, { node, index }: Use): number | undefined {
  const record = operatorOf(node);
  const operands = record?.quantized;
  if (operands?.values.includes(index)) return unpackedCount(tensor, node);
  if (operands?.parameters.includes(index)) {
    // The scale of an activation is a number in a formula; that of a constant belongs to it.
    return operands.values.some((code) => node.inputs[code]?.constant) && elementCount(tensor.dims) > 1 ? 0 : undefined;
  }
  if (!isFloat(tensor.dtype) || record?.steering?.includes(index)) return undefined;
  const count = elementCount(tensor.dims);
  return count > 1 ? count : undefined;
}

/** How many weights a tensor holds where `node` reads it: those of 2 and 4 bits come several to a uint8. */
export function unpackedCount(tensor: Tensor, node: Node): number {
  return operatorOf(node)?.quantized?.count?.(node, tensor) ?? elementCount(tensor.dims);
}
