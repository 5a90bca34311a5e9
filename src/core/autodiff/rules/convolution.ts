/**
 * y[n,m,o] = Σ_{c,k} w[m,c,k] · x[n, c, o·s + k·δ − p]      (per group; strides s, dilations δ, pads p; any number of spatial axes)
 *
 *   dx: at stride 1, the convolution of dy with the kernel flipped in space and transposed in channels; otherwise ConvTranspose
 *   dw[m,c,k] = Σ_{n,o} dy[n,m,o] · x[n, c, o·s + k·δ − p]
 *   db[m] = Σ_{n,o} dy[n,m,o]
 *
 * The forms are chosen by measurement (`bench/train-kernels.ts`).
 */

import { dimsOf, type GraphBuilder, int, ints, range } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import type { OpType } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

/** What relates the two sides of a convolution. Every list has one entry for each spatial axis. */
export interface ConvGeometry {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly padsBefore: readonly number[];
  readonly padsAfter: readonly number[];
  readonly group: number;
}

/**
 * The geometry of a Conv, ConvTranspose or pooling node. `wide` are the spatial sizes of the padded side (a Conv's input), `narrow` of
 * the other; they settle `auto_pad`.
 */
export function geometryOf(
  node: Node,
  kernel: readonly number[],
  wide: readonly number[],
  narrow: readonly number[],
): ConvGeometry {
  const rank = kernel.length;
  const strides = node.ints("strides", Array(rank).fill(1));
  const dilations = node.ints("dilations", Array(rank).fill(1));
  const autoPad = node.string("auto_pad", "NOTSET");
  const pads = node.ints("pads", Array(2 * rank).fill(0));
  const reach = (i: number) => (kernel[i]! - 1) * dilations[i]! + 1;
  const same = range(rank).map((i) => Math.max(0, (narrow[i]! - 1) * strides[i]! + reach(i) - wide[i]!));
  const before = same.map((total) => (autoPad === "SAME_UPPER" ? Math.floor(total / 2) : Math.ceil(total / 2)));
  const isSame = autoPad.startsWith("SAME");
  return {
    kernel,
    strides,
    dilations,
    padsBefore: isSame ? before : autoPad === "VALID" ? Array(rank).fill(0) : pads.slice(0, rank),
    padsAfter: isSame
      ? same.map((total, i) => total - before[i]!)
      : autoPad === "VALID"
        ? Array(rank).fill(0)
        : pads.slice(rank),
    group: node.int("group", 1),
  };
}

/** dL/dx of a convolution from dy [N,M,…] and w [M,C/g,…]. */
export function convInputGradient(
  g: GraphBuilder,
  dy: Value,
  w: Value,
  geometry: ConvGeometry,
  dims: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] },
): Value {
  const { kernel, strides, dilations, padsBefore, padsAfter, group } = geometry;
  const reach = kernel.map((k, i) => (k - 1) * dilations[i]!);
  const before = reach.map((r, i) => r - padsBefore[i]!);
  const after = reach.map((r, i) => r - padsAfter[i]!);
  const unitStride = strides.every((s) => s === 1);
  if (unitStride && [...before, ...after].every((pad) => pad >= 0)) {
    const [m, c, ...window] = dims.w as [number, number, ...number[]];
    const weight = turned(g, w, group, dims.w);
    const dx = g.op("Conv", [dy, weight], {
      kernel_shape: ints(kernel),
      dilations: ints(dilations),
      pads: ints([...before, ...after]),
      group: int(group),
    });
    // What forms are fast depends on the sizes.
    dy.retype(dy.dtype, dims.y);
    weight.retype(weight.dtype, [group * c, m / group, ...window]);
    dx.retype(dx.dtype, dims.x);
    return dx;
  }
  const spatial = range(kernel.length);
  const produced = spatial.map(
    (i) => (dims.y[i + 2]! - 1) * strides[i]! + reach[i]! + 1 - padsBefore[i]! - padsAfter[i]!,
  );
  return g.op("ConvTranspose", [dy, w], {
    kernel_shape: ints(kernel),
    strides: ints(strides),
    dilations: ints(dilations),
    pads: ints([...padsBefore, ...padsAfter]),
    output_padding: ints(spatial.map((i) => dims.x[i + 2]! - produced[i]!)),
    group: int(group),
  });
}

/** w [M,C/g,…] with space flipped and channels transposed within each group: [C,M/g,…]. */
function turned(g: GraphBuilder, w: Value, group: number, dims: readonly number[]): Value {
  const [m, c, ...kernel] = dims as [number, number, ...number[]];
  const spatial = range(kernel.length);
  const flipped = g.flip(
    w,
    spatial.filter((i) => kernel[i]! > 1).map((i) => i + 2),
  );
  if (group === 1) return g.transpose(flipped, [1, 0, ...spatial.map((i) => i + 2)]);
  if (m === group && c === 1) return flipped;
  const grouped = g.reshape(flipped, [group, m / group, c, ...kernel]);
  return g.reshape(g.transpose(grouped, [0, 2, 1, ...spatial.map((i) => i + 3)]), [group * c, m / group, ...kernel]);
}

