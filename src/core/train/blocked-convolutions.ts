/**
 * Convolutions of a step graph in onnxruntime's blocked layout. Its fast kernels for the CPU compute on [N, C/b, H, W, b], and it chooses them itself where
 * weights are constants only, which those of a network in training are not. Here the nodes are written into the graph, weights brought into the
 * blocked form in every step:
 *
 *     x [N, C, H, W] → ReorderInput → Conv (com.microsoft.nchwc) → ReorderOutput → y [N, M, H, W]
 *     w [M, C, k, l] → in the order of [M/b, C/b, k, l, C's b, M's b]
 *
 * Channels that do not fill a block are filled up with zeros. An input of fewer channels than a block is read as it is, by a kernel of its own, whose
 * weights have only output channels blocked.
 */
import { CoreError } from "../errors.ts";
import { GraphBuilder, int, range } from "../onnx/graph-builder.ts";
import { type Graph, Model, type Node, type Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { elementCount, floatsOf, tensorOf } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { OpenSession } from "../runtime/session.ts";

const DOMAIN = "com.microsoft.nchwc";

/** Input channels that ReorderInput takes come in such groups. */
const ALIGNMENT = 4;
/** Smaller maps are sooner computed as products of matrices (`bench/train-kernels.ts`). */
const MIN_POSITIONS = 36;
/** Multiplications in a step: with fewer, the nodes around a convolution take longer than it saves. */
const MIN_PRODUCTS = 2 ** 20;

interface Sizes {
  readonly x: readonly number[];
  readonly w: readonly number[];
  readonly y: readonly number[];
}

/**
 * Writes the convolutions of a graph for which that is faster in blocks of so many channels. Shapes of what they read and make must be known; others stay
 * as they are. Answers how many there were.
 */
export function blockConvolutions(graph: Graph, block: number): number {
  const g = new GraphBuilder(graph);
  const reordered = new Map<Value, Value>();
  let count = 0;
  for (const node of [...graph.nodes]) {
    const sizes = sizesOf(node);
    if (!sizes || !isFaster(sizes, block)) continue;
    g.before(node, () => g.within(node.label, () => writeBlocked(g, node, sizes, block, reordered)));
    graph.remove(node);
    count++;
  }
  if (count > 0) graph.model.requireOpset(DOMAIN, 1);
  return count;
}

/** The sizes of a convolution of one group over two axes whose weights change; undefined for anything else. */
function sizesOf(node: Node): Sizes | undefined {
  const [x, w] = node.inputs;
  const [y] = node.outputs;
  if (node.opType !== "Conv" || node.domain !== "" || node.int("group", 1) !== 1 || w?.constant) return undefined;
  const sizes = [x, w, y].map((value) => {
    const { dtype, shape } = value!;
    const isKnown = dtype === "float32" && shape?.length === 4 && shape.every((dim) => typeof dim === "number");
    return isKnown ? (shape as readonly number[]) : undefined;
  });
  const [xDims, wDims, yDims] = sizes;
  return xDims && wDims && yDims && { x: xDims, w: wDims, y: yDims };
}

function isFaster({ x: [, channels = 0], w: [, , height = 0, width = 0], y }: Sizes, block: number): boolean {
  const [n = 0, outputs = 0, rows = 0, columns = 0] = y;
  if (channels < block ? channels < 3 : channels % ALIGNMENT !== 0) return false;
  const products = n * outputs * rows * columns * channels * height * width;
  // Weight gradients can be convolutions with a window as large as a map.
  return Math.max(rows * columns, height * width) >= MIN_POSITIONS && products >= MIN_PRODUCTS;
}

function writeBlocked(g: GraphBuilder, node: Node, sizes: Sizes, block: number, reordered: Map<Value, Value>): void {
  const [x, w, bias] = node.inputs as [Value, Value, Value | undefined];
  const [y] = node.outputs as [Value];
  const [m, c] = sizes.w as [number, number];
  const filled = (channels: number) => Math.ceil(channels / block) * block;
  const isPlain = c < block;
  let input = x;
  if (!isPlain) {
    input = reordered.get(x) ?? g.op("ReorderInput", [x], {}, DOMAIN);
    reordered.set(x, input);
  }
  const inputs = [input, blockedWeight(g, w, sizes.w, isPlain ? c : filled(c), filled(m), block)];
  if (bias) inputs.push(g.pad(bias, [0], [filled(m) - m]));
  const made = g.op("Conv", inputs, Object.fromEntries(node.attrs), DOMAIN);
  const result = g.op("ReorderOutput", [made], { channels: int(m) }, DOMAIN);
  result.retype(y.dtype, y.shape);
  g.graph.replaceUses(y, result);
}

function blockedWeight(
  g: GraphBuilder,
  w: Value,
  dims: readonly number[],
  inputs: number,
  outputs: number,
  block: number,
): Value {
  const [m = 0, c = 0, ...kernel] = dims;
  const filled = g.pad(
    w,
    range(dims.length).map(() => 0),
    [outputs - m, inputs - c, ...kernel.map(() => 0)],
  );
  // One axis at a time: onnxruntime transposes matrices, and moves single axes in front of others, several times as fast as it permutes six axes.
  const taps = elementCount(kernel);
  const [rows, blocks] = [inputs * taps, outputs / block];
  const turned = g.transpose(g.reshape(filled, [outputs, rows]), [1, 0]);
  const outer = g.transpose(g.reshape(turned, [rows, blocks, block]), [1, 0, 2]);
  const split =
    inputs < block
      ? outer
      : g.transpose(g.reshape(outer, [blocks * (inputs / block), block, taps, block]), [0, 2, 1, 3]);
  return g.reshape(split, [outputs, inputs, ...kernel]);
}

/** Sizes that kernels are known to have; a multiple of each is what they are told by. */
const BLOCKS = [16, 8];
const CHANNELS = 16;

const FOUND = new WeakMap<OpenSession, Promise<number | undefined>>();

/**
 * How many channels onnxruntime's kernels on this machine have in a block: those with which a convolution comes out right. Undefined where there are no such
 * kernels. Found once for each way to open sessions.
 */
export function blockOnThisMachine(openSession: OpenSession): Promise<number | undefined> {
  const found = FOUND.get(openSession) ?? findBlock(openSession);
  FOUND.set(openSession, found);
  return found;
}

async function findBlock(openSession: OpenSession): Promise<number | undefined> {
  // Elsewhere a layout without blocks is possible, for which the kernels of the layout were not made.
  if (process.arch !== "x64") return undefined;
  const dims = [CHANNELS, CHANNELS, 1, 1];
  const random = new Random(1, "blocked convolution");
  const drawn = (count: number) => {
    const values = new Float32Array(count);
    random.fillNormal(values);
    return values;
  };
  const feeds = {
    x: tensorOf("float32", [1, CHANNELS, 2, 2], drawn(4 * CHANNELS)),
    w: tensorOf("float32", dims, drawn(CHANNELS ** 2)),
  };
  const run = async (block: number | undefined) => {
    const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "block" });
    const { graph } = model;
    const g = new GraphBuilder(graph);
    const y = g.op("Conv", [graph.addInput("x", "float32", [1, CHANNELS, 2, 2]), graph.addInput("w", "float32", dims)]);
    y.retype("float32", [1, CHANNELS, 2, 2]);
    y.name = "y";
    graph.addOutput(y);
    if (block !== undefined) {
      g.before(y.producer!, () => writeBlocked(g, y.producer!, { x: [], w: dims, y: [] }, block, new Map()));
      graph.remove(y.producer!);
      model.requireOpset(DOMAIN, 1);
    }
    const session = await openSession({ bytes: modelToBytes(model) });
    try {
      return floatsOf((await session.run(feeds)).y!);
    } finally {
      await session.close();
    }
  };
  const expected = await run(undefined);
  for (const block of BLOCKS) {
    try {
      const actual = await run(block);
      if (actual.every((value, i) => Math.abs(value - expected[i]!) < 1e-4)) return block;
    } catch (error) {
      // A runtime without these operators.
      if (!(error instanceof CoreError) || error.code !== "invalid_model") throw error;
    }
  }
  return undefined;
}
