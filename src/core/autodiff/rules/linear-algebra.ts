/**
 * Y = A·B:  dA = dY·Bᵀ,  dB = Aᵀ·dY.  With a matrix B (every linear layer) both are one product over all rows of A; Gemm reads its right
 * operand transposed for free. Between stacks of matrices onnxruntime fuses the Transpose into its MatMul.
 */
import { CoreError } from "../../errors.ts";
import { dimsOf, type GraphBuilder, range, string, sumTo } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";
import { elementCount } from "../../onnx/tensor.ts";
import { parameterOf } from "../../operators/operators.ts";
import type { GradientRule } from "./gradient-rule.ts";

const matMul: GradientRule = {
  backward: (g, node, [dy], wanted) => {
    const [a, b] = [node.inputs[0]!, node.inputs[1]!];
    const [aDims, bDims, yDims] = [dimsOf(a), dimsOf(b), dimsOf(node.outputs[0]!)];
    // A vector counts as a matrix of one row on the left, of one column on the right.
    const aMatrix = aDims.length === 1 ? [1, ...aDims] : aDims;
    const bMatrix = bDims.length === 1 ? [...bDims, 1] : bDims;
    const [m, k] = aMatrix.slice(-2) as [number, number];
    const n = bMatrix.at(-1)!;
    const as = (value: Value, from: readonly number[], to: readonly number[]) =>
      from.length === to.length && from.every((dim, i) => dim === to[i]) ? value : g.reshape(value, to);

    if (bMatrix.length === 2) {
      const rows = elementCount(aMatrix) / k;
      const d = as(dy!, yDims, [rows, n]);
      return [
        wanted[0] ? as(g.gemm(d, as(b, bDims, [k, n]), { transB: true }), [rows, k], aDims) : undefined,
        wanted[1] ? as(transposedProduct(g, as(a, aDims, [rows, k]), d, { rows, k, n }), [k, n], bDims) : undefined,
      ];
    }
    const stack = yDims.slice(0, yDims.length - (aDims.length === 1 ? 1 : 2));
    const d = as(dy!, yDims, [...stack, m, n]);
    const gradient = (left: Value, right: Value, rows: number, columns: number, to: readonly number[]) => {
      const from = [...stack, rows, columns];
      const matrix = to.length === 1 ? [1, ...to] : to;
      return as(sumTo(g, g.matMul(left, right), from, matrix), matrix, to);
    };
    const matrices = as(a, aDims, aMatrix);
    // Of matrices that were transposed before: the product is that of what they were, and of the two Transposes nothing is left.
    // And of a large A: it is read as it is, and the two smaller ones are transposed.
    const forTurned = () =>
      transposed(
        g,
        gradient(transposed(g, d, yDims.length), matrices, n, k, [...bDims.slice(0, -2), n, k]),
        bDims.length,
      );
    const forB = () => gradient(transposed(g, matrices, aMatrix.length), d, k, n, bDims);
    return [
      wanted[0] ? gradient(d, transposed(g, b, bDims.length), m, k, aDims) : undefined,
      wanted[1] ? (aDims.length > 1 && (isTurned(b) || m * k > n * (m + k)) ? forTurned() : forB()) : undefined,
    ];
  },
};

/** Sums over so many rows read their left operand transposed; shorter ones are faster with an operand that was transposed before. */
const MIN_LONG_ROWS = 1024;

/**
 * Aᵀ·B of A [rows, k] and B [rows, n], in the form that is fastest or nearly so on all processors that were measured (`bench/train-kernels.ts`).
 * Over many rows Gemm reads the wider operand transposed where that is the left one. Otherwise the narrower of the two is transposed before, in three
 * dimensions: a Transpose of two would be taken back into the product.
 */
function transposedProduct(
  g: GraphBuilder,
  a: Value,
  b: Value,
  { rows, k, n }: { readonly rows: number; readonly k: number; readonly n: number },
): Value {
  if (rows >= MIN_LONG_ROWS && k >= n) return g.gemm(a, b, { transA: true });
  const turned = (value: Value, width: number) =>
    g.reshape(g.transpose(g.reshape(value, [rows, width, 1]), [1, 0, 2]), [width, rows]);
  return k <= n ? g.matMul(turned(a, k), b) : g.transpose(g.matMul(turned(b, n), a), [1, 0]);
}

/** Whether a stack of matrices is another one with each matrix transposed. */
function isTurned({ producer }: Value): boolean {
  if (producer?.opType !== "Transpose" || producer.domain !== "") return false;
  const perm = producer.ints("perm", []);
  const rank = perm.length;
  return rank > 2 && perm.every((axis, i) => axis === (i < rank - 2 ? i : 2 * rank - 3 - i));
}

/** The matrices of a stack, each transposed. */
function transposed(g: GraphBuilder, value: Value, rank: number): Value {
  return g.transpose(value, [...range(rank - 2), rank - 1, rank - 2]);
}

