/**
 * How large a model may be in every direction that a file can name. The limits stand well above what real models need and below what hurts
 * this process or the runtime behind it; the reason is beside each.
 */
export const LIMITS = {
  /** protobuf cannot hold more in one message, and onnxruntime refuses more. Larger models keep weights in external data. */
  fileBytes: 2 ** 31 - 1,
  /** Nested messages; protobuf implementations stop at 100 as well. */
  messageDepth: 100,
  /** Messages in the file: each takes a few hundred bytes of heap once decoded. A language model of 50 000 nodes has 0.5 M. */
  messages: 4_000_000,
  /** Strings and byte strings in the file, for the same reason. */
  strings: 16_000_000,
  /** Numbers in `float_data`, `ints` and their like, which decode to JavaScript arrays. `raw_data` is not counted. */
  listedNumbers: 2 ** 26,
  /** One string, byte string or attribute; V8 cannot hold 512 MiB and nobody reads 16. */
  stringBytes: 2 ** 24,
  /** Names go into reports, logs and error messages. Exporters that join scopes reach a few hundred characters. */
  nameLength: 4096,
  /** If, Loop and Scan inside each other. Real models nest 5 deep. */
  graphDepth: 24,
  /** Nodes of all graphs and functions, and of the main graph once every function call is expanded. */
  nodes: 500_000,
  functions: 10_000,
  /** Functions that call functions; exporters inline most and nest a few. */
  functionDepth: 100,
  initializers: 500_000,
  /** Of one node; the operator with most has about 20. */
  attributes: 256,
  /** Of one node: variadic operators take some hundreds, bodies of loops as many values as they carry. */
  operands: 65_536,
  opsetImports: 256,
  /** Axes of a tensor. onnxruntime's shape inference trusts ranks; numpy stops at 64. */
  rank: 32,
  /** Elements of a tensor, and the size of one axis even where another is 0: keeps every product exact in a double. */
  elements: 2 ** 40,
  /** Elements that one node makes out of a constant shape, while the model is loaded: an 8192 x 8192 attention mask. */
  madeElements: 2 ** 26,
  /** The same, of all nodes together. */
  madeElementsTotal: 2 ** 28,
} as const;

export const IR_VERSIONS = { min: 3, max: 13 } as const;

/** A name from the file as it may stand in a message: quoted, shortened, without control characters. */
export function quoted(name: string): string {
  const printable = name.slice(0, 200).replace(/[\p{Cc}\p{Cf}]/gu, "?");
  return `"${printable}${name.length > 200 ? "…" : ""}"`;
}