/** dL/dw [M,C/g,…] of a convolution from its input x [N,C,…] and dy [N,M,…]. */
function convWeightGradient(
  g: GraphBuilder,
  x: Value,
  dy: Value,
  geometry: ConvGeometry,
  dims: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] },
): Value {
  const [m, c] = dims.w as readonly [number, number];
  const { group } = geometry;
  const n = dims.x[0]!;
  const positions = elementCount(dims.y.slice(2));
  const isNarrow = group > 1 ? m / group <= 4 && c <= 4 : c >= MIN_TAP_CHANNELS && m * c <= MAX_EXCHANGED_CHANNELS;
  const isStrided = geometry.strides.some((stride) => stride > 1);
  if (isNarrow && (group > 1 || (isStrided && n > 1 && positions < MAX_LONG_POSITIONS))) {
    return exchangedWeightGradient(g, x, dy, geometry, dims);
  }
  const hasRows = geometry.kernel.length === 2 && geometry.kernel.some((k) => k > 1);
  if (group === 1 && hasRows && !isStrided && positions >= MIN_ROW_POSITIONS && c >= MIN_TAP_CHANNELS) {
    return rowWeightGradient(g, x, dy, geometry, dims, positions < MAX_LONG_POSITIONS);
  }
  if (group === 1 && n > 1 && positions < MAX_LONG_POSITIONS && c >= MIN_TAP_CHANNELS) {
    return longWeightGradient(g, x, dy, geometry, dims);
  }
  const taps = tapsOf(g, x, geometry, dims).map((tap) => g.reshape(tap, [n, group, c, positions]));
  const d = g.reshape(dy, [n, group, m / group, positions]);
  // dy times the inputs that a tap meets, one product for each sample and group, then the sum over samples.
  const product = (columns: Value, width: number) => {
    const products = g.matMul(d, g.transpose(columns, [0, 1, 3, 2]));
    return g.reshape(n === 1 ? products : g.sum(products, [0], false), [m, width]);
  };
  // Large maps: one product for each tap. Small ones: all taps side by side, so that a product is worth its start.
  if (positions >= MIN_TAP_POSITIONS && c >= MIN_TAP_CHANNELS) {
    const each = taps.map((tap) => g.reshape(product(tap, c), [m, c, 1]));
    return g.reshape(g.concat(each, 2), dims.w);
  }
  const all = g.reshape(product(g.concat(taps, 2), taps.length * c), [m, taps.length, c]);
  return g.reshape(taps.length === 1 ? all : g.transpose(all, [0, 2, 1]), dims.w);
}

/** From these sizes on a product for each tap is faster than copying the taps together (`bench/train-kernels.ts`). */
const MIN_TAP_POSITIONS = 400;
const MIN_TAP_CHANNELS = 8;

/** So many pairs of channels at most are worth a convolution with samples for channels, where taps would be strided slices (`bench/train-kernels.ts`). */
const MAX_EXCHANGED_CHANNELS = 512;

/** On smaller maps the zeros at the ends of rows cost more than copies save (`bench/train-kernels.ts`). */
const MIN_ROW_POSITIONS = 100;

/** Smaller maps are worth bringing the positions of all samples into one row (`bench/train-kernels.ts`). */
const MAX_LONG_POSITIONS = 200;

/**
 * On small maps the products of single samples are short, and their sum is over matrices as large as the weight. So samples and channels change places,
 * and each tap is one product over the positions of all samples: [M, N·P] · [N·P, C].
 */
function longWeightGradient(
  g: GraphBuilder,
  x: Value,
  dy: Value,
  geometry: ConvGeometry,
  dims: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] },
): Value {
  const [m, c] = dims.w as readonly [number, number];
  const [n, , ...size] = dims.x as readonly [number, number, ...number[]];
  const space = range(size.length).map((i) => i + 2);
  const length = n * elementCount(dims.y.slice(2));
  const rows = g.reshape(g.transpose(dy, [1, 0, ...space]), [m, length]);
  const turned = g.transpose(x, [1, 0, ...space]);
  const each = tapsOf(g, turned, geometry, { x: [c, n, ...size], y: [m, n, ...dims.y.slice(2)] }).map((tap) =>
    g.reshape(g.gemm(rows, g.reshape(tap, [c, length]), { transB: true }), [m, c, 1]),
  );
  return g.reshape(g.concat(each, 2), dims.w);
}

