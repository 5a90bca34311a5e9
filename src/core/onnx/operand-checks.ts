import { type AttributeProto, type NodeProto, type TensorProto, TensorProto_DataLocation } from "onnx-buf";
import { CoreError } from "../errors.ts";
import type { OperatorRecord } from "../operators/operator-record.ts";
import { type OpType, operatorOf } from "../operators/operators.ts";
import { dtypeOfOnnx } from "./dtype.ts";
import { LIMITS, quoted } from "./limits.ts";

/**
 * What constant operands ask of the runtime. onnxruntime computes with constants while it loads a model, so that loading is running: a file
 * of 152 bytes can ask for 287 MB (a ConstantOfShape), or for more than any machine has. And its shape inference trusts that the
 * ranks of a convolution fit each other and reads past the end when they do not (microsoft/onnxruntime#28731).
 */

/** Constants longer than this are no shapes, and are not looked into. */
const MAX_KNOWN_NUMBERS = 64;

/** What is known of the values that a node can read: numbers of small constants, dims of constants, declared ranks. */
export class KnownValues {
  readonly #numbers = new Map<string, readonly number[]>();
  readonly #elements = new Map<string, number>();
  readonly #ranks = new Map<string, number>();
  readonly #outer: KnownValues | undefined;

  constructor(outer?: KnownValues) {
    this.#outer = outer;
  }

