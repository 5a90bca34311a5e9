/**
 * Convolutions of small windows with fewer multiplications (minimal filtering; Winograd 1980, for networks Lavin and Gray 2015). A tile of
 * 4 x 4 outputs of a window of 3 x 3 sees 6 x 6 inputs, and
 *
 *     y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A
 *
 * multiplies 36 numbers where the definition multiplies 144. Summed over channels the middle is 36 products of matrices, one for each place of a tile:
 * [tiles, C]·[C, M]. A and B for all tiles of a row are one matrix with a band, which has the padding in it; so bringing x into tiles and y out of them are
 * products as well, of [rows, W] with a constant, and nothing is copied from place to place. With a stride of 2 the taps that meet even inputs
 * and those that meet odd ones are two shorter windows, whose places stand side by side: 9 along an axis, 81 products for 144.
 *
 * The graph is rewritten before it is differentiated: gradients are those of these products, share what was brought into tiles, and need no
 * other forms. A, G and B come from polynomials through points (Toom and Cook). Of the points that were tried these have the least error, 3 to 4 millionths of the
 * largest output; the sum of the definition has about a tenth of that.
 */
import { geometryOf } from "../autodiff/rules/convolution.ts";
import { GraphBuilder, range } from "../onnx/graph-builder.ts";
import type { Graph, Node, Value } from "../onnx/ir.ts";
import { elementCount } from "../onnx/tensor.ts";

type Matrix = readonly (readonly number[])[];
type Pair<T = number> = readonly [T, T];

/** Outputs of a tile along each axis. */
const TILE = 4;
/** Taps of a window along each axis, at most: errors grow with the number of points. */
const MAX_WINDOW = 3;
/** Where polynomials are evaluated, besides infinity. */
const POINTS = [0, 1, -1, 0.5, -2];
/** Maps of so many positions at most are brought into tiles by one product, larger ones by one for each axis. */
const MAX_WHOLE_POSITIONS = 64;

/** What it costs to write a number of a tile, in multiplications of a large product. */
const WRITE_COST = 51;
/** Multiplications of a convolution: with fewer, the nodes around the products take longer than they save. */
const MIN_PRODUCTS = 2 ** 24;

/** The three matrices along one axis: a row for each place of a tile, columns for outputs, taps and inputs. */
interface Forms {
  readonly a: Matrix;
  readonly g: Matrix;
  readonly b: Matrix;
}

interface Sizes {
  readonly n: number;
  /** Channels of x and of y. */
  readonly c: number;
  readonly m: number;
  /** Rows and columns of x, of the window and of y. */
  readonly x: Pair;
  readonly window: Pair;
  readonly y: Pair;
  readonly strides: Pair;
  /** What is padded before. */
  readonly pads: Pair;
  readonly forms: Pair<Forms>;
  /** Places of a tile, and tiles, along each axis. */
  readonly places: Pair;
  readonly tiles: Pair;
}

/**
 * Rewrites the convolutions of a graph for which that is faster, or all that can be where `isWorthIt` says so. Shapes must be known; those of new values
 * are. Answers how many there were.
 */
export function useFewerProducts(graph: Graph, isWorthIt: (sizes: Sizes) => boolean = isFaster): number {
  const g = new GraphBuilder(graph);
  let count = 0;
  for (const node of [...graph.nodes]) {
    const sizes = sizesOf(node);
    if (!sizes || !isWorthIt(sizes)) continue;
    const [y] = node.outputs as [Value];
    const { name } = y;
    const result = g.before(node, () => g.within(node.label, () => convolution(new Emitter(g), node, sizes)));
    graph.replaceUses(y, result);
    graph.remove(node);
    result.name = name;
    count++;
  }
  return count;
}

/** The sizes of a convolution of one group over two axes whose weights change; undefined for anything else. */
function sizesOf(node: Node): Sizes | undefined {
  const [x, w] = node.inputs;
  if (node.opType !== "Conv" || node.domain !== "" || node.int("group", 1) !== 1 || w?.constant) return undefined;
  const [xDims, wDims, yDims] = [x, w, node.outputs[0]].map((value) => {
    const { dtype, shape } = value!;
    const isKnown = dtype === "float32" && shape?.length === 4 && shape.every((dim) => typeof dim === "number");
    return isKnown ? (shape as readonly number[]) : undefined;
  });
  if (!xDims || !wDims || !yDims) return undefined;
  const [n, c, ...from] = xDims as [number, number, number, number];
  const [, m, ...to] = yDims as [number, number, number, number];
  const window = wDims.slice(2) as [number, number];
  const { strides, dilations, padsBefore } = geometryOf(node, window, from, to);
  if (window.some((taps) => taps > MAX_WINDOW) || dilations.some((step) => step > 1)) return undefined;
  const forms = window.map((taps, axis) => formsOf(taps, strides[axis]!)) as [Forms, Forms];
  return {
    ...{ n, c, m, x: from, window, y: to, forms },
    strides: strides as readonly number[] as Pair,
    pads: padsBefore as readonly number[] as Pair,
    places: [forms[0].a.length, forms[1].a.length],
    tiles: [Math.ceil(to[0] / TILE), Math.ceil(to[1] / TILE)],
  };
}

