import type { AttributeProto } from "onnx-buf";
import type { Graph } from "./graph.ts";
import type { Tensor } from "./tensor.ts";

export type Attr = (
  | { readonly type: "float"; readonly value: number }
  | { readonly type: "int"; readonly value: number }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "tensor"; readonly value: Tensor }
  | { readonly type: "graph"; readonly value: Graph }
  | { readonly type: "floats"; readonly value: readonly number[] }
  | { readonly type: "ints"; readonly value: readonly number[] }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "tensors"; readonly value: readonly Tensor[] }
  | { readonly type: "graphs"; readonly value: readonly Graph[] }
  /** Sparse tensors, types and references to function attributes: carried along, not looked into. */
  | { readonly type: "opaque"; readonly value: null }
) & { readonly source?: AttributeProto };

export type AttrType = Attr["type"];

/** The graphs in an attribute. */
export function bodiesOf(attr: Attr | undefined): readonly Graph[] {
  if (attr?.type === "graph") return [attr.value];
  return attr?.type === "graphs" ? attr.value : [];
}
