/** Matrices in float64, row-major: products by the runtime, and what is found of them here. */
import { Model } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { arrayOf, tensorOf } from "../onnx/tensor.ts";
import type { OpenSession } from "../runtime/session.ts";

/** The transpose of a row-major [rows, columns] matrix. */
export function transposed(data: Matrix, rows: number, columns: number): Matrix {
  const result = new Float64Array(data.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) result[j * rows + i] = data[i * columns + j]!;
  return result;
}

export type Matrix = Float64Array<ArrayBuffer>;

/** Matrix products, row-major. */
export interface Products {
  /** A B for A [m, k] and B [k, n]. */
  multiply(a: Matrix, b: Matrix, m: number, k: number, n: number): Promise<Matrix>;
  close(): Promise<void>;
}

export async function openProducts(openSession: OpenSession, threads: number): Promise<Products> {
  const model = new Model({ irVersion: 8, opsets: [["", 13]], graphName: "product" });
  const [a, b] = [model.graph.addInput("a", "float64", ["m", "k"]), model.graph.addInput("b", "float64", ["k", "n"])];
  const product = model.graph.append({ opType: "MatMul", inputs: [a, b], outputs: ["c"] }).outputs[0]!;
  product.retype("float64", ["m", "n"]);
  model.graph.addOutput(product);
  const session = await openSession({ bytes: modelToBytes(model) }, { threads });
  return {
    async multiply(x, y, m, k, n) {
      const { c } = await session.run({ a: tensorOf("float64", [m, k], x), b: tensorOf("float64", [k, n], y) });
      return arrayOf(c!, "float64") as Matrix;
    },
    close: () => session.close(),
  };
}

/** The diagonal is raised by so much of its mean, for inputs that some directions have nothing in. */
const RIDGE = 1e-6;

/** L, lower triangular, with L Lᵀ = A (and a ridge) for a symmetric A without negative eigenvalues; row-major [n, n]. */
export function choleskyFactor(matrix: Matrix, n: number): Matrix {
  const l = new Float64Array(n * n);
  let ridge = 0;
  for (let i = 0; i < n; i++) ridge += (RIDGE * matrix[i * n + i]!) / n;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i * n + j]! + (i === j ? ridge : 0);
      for (let c = 0; c < j; c++) sum -= l[i * n + c]! * l[j * n + c]!;
      l[i * n + j] = i === j ? Math.sqrt(Math.max(sum, ridge)) : l[j * n + j]! > 0 ? sum / l[j * n + j]! : 0;
    }
  }
  return l;
}