/**
 * At stride 1 taps need not be copied one by one. With x̃, the padded x, in rows of V, a kernel of k·l taps, dilations δ and ε, over the
 * positions (h, v) of H rows of V:
 *
 *   dw[m,c,i,j] = Σ_{n,h,v} x̃[n, c, h + i·δ, v] · e_j[n,m,h,v],   e_j[n,m,h,v] = dy[n, m, h, v − j·ε], 0 beside it
 *
 * So the rows of x̃ are gathered for all i at once, each e_j is one long piece of dy with zeros between its rows, and there are l products
 * [k·C, H·V] · [H·V, M]. `long`: over the positions of all samples, samples and channels exchanged; otherwise for each sample, and then summed.
 */
function rowWeightGradient(
  g: GraphBuilder,
  x: Value,
  dy: Value,
  { kernel, dilations, padsBefore, padsAfter }: ConvGeometry,
  dims: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] },
  long: boolean,
): Value {
  const [m, c] = dims.w as readonly [number, number];
  const n = dims.x[0]!;
  const [k, l] = kernel as readonly [number, number];
  const [rowDilation, columnDilation] = dilations as readonly [number, number];
  const [height, width] = dims.y.slice(2) as [number, number];
  const [tall, wide] = [0, 1].map((i) => dims.x[i + 2]! + padsBefore[i]! + padsAfter[i]!) as [number, number];
  const arranged = (value: Value) => (long ? g.transpose(value, [1, 0, 2, 3]) : value);
  // Samples whose positions are one row of a matrix, and how many such matrices there are.
  const [joined, stack] = long ? [n, 1] : [1, n];
  const length = joined * height * wide;

  const padded = g.reshape(g.pad(arranged(x), [0, 0, ...padsBefore], [0, 0, ...padsAfter]), [
    stack,
    c,
    joined * tall,
    wide,
  ]);
  const rows = range(k).flatMap((i) =>
    range(joined).flatMap((sample) => range(height).map((h) => sample * tall + h + i * rowDilation)),
  );
  const left = g.reshape(g.op("Gather", [padded, g.shape(rows)], { axis: int(2) }), [stack, k * c, length]);
  // A row of zeros before the first, so that every piece begins within.
  const lines = g.reshape(arranged(dy), [stack, m, joined * height, width]);
  const apart = g.pad(lines, [0, 0, 1, 0], [0, 0, 0, wide - width]);
  const flat = g.reshape(apart, [stack, m, wide + length]);
  const columns = range(l).map((j) => {
    const from = wide - j * columnDilation;
    const piece = g.slice(flat, [2], [from], [from + length]);
    const product = g.matMul(left, g.transpose(piece, [0, 2, 1]));
    return g.reshape(g.sum(product, [0], false), [c, k, m, 1]);
  });
  return g.transpose(g.concat(columns, 3), [2, 0, 1, 3]);
}

/** x padded, then for each kernel tap the part of it that the tap meets, [N, C, …output positions]. */
function tapsOf(
  g: GraphBuilder,
  x: Value,
  { kernel, strides, dilations, padsBefore, padsAfter }: ConvGeometry,
  dims: { readonly x: readonly number[]; readonly y: readonly number[] },
): readonly Value[] {
  const rank = kernel.length;
  const spatial = range(rank);
  const padded = g.pad(x, [0, 0, ...padsBefore], [0, 0, ...padsAfter]);
  const offsets = kernel.reduce<number[][]>(
    (all, k, axis) => all.flatMap((offset) => range(k).map((i) => [...offset, i * dilations[axis]!])),
    [[]],
  );
  const size = spatial.map((i) => dims.x[i + 2]! + padsBefore[i]! + padsAfter[i]!);
  return offsets.map((offset) => {
    const ends = spatial.map((i) => offset[i]! + (dims.y[i + 2]! - 1) * strides[i]! + 1);
    const whole = spatial.every((i) => offset[i] === 0 && strides[i] === 1 && ends[i] === size[i]);
    if (whole) return padded;
    return g.slice(
      padded,
      spatial.map((i) => i + 2),
      offset,
      ends,
      strides,
    );
  });
}

/**
 * Where there are few channels in a group, dw is a convolution itself: samples become channels, dy becomes the kernel, strides and dilations
 * change places. Input [C/g, g·N, …], kernel [M, N, …], `group` groups, result [C/g, M, …taps].
 */