/** Y = αA'B' + βC. */
const gemm: GradientRule = {
  backward: (g, node, [dy], wanted) => {
    const [a, b, c] = [node.inputs[0]!, node.inputs[1]!, node.inputs[2]];
    const transA = node.int("transA", 0) === 1;
    const transB = node.int("transB", 0) === 1;
    const alpha = parameterOf(node, "alpha");
    const beta = parameterOf(node, "beta");
    const d = dy!;
    const forA = () =>
      transA ? g.gemm(b, d, { alpha, transA: transB, transB: true }) : g.gemm(d, b, { alpha, transB: !transB });
    const forB = () => {
      // A constant is small; the other operand would be transposed after the product otherwise (`bench/train-convolutions.ts`).
      if (alpha === 1 && !transA && !a.constant) {
        const [rows, k] = dimsOf(a) as readonly [number, number];
        const n = dimsOf(node.outputs[0]!).at(-1)!;
        return transB ? transposedProduct(g, d, a, { rows, k: n, n: k }) : transposedProduct(g, a, d, { rows, k, n });
      }
      return transB ? g.gemm(d, a, { alpha, transA: true, transB: transA }) : g.gemm(a, d, { alpha, transA: !transA });
    };
    const forC = () => {
      const sum = sumTo(g, d, dimsOf(node.outputs[0]!), dimsOf(c!));
      return beta === 1 ? sum : g.mul(sum, beta);
    };
    return [wanted[0] ? forA() : undefined, wanted[1] ? forB() : undefined, c && wanted[2] ? forC() : undefined];
  },
};

/**
 * The gradient of one operand is again an Einsum: of dy and the other operands, onto the operand's own letters. Letters that only this
 * operand has were summed over, so their gradient is the same for every index.
 */
const einsum: GradientRule = {
  refuses: (node) => {
    const { operands } = equationOf(node);
    return operands.some((letters) => new Set(letters.replace("...", "")).size !== letters.replace("...", "").length)
      ? "a letter appears twice in one operand"
      : undefined;
  },
  backward: (g, node, [dy], wanted) => {
    const { operands, result } = spellOut(node);
    const sizes = new Map<string, number>();
    operands.forEach((letters, i) => {
      dimsOf(node.inputs[i]!).forEach((dim, axis) => {
        const letter = letters[axis]!;
        sizes.set(letter, Math.max(dim, sizes.get(letter) ?? 1));
      });
    });
    return node.inputs.map((input, i) => {
      if (!input || !wanted[i]) return undefined;
      const own = operands[i]!;
      const others = operands.filter((_, j) => j !== i);
      const known = new Set(result + others.join(""));
      const reachable = [...own].filter((letter) => known.has(letter)).join("");
      const gradient = g.op("Einsum", [dy, ...node.inputs.filter((_, j) => j !== i)], {
        equation: string(`${[result, ...others].join(",")}->${reachable}`),
      });
      const full = [...own].map((letter) => sizes.get(letter)!);
      const missing = range(own.length).filter((axis) => !known.has(own[axis]!));
      const stretched = missing.length > 0 ? g.expand(g.unsqueeze(gradient, missing), full) : gradient;
      return sumTo(g, stretched, full, dimsOf(input));
    });
  },
};

function equationOf(node: Node): { operands: string[]; result: string | undefined } {
  const [left, right] = node.string("equation", "").replaceAll(" ", "").split("->") as [string, string | undefined];
  return { operands: left.split(","), result: right };
}

/** The equation with the result written out and letters in place of dots (upper-case ones, aligned at the right). */
function spellOut(node: Node): { operands: string[]; result: string } {
  const { operands, result } = equationOf(node);
  const hidden = operands.map((letters, i) =>
    letters.includes("...") ? dimsOf(node.inputs[i]!).length - (letters.length - 3) : 0,
  );
  const unused = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"].filter((letter) => !node.string("equation", "").includes(letter));
  const most = Math.max(...hidden);
  if (most > unused.length) throw new CoreError("unsupported", "The equation has too many dimensions.", node.label);
  const dots = unused.slice(0, most).join("");
  const all = operands.join("").replaceAll(".", "");
  const once = [...new Set(all)].filter((letter) => all.split(letter).length === 2).sort();
  const implied = (most > 0 ? "..." : "") + once.join("");
  return {
    operands: operands.map((letters, i) => letters.replace("...", dots.slice(most - hidden[i]!))),
    result: (result ?? implied).replace("...", dots),
  };
}

/** The kept triangle passes its gradient on. */
const trilu: GradientRule = {
  backward: (g, node, [dy]) => [g.op("Trilu", [dy, node.inputs[1]], Object.fromEntries(node.attrs))],
};

export const LINEAR_ALGEBRA = { MatMul: matMul, Gemm: gemm, Einsum: einsum, Trilu: trilu } as const satisfies Record<
  string,
  GradientRule
>;