/** By the multiplications of forward and backward pass: three products of all channels, and twice each x and y brought into tiles or out of them. */
function isFaster({ n, c, m, x, window, y, strides, places, tiles }: Sizes): boolean {
  const direct = elementCount(window) * c * m * elementCount(y);
  const products = elementCount(places) * elementCount(tiles) * c * m;
  const [high, wide] = [places[0] * tiles[0], places[1] * tiles[1]];
  // One axis after the other, and then what is written: as many numbers as the places of a tile, for what a tile covers.
  const moved = ([rows, columns]: Pair, covered: number) =>
    rows * wide * (columns + high) + (WRITE_COST * elementCount(places) * rows * columns) / covered;
  const fewer = products + (2 / 3) * (c * moved(x, TILE ** 2 * elementCount(strides)) + m * moved(y, TILE ** 2));
  return n * direct >= MIN_PRODUCTS && direct > fewer;
}

/** Operators with the shapes of what they make. */
class Emitter {
  readonly g: GraphBuilder;

  constructor(g: GraphBuilder) {
    this.g = g;
  }

  shaped(value: Value, dims: readonly number[]): Value {
    value.retype("float32", dims);
    return value;
  }

  reshape(value: Value, dims: readonly number[]): Value {
    return this.shaped(this.g.reshape(value, dims), dims);
  }