function exchangedWeightGradient(
  g: GraphBuilder,
  x: Value,
  dy: Value,
  { kernel, strides, dilations, padsBefore, padsAfter, group }: ConvGeometry,
  dims: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] },
): Value {
  const [m, c] = dims.w as readonly [number, number];
  const [n, , ...size] = dims.x as readonly [number, number, ...number[]];
  const space = range(kernel.length);
  const grouped = g.transpose(g.reshape(x, [n, group, c, ...size]), [2, 1, 0, ...space.map((i) => i + 3)]);
  const input = g.reshape(grouped, [c, group * n, ...size]);
  const weight = g.transpose(dy, [1, 0, ...space.map((i) => i + 2)]);
  // Where the strides left inputs over, the result would have taps beyond the kernel: less padding makes them fewer.
  const room = space.map((i) => size[i]! + padsBefore[i]! + padsAfter[i]! - (dims.y[i + 2]! - 1) * strides[i]! - 1);
  const spare = space.map((i) => Math.min(padsAfter[i]!, room[i]! - (kernel[i]! - 1) * dilations[i]!));
  const result = g.op("Conv", [input, weight], {
    kernel_shape: ints(dims.y.slice(2)),
    strides: ints(dilations),
    dilations: ints(strides),
    pads: ints([...padsBefore, ...space.map((i) => padsAfter[i]! - spare[i]!)]),
    group: int(group),
  });
  const produced = space.map((i) => Math.floor((room[i]! - spare[i]!) / dilations[i]!) + 1);
  // What forms are fast depends on the sizes.
  input.retype(input.dtype, [c, group * n, ...size]);
  weight.retype(weight.dtype, [m, n, ...dims.y.slice(2)]);
  result.retype(result.dtype, [c, m, ...produced]);
  const exact = space.every((i) => produced[i] === kernel[i]);
  const axes = space.map((i) => i + 2);
  const taps = exact ? result : g.slice(result, axes, Array(kernel.length).fill(0), kernel);
  return c === 1 ? g.reshape(taps, [m, 1, ...kernel]) : g.transpose(taps, [1, 0, ...axes]);
}

/** The sum over samples and space, [M]. */
function biasGradient(g: GraphBuilder, dy: Value, rank: number): Value {
  return g.sum(dy, [0, ...range(rank).map((i) => i + 2)], false);
}

const conv: GradientRule = {
  backward: (g, node, [dy], wanted) => {
    const [x, w, bias] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
    const dims = { x: dimsOf(x), w: dimsOf(w), y: dimsOf(node.outputs[0]!) };
    const geometry = geometryOf(node, dims.w.slice(2), dims.x.slice(2), dims.y.slice(2));
    return [
      wanted[0] ? convInputGradient(g, dy!, w, geometry, dims) : undefined,
      wanted[1] ? convWeightGradient(g, x, dy!, geometry, dims) : undefined,
      bias && wanted[2] ? biasGradient(g, dy!, geometry.kernel.length) : undefined,
    ];
  },
};

/** The transpose of a convolution with input and output exchanged: dx is that convolution of dy, dw its weight gradient. */
const convTranspose: GradientRule = {
  backward: (g, node, [dy], wanted) => {
    const [x, w, bias] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
    const dims = { x: dimsOf(node.outputs[0]!), w: dimsOf(w), y: dimsOf(x) };
    const geometry = transposedGeometry(node, dims);
    const { kernel, strides, dilations, padsBefore, padsAfter, group } = geometry;
    const dx = () =>
      g.op("Conv", [dy, w], {
        kernel_shape: ints(kernel),
        strides: ints(strides),
        dilations: ints(dilations),
        pads: ints([...padsBefore, ...padsAfter]),
        group: int(group),
      });
    return [
      wanted[0] ? dx() : undefined,
      wanted[1] ? convWeightGradient(g, dy!, x, geometry, dims) : undefined,
      bias && wanted[2] ? biasGradient(g, dy!, kernel.length) : undefined,
    ];
  },
};

/** Pads of a ConvTranspose follow from its output size where `output_shape` or `auto_pad` gives that instead. */
function transposedGeometry(
  node: Node,
  dims: { readonly x: readonly number[]; readonly w: readonly number[]; readonly y: readonly number[] },
): ConvGeometry {
  const geometry = geometryOf(node, dims.w.slice(2), dims.x.slice(2), dims.y.slice(2));
  if (!node.attrs.has("output_shape") && !node.string("auto_pad", "NOTSET").startsWith("SAME")) return geometry;
  const { kernel, strides, dilations } = geometry;
  const extra = node.ints("output_padding", Array(kernel.length).fill(0));
  const total = kernel.map(
    (k, i) => (dims.y[i + 2]! - 1) * strides[i]! + extra[i]! + (k - 1) * dilations[i]! + 1 - dims.x[i + 2]!,
  );
  const upper = node.string("auto_pad", "NOTSET") === "SAME_UPPER";
  const before = total.map((t) => (upper ? Math.floor(t / 2) : t - Math.floor(t / 2)));
  return { ...geometry, padsBefore: before, padsAfter: total.map((t, i) => t - before[i]!) };
}

export const CONVOLUTION = { Conv: conv, ConvTranspose: convTranspose } as const satisfies Partial<
  Record<OpType, GradientRule>
>;