  numbers(name: string | undefined): readonly number[] | undefined {
    return name ? (this.#numbers.get(name) ?? this.#outer?.numbers(name)) : undefined;
  }

  elements(name: string | undefined): number | undefined {
    return name ? (this.#elements.get(name) ?? this.#outer?.elements(name)) : undefined;
  }

  rank(name: string | undefined): number | undefined {
    return name ? (this.#ranks.get(name) ?? this.#outer?.rank(name)) : undefined;
  }

  declareRank(name: string, rank: number): void {
    if (!this.#ranks.has(name)) this.#ranks.set(name, rank);
  }

  addTensor(name: string, proto: TensorProto): void {
    this.#ranks.set(name, proto.dims.length);
    this.#elements.set(name, product(proto.dims.map(Number)));
    const numbers = numbersOf(proto);
    if (numbers) this.#numbers.set(name, numbers);
  }

  /** Follows constants through the nodes that exporters put between a constant and a shape operand. */
  addNode(node: NodeProto): void {
    const [output] = node.output;
    if (!output) return;
    const known =
      node.opType === "Constant"
        ? constantNumbers(node)
        : FOLLOWED[node.opType]?.(node.input.map((x) => this.numbers(x)));
    if (!known || known.length > MAX_KNOWN_NUMBERS) return;
    this.#numbers.set(output, known);
    this.#elements.set(output, known.length);
  }
}

type Operands = readonly (readonly number[] | undefined)[];
type Follow = (inputs: Operands) => readonly number[] | undefined;

const first: Follow = ([x]) => x;

function elementwise(apply: (a: number, b: number) => number): Follow {
  return ([a, b]) => {
    if (!a || !b || (a.length !== b.length && a.length !== 1 && b.length !== 1)) return undefined;
    const length = Math.max(a.length, b.length);
    return Array.from({ length }, (_, i) => apply(a[a.length === 1 ? 0 : i]!, b[b.length === 1 ? 0 : i]!));
  };
}

const FOLLOWED: Readonly<Record<string, Follow>> = {
  Identity: first,
  Cast: first,
  Unsqueeze: first,
  Squeeze: first,
  Reshape: first,
  Concat: (inputs) => (inputs.every((x) => x !== undefined) ? (inputs.flat() as number[]) : undefined),
  Add: elementwise((a, b) => a + b),
  Sub: elementwise((a, b) => a - b),
  Mul: elementwise((a, b) => a * b),
} satisfies Partial<Record<OpType, Follow>>;

/** The numbers of a Constant node that are not in a tensor; `addTensor` takes the tensor. */
function constantNumbers(node: NodeProto): readonly number[] | undefined {
  for (const { name, i, f, ints, floats } of node.attribute) {
    if (name === "value_int") return [Number(i)];
    if (name === "value_ints") return ints.map(Number);
    if (name === "value_float") return [f];
    if (name === "value_floats") return floats;
  }
  return undefined;
}

const RAW_READERS = {
  int64: (view: DataView, at: number) => Number(view.getBigInt64(8 * at, true)),
  int32: (view: DataView, at: number) => view.getInt32(4 * at, true),
  float32: (view: DataView, at: number) => view.getFloat32(4 * at, true),
  float64: (view: DataView, at: number) => view.getFloat64(8 * at, true),
} as const;

function numbersOf(proto: TensorProto): readonly number[] | undefined {
  const read = RAW_READERS[dtypeOfOnnx(proto.dataType) as keyof typeof RAW_READERS];
  const count = product(proto.dims.map(Number));
  if (!read || count > MAX_KNOWN_NUMBERS || proto.dataLocation === TensorProto_DataLocation.EXTERNAL) return undefined;
  const { int64Data, int32Data, floatData, doubleData, rawData } = proto;
  if (rawData.length === 0) return [...int64Data.map(Number), ...int32Data, ...floatData, ...doubleData];
  const view = new DataView(rawData.buffer, rawData.byteOffset, rawData.byteLength);
  return Array.from({ length: count }, (_, at) => read(view, at));
}

/**
 * How many elements a node makes at least, undefined when its operands are not constant. Inputs that are not constant count as one
 * element: they are as large as the caller makes them.
 */
type Making = (node: NodeProto, known: KnownValues) => number | undefined;

const MAKERS: Readonly<Record<string, Making>> = {
  ConstantOfShape: (node, known) => product(known.numbers(node.input[0])),
  Expand: (node, known) => product(known.numbers(node.input[1])?.map((dim) => Math.max(dim, 1))),
  Tile: (node, known) => times(product(known.numbers(node.input[1])), known.elements(node.input[0])),
  Range: (node, known) => {
    const [start, limit, delta] = node.input.map((name) => known.numbers(name)?.[0]);
    if (start === undefined || limit === undefined || !delta) return undefined;
    return Math.max(0, Math.ceil((limit - start) / delta));
  },
  Pad: (node, known) => {
    const pads = ints(node, "pads") ?? known.numbers(node.input[1]);
    const axes = (pads?.length ?? 0) / 2;
    return (
      pads && product(pads.slice(0, axes).map((before, axis) => Math.max(1, 1 + before + (pads[axis + axes] ?? 0))))
    );
  },
  Resize: (node, known) => {
    const sizes = product(nonEmpty(known.numbers(node.input[3])));
    const scales =
      nonEmpty(known.numbers(node.input[2])) ?? (node.input.length === 2 ? known.numbers(node.input[1]) : undefined);
    return sizes ?? times(product(scales), known.elements(node.input[0]));
  },
  Upsample: (node, known) =>
    times(product(attribute(node, "scales")?.floats ?? known.numbers(node.input[1])), known.elements(node.input[0])),
  OneHot: (node, known) => times(known.numbers(node.input[1])?.[0], known.elements(node.input[0])),
  CenterCropPad: (node, known) => product(known.numbers(node.input[1])),
  RandomNormal: (node) => product(ints(node, "shape")),
  RandomUniform: (node) => product(ints(node, "shape")),
  HannWindow: (node, known) => known.numbers(node.input[0])?.[0],
  HammingWindow: (node, known) => known.numbers(node.input[0])?.[0],
  BlackmanWindow: (node, known) => known.numbers(node.input[0])?.[0],
  MelWeightMatrix: (node, known) => product(node.input.slice(0, 2).map((name) => known.numbers(name)?.[0] ?? 1)),
} satisfies Partial<Record<OpType, Making>>;

/** Elements that `node` makes out of constants. Throws `limit_exceeded` when they, or their axes, are too many. */
export function checkMadeElements(node: NodeProto, known: KnownValues): number {
  const made = MAKERS[node.opType]?.(node, known) ?? 0;
  if (!(made <= LIMITS.madeElements)) {
    throw new CoreError(
      "limit_exceeded",
      `Node ${quoted(labelOf(node))} (${node.opType}) makes ${made} elements out of a constant shape (at most ${LIMITS.madeElements}).`,
      labelOf(node),
    );
  }
  const operand = recordOf(node)?.rankFrom;
  const axes = operand === undefined ? 0 : (ints(node, "axes")?.length ?? known.elements(node.input[operand]) ?? 0);
  if (axes > LIMITS.rank) {
    throw new CoreError(
      "limit_exceeded",
      `Node ${quoted(labelOf(node))} (${node.opType}) makes a tensor of ${axes} axes (at most ${LIMITS.rank}).`,
      labelOf(node),
    );
  }
  return made;
}

/** Lists that have one entry for each spatial axis, or two. */
const WINDOW_ATTRIBUTES = { kernel_shape: 1, strides: 1, dilations: 1, pads: 2 } as const;

/** Throws `invalid_model` unless everything that says how many spatial axes a window has says the same. */
export function checkWindow(node: NodeProto, known: KnownValues): void {
  const window = recordOf(node)?.window;
  if (!window) return;
  const claims = new Map<string, number>();
  const rank = known.rank(node.input[0]);
  if (rank !== undefined) claims.set("the input", rank - 2);
  const weightRank = window.weight === undefined ? undefined : known.rank(node.input[window.weight]);
  if (weightRank !== undefined) claims.set("the weight", weightRank - 2);
  for (const [name, perAxis] of Object.entries(WINDOW_ATTRIBUTES)) {
    const list = nonEmpty(ints(node, name));
    if (list) claims.set(name, list.length / perAxis);
  }
  const [[firstName, axes] = [], ...others] = claims;
  for (const [name, count] of others) {
    if (count === axes) continue;
    throw new CoreError(
      "invalid_model",
      `Node ${quoted(labelOf(node))} (${node.opType}): ${firstName} has ${axes} spatial axes and ${name} has ${count}.`,
      labelOf(node),
    );
  }
}

function recordOf({ domain, opType }: NodeProto): OperatorRecord | undefined {
  return operatorOf({ domain: domain === "ai.onnx" ? "" : domain, opType });
}

/** How messages name a node: by its name, or by its first output. */
export function labelOf(node: NodeProto): string {
  return node.name || node.output.find((name) => name !== "") || node.opType;
}

function attribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((candidate) => candidate.name === name);
}

function ints(node: NodeProto, name: string): readonly number[] | undefined {
  return attribute(node, name)?.ints.map(Number);
}

function nonEmpty(numbers: readonly number[] | undefined): readonly number[] | undefined {
  return numbers && numbers.length > 0 ? numbers : undefined;
}

function product(numbers: readonly number[]): number;
function product(numbers: readonly number[] | undefined): number | undefined;
function product(numbers: readonly number[] | undefined): number | undefined {
  return numbers?.reduce((result, number) => result * number, 1);
}

function times(factor: number | undefined, elements: number | undefined): number | undefined {
  return factor === undefined ? undefined : factor * (elements ?? 1);
}