  #matrix(rows: Matrix): Value {
    return this.g.constant("float32", [rows.length, rows[0]!.length], rows.flat());
  }

  /** left · valueᵀ, where `value` is so many rows as wide as `left`. */
  fromRows(left: Matrix, value: Value, rows: number): Value {
    const matrix = this.reshape(value, [rows, left[0]!.length]);
    return this.shaped(this.g.gemm(this.#matrix(left), matrix, { transB: true }), [left.length, rows]);
  }

  /** valueᵀ · right, where `value` has the height of `right` and so many columns. */
  toRows(value: Value, right: Matrix, columns: number): Value {
    const matrix = this.reshape(value, [right.length, columns]);
    return this.shaped(this.g.gemm(matrix, this.#matrix(right), { transA: true }), [columns, right[0]!.length]);
  }
}

/** The output of the convolution `node`. */
function convolution(e: Emitter, node: Node, sizes: Sizes): Value {
  const [x, w, bias] = node.inputs as [Value, Value, Value | undefined];
  const { n, c, m, x: from, y: to, forms, places, tiles } = sizes;
  const isWhole = Math.max(elementCount(from), elementCount(to)) <= MAX_WHOLE_POSITIONS;
  // By axes the tiles of the first come between the places: [place, tile, place, tile].
  const [stack, stackOfFilters] = isWhole
    ? [[elementCount(places)], [elementCount(places)]]
    : [
        [places[0], tiles[0], places[1]],
        [places[0], 1, places[1]],
      ];
  const rows = (isWhole ? tiles[0] : 1) * tiles[1] * n;
  const filters = e.reshape(e.fromRows(kronecker(forms[0].g, forms[1].g), w, m * c), [...stackOfFilters, m, c]);
  const rank = stack.length;
  const turned = e.shaped(e.g.transpose(filters, [...range(rank), rank + 1, rank]), [...stackOfFilters, c, m]);
  const input = e.reshape((isWhole ? wholeIntoTiles : intoTiles)(e, x, sizes), [...stack, rows, c]);
  const products = e.shaped(e.g.matMul(input, turned), [...stack, rows, m]);
  const output = e.reshape((isWhole ? wholeOutOfTiles : outOfTiles)(e, products, sizes), [n, m, ...to]);
  return bias ? e.shaped(e.g.add(output, e.reshape(bias, [m, 1, 1])), [n, m, ...to]) : output;
}

function intoTiles(e: Emitter, x: Value, sizes: Sizes): Value {
  const { n, c, x: from, places, tiles } = sizes;
  const columns = e.fromRows(inputBand(sizes, 1), x, n * c * from[0]);
  return e.fromRows(inputBand(sizes, 0), columns, places[1] * tiles[1] * n * c);
}

function wholeIntoTiles(e: Emitter, x: Value, sizes: Sizes): Value {
  const both = kronecker(inputBand(sizes, 0), inputBand(sizes, 1));
  return e.fromRows(placesFirst(both, sizes), x, sizes.n * sizes.c);
}

function outOfTiles(e: Emitter, products: Value, sizes: Sizes): Value {
  const { n, m, y: to, places, tiles } = sizes;
  const columns = e.toRows(products, outputBand(sizes, 0), places[1] * tiles[1] * n * m);
  return e.toRows(columns, outputBand(sizes, 1), n * m * to[0]);
}

function wholeOutOfTiles(e: Emitter, products: Value, sizes: Sizes): Value {
  const both = kronecker(outputBand(sizes, 0), outputBand(sizes, 1));
  return e.toRows(products, placesFirst(both, sizes), sizes.n * sizes.m);
}

/** B for all tiles along an axis: a row for each place and each tile, a column for each input. What lies in the padding has none. */
function inputBand({ x, forms, strides, pads, tiles }: Sizes, axis: 0 | 1): Matrix {
  return bandOf(forms[axis].b, { tiles: tiles[axis], step: TILE * strides[axis], first: -pads[axis], width: x[axis] });
}

/** A for all tiles along an axis: a row for each place and each tile, a column for each output. The last tile may reach beyond them. */
function outputBand({ y, forms, tiles }: Sizes, axis: 0 | 1): Matrix {
  return bandOf(forms[axis].a, { tiles: tiles[axis], step: TILE, first: 0, width: y[axis] });
}

interface Band {
  readonly tiles: number;
  /** From one tile to the next. */
  readonly step: number;
  readonly first: number;
  readonly width: number;
}

function bandOf(rows: Matrix, { tiles, step, first, width }: Band): Matrix {
  return rows.flatMap((row) =>
    range(tiles).map((tile) => range(width).map((column) => row[column - first - step * tile] ?? 0)),
  );
}

/** Rows in the order of [place, tile, place, tile] brought into that of [place, place, tile, tile]. */
function placesFirst(rows: Matrix, { places, tiles }: Sizes): Matrix {
  const at = (i: number, tall: number, j: number, flat: number) =>
    rows[((i * tiles[0] + tall) * places[1] + j) * tiles[1] + flat]!;
  return range(places[0]).flatMap((i) =>
    range(places[1]).flatMap((j) =>
      range(tiles[0]).flatMap((tall) => range(tiles[1]).map((flat) => at(i, tall, j, flat))),
    ),
  );
}

/** All products of an entry of `a` with one of `b`, rows and columns of `a` outside. */
function kronecker(a: Matrix, b: Matrix): Matrix {
  return a.flatMap((left) => b.map((right) => left.flatMap((x) => right.map((y) => x * y))));
}

/** The forms of a window of so many taps. Each of the shorter windows that a stride makes of it has its own taps, and sees inputs as far apart. */
function formsOf(taps: number, stride: number): Forms {
  const reach = stride * (TILE - 1) + taps;
  const spread = (row: readonly number[], first: number, width: number) =>
    range(width).map((i) => (i % stride === first ? (row[(i - first) / stride] ?? 0) : 0));
  const each = range(Math.min(stride, taps)).map((first) => {
    const { a, g, b } = unstridedForms(Math.ceil((taps - first) / stride));
    return {
      a,
      g: g.map((row) => spread(row, first, taps)),
      b: b.map((row) => spread(row, first, reach)),
    };
  });
  return {
    a: each.flatMap(({ a }) => a),
    g: each.flatMap(({ g }) => g),
    b: each.flatMap(({ b }) => b),
  };
}

/**
 * At stride 1, a row for each point and one for infinity: powers of the point p for outputs and for taps, these divided by Π (p − q), and the
 * coefficients of Π (x − q), over all other points q. With one tap there is nothing to save: places are outputs.
 */
function unstridedForms(taps: number): Forms {
  const unit = (count: number, one: number) => range(count).map((i) => (i === one ? 1 : 0));
  if (taps === 1) {
    const identity = range(TILE).map((i) => unit(TILE, i));
    return { a: identity, g: identity.map(() => [1]), b: identity };
  }
  const points = POINTS.slice(0, TILE + taps - 2);
  const powers = (point: number, count: number) => range(count).map((power) => point ** power);
  const others = (point: number) => points.filter((other) => other !== point);
  const span = (point: number) => others(point).reduce((product, other) => product * (point - other), 1);
  return {
    a: [...points.map((point) => powers(point, TILE)), unit(TILE, TILE - 1)],
    g: [...points.map((point) => powers(point, taps).map((power) => power / span(point))), unit(taps, taps - 1)],
    b: [...points.map((point) => [...polynomial(others(point)), 0]), polynomial(points)],
  };
}

/** The coefficients of (x − p)(x − q)…, that of 1 first. */
function polynomial(roots: readonly number[]): readonly number[] {
  let product: readonly number[] = [1];
  for (const root of roots) product = [...product, 0].map((same, i) => (product[i - 1] ?? 0) - root * same);
  return product;
}
