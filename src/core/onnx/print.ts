import { DTYPES, type DType } from "./dtype.ts";
import type { Attr, Dim, Graph, Model, Node, Value } from "./ir.ts";
import { arrayOf, elementCount, integersOf, type Tensor } from "./tensor.ts";

/**
 * A model as text, for golden tests and for reading: one line for each initializer and node, bodies indented below their node.
 *
 *     model ir_version 8, ai.onnx 17
 *     graph main(x: float32[n, 16]) -> (y: float32[n, 8])
 *       fc_w: float32[8, 16]
 *       y = Gemm(x, fc_w) transB=1
 *
 * The same model gives the same text: attributes are sorted, nothing depends on how the file was encoded. Tensors of up to 8 integers,
 * and single floats, are printed with their values.
 */
export function printModel(model: Model, options: PrintOptions = {}): string {
  const opsets = [...model.opsets].sort(([a], [b]) => (a < b ? -1 : 1));
  const imports = opsets.map(([domain, version]) => `, ${domain || "ai.onnx"} ${version}`).join("");
  const lines = [`model ir_version ${model.irVersion}${imports}`];
  for (const { domain, name, node } of model.functions) lines.push(`function ${domain}.${name} (${node.length} nodes)`);
  printGraph(model.graph, "graph", "", lines, options);
  return `${lines.join("\n")}\n`;
}

export interface PrintOptions {
  /** Adds a digest of the bytes of every tensor whose values are not printed. Reads all of them. */
  readonly digests?: boolean;
}

const MAX_PRINTED_INTEGERS = 8;

function printGraph(graph: Graph, title: string, indent: string, lines: string[], options: PrintOptions): void {
  const typed = (value: Value) => `${quoteName(value.name)}${typeOf(value)}`;
  const inputs = graph.inputs.map((value) => `${typed(value)}${value.constant ? " = default" : ""}`);
  lines.push(
    `${indent}${title} ${quoteName(graph.name)}(${inputs.join(", ")}) -> (${graph.outputs.map(typed).join(", ")})`,
  );
  for (const value of graph.initializers) {
    const content = value.constant ? printTensor(value.constant, options) : "sparse";
    lines.push(`${indent}  ${quoteName(value.name)}: ${content}`);
  }
  for (const node of graph.nodes) printNode(node, `${indent}  `, lines, options);
}

function printNode(node: Node, indent: string, lines: string[], options: PrintOptions): void {
  const outputs = node.outputs.map(({ name }) => quoteName(name)).join(", ");
  const inputs = node.inputs.map((value) => (value ? quoteName(value.name) : "_")).join(", ");
  const attrs = [...node.attrs].sort(([a], [b]) => (a < b ? -1 : 1));
  const operator = node.domain === "" ? node.opType : `${node.domain}.${node.opType}`;
  const plain = attrs.flatMap(([name, attr]) => {
    const text = printAttr(attr, options);
    return text === undefined ? [] : [` ${name}=${text}`];
  });
  lines.push(`${indent}${outputs} = ${operator}(${inputs})${plain.join("")}`);
  for (const [name, attr] of attrs) {
    const bodies = attr.type === "graph" ? [attr.value] : attr.type === "graphs" ? attr.value : [];
    for (const body of bodies) printGraph(body, `${name}:`, `${indent}  `, lines, options);
  }
}

/** Undefined for bodies, which get lines of their own. */
function printAttr(attr: Attr, options: PrintOptions): string | undefined {
  switch (attr.type) {
    case "float":
      return printFloat(attr.value);
    case "int":
      return `${attr.value}`;
    case "string":
      return JSON.stringify(attr.value);
    case "floats":
      return `[${attr.value.map(printFloat).join(", ")}]`;
    case "ints":
      return `[${attr.value.join(", ")}]`;
    case "strings":
      return JSON.stringify(attr.value);
    case "tensor":
      return printTensor(attr.value, options);
    case "tensors":
      return `[${attr.value.map((value) => printTensor(value, options)).join(", ")}]`;
    case "opaque":
      return "opaque";
    case "graph":
    case "graphs":
      return undefined;
  }
}

/** Seven digits tell every two float32 numbers of usual size apart, and hide what a double adds to them. */
function printFloat(value: number): string {
  return Number.isFinite(value) ? `${Number(value.toPrecision(7))}` : `${value}`;
}

function printTensor(value: Tensor, options: PrintOptions): string {
  const type = `${value.dtype}${printDims(value.dims)}`;
  const count = elementCount(value.dims);
  const { kind } = DTYPES[value.dtype];
  if (value.dtype === "float32" && count === 1) return `${type} {${printFloat(arrayOf(value, "float32")[0]!)}}`;
  if ((kind === "int" || kind === "uint" || kind === "bool") && count <= MAX_PRINTED_INTEGERS) {
    return `${type} {${integersOf(value).join(", ")}}`;
  }
  return options.digests ? `${type} #${digestOf(value.bytes)}` : type;
}

function typeOf(value: { readonly dtype: DType | undefined; readonly shape: readonly Dim[] | undefined }): string {
  if (value.dtype === undefined && value.shape === undefined) return "";
  return `: ${value.dtype ?? "?"}${value.shape ? printDims(value.shape) : "[…]"}`;
}

function printDims(dims: readonly Dim[]): string {
  return `[${dims.map((dim) => dim ?? "?").join(", ")}]`;
}

/** Names that are not plain words are quoted, so that a line can be read back by eye without doubt. */
function quoteName(name: string): string {
  if (name === "") return "_";
  return /^[\w.:/-]+$/.test(name) ? name : JSON.stringify(name);
}

/** 64 bits of FNV-1a, as two halves of 32 with different offsets. */
function digestOf(bytes: Uint8Array): string {
  let low = 0x811c9dc5;
  let high = 0xcbf29ce4;
  for (const byte of bytes) {
    low = Math.imul(low ^ byte, 0x01000193);
    high = Math.imul(high ^ byte, 0x01000193) ^ (low >>> 15);
  }
  return (high >>> 0).toString(16).padStart(8, "0") + (low >>> 0).toString(16).padStart(8, "0");
}
