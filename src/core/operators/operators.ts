/** Every operator that something here knows about, by domain. `core/operators/<family>.ts` hold the records. */
import type { Node, Value } from "../onnx/ir.ts";
import { ACTIVATION } from "./activation.ts";
import { CONTRIB } from "./contrib.ts";
import { CONTROL } from "./control.ts";
import { CONVOLUTION } from "./convolution.ts";
import { ELEMENTWISE } from "./elementwise.ts";
import { GENERATION } from "./generation.ts";
import { MATRIX_PRODUCT } from "./matrix-product.ts";
import { MOVEMENT } from "./movement.ts";
import { NORMALIZATION } from "./normalization.ts";
import type { OperatorRecord } from "./operator-record.ts";
import { POOLING } from "./pooling.ts";
import { QUANTIZATION } from "./quantization.ts";
import { RECURRENT_LAYERS } from "./recurrent.ts";
import { REDUCTION } from "./reduction.ts";

const ONNX = {
  ...CONVOLUTION,
  ...MATRIX_PRODUCT,
  ...RECURRENT_LAYERS,
  ...NORMALIZATION,
  ...ACTIVATION,
  ...ELEMENTWISE,
  ...REDUCTION,
  ...POOLING,
  ...MOVEMENT,
  ...GENERATION,
  ...QUANTIZATION,
  ...CONTROL,
} as const;

/** The name of an operator of ai.onnx. Tables keyed by it do not compile with a name that is no operator. */
export type OpType = keyof typeof ONNX;
/** The name of an operator of com.microsoft. */
export type ContribOpType = keyof typeof CONTRIB;

export const ONNX_OPERATORS: Readonly<Record<OpType, OperatorRecord>> = ONNX;
export const CONTRIB_OPERATORS: Readonly<Record<ContribOpType, OperatorRecord>> = CONTRIB;

const BY_DOMAIN = new Map<string, ReadonlyMap<string, OperatorRecord>>([
  ["", new Map(Object.entries(ONNX_OPERATORS))],
  ["com.microsoft", new Map(Object.entries(CONTRIB_OPERATORS))],
]);

/** What is known of a node's operator; undefined for operators of other domains and those that nothing here knows. */
export function operatorOf(node: Pick<Node, "domain" | "opType">): OperatorRecord | undefined {
  return BY_DOMAIN.get(node.domain)?.get(node.opType);
}

/** A number that steers a node: its attribute, or what its operator takes where there is none. */
export function parameterOf(node: Node, name: string): number {
  const number = node.float(name) ?? operatorOf(node)?.defaults?.[name];
  if (number === undefined) throw new Error(`No record says what ${node.opType} takes for ${name}.`);
  return number;
}

/** Whether a node is one of some operators of ai.onnx. */
export function isOneOf(node: Pick<Node, "domain" | "opType">, operators: ReadonlySet<OpType>): boolean {
  return node.domain === "" && (operators as ReadonlySet<string>).has(node.opType);
}

/** The entry of a table of ai.onnx operators for a node. */
export function entryFor<T>(
  table: Readonly<Partial<Record<OpType, T>>>,
  node: Pick<Node, "domain" | "opType">,
): T | undefined {
  return node.domain === "" && Object.hasOwn(table, node.opType) ? table[node.opType as OpType] : undefined;
}

/** Multiply-accumulates of one node, by the formulas of `operators/macs.ts`; undefined for other operators, and where shapes are not known. */
export function macsOf(node: Node, shapeOf: (value: Value) => readonly number[] | undefined): number | undefined {
  const shape = (value: Value | undefined) => (value ? shapeOf(value) : undefined);
  return operatorOf(node)?.macs?.(node, {
    input: (index) => shape(node.inputs[index]),
    output: () => shape(node.outputs[0]),
  });
}

/** Whether a node multiplies and accumulates, so that `macsOf` (or a null) must say how much. */
export function hasMacs(node: Node): boolean {
  return operatorOf(node)?.macs !== undefined;
}
