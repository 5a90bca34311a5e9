/**
 * The matrix products of a training step, each alone, in onnxruntime and in PyTorch: billions of floating-point operations for a second of
 * processor time, one thread, in turns. Forward y = x·w, gradients dx = dy·wᵀ and dw = xᵀ·dy, in the forms that onnxruntime can be
 * given them in. This is what bounds how fast a step can be (`bench/compare/train.ts`).
 *
 *   node bench/compare/products.ts PYTHON [mlp,transformer] [rounds] [seconds]
 *
 * PYTHON is an interpreter that has torch. Every product is measured for `seconds` in each round; the table has the best round.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { GraphBuilder } from "../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { elementCount, tensorOf } from "../../src/core/onnx/tensor.ts";
import { openSession } from "../../src/core/runtime/session.ts";

/** Of the two operands: `n` stored as it is read, `t` stored transposed. */
type Orientation = "nn" | "nt" | "tn";

interface Product {
  readonly what: string;
  readonly orientation: Orientation;
  /** The result is [m, n], the sum runs over k. */
  readonly m: number;
  readonly k: number;
  readonly n: number;
}

/** The three products of a linear layer of `rows` rows; its weight is stored [to, from] for Gemm, [from, to] for MatMul. */
function layer(rows: number, from: number, to: number, stored: "gemm" | "matmul"): Product[] {
  const gemm = stored === "gemm";
  return [
    { what: "y", orientation: gemm ? "nt" : "nn", m: rows, k: from, n: to },
    { what: "dx", orientation: gemm ? "nn" : "nt", m: rows, k: to, n: from },
    { what: "dw", orientation: "tn", m: gemm ? to : from, k: rows, n: gemm ? from : to },
  ];
}

const STEPS: Readonly<Record<string, readonly Product[]>> = {
  mlp: [...layer(128, 784, 512, "gemm"), ...layer(128, 512, 256, "gemm")],
  transformer: [256, 1024].flatMap((to) => layer(4096, 256, to, "matmul")).concat(layer(4096, 1024, 256, "matmul")),
};

type Form = (g: GraphBuilder, a: Value, b: Value, product: Product) => Value;

/** In three dimensions: onnxruntime would take a Transpose of two back into the product. */
const turned = (g: GraphBuilder, value: Value, rows: number, columns: number) =>
  g.reshape(g.transpose(g.reshape(value, [rows, columns, 1]), [1, 0, 2]), [columns, rows]);

const BLOCK = 256;

/** The first form of each is the one that the gradient table uses, or that models come with. */
const FORMS: Readonly<Record<Orientation, Readonly<Record<string, Form>>>> = {
  nn: {
    "as it is": (g, a, b) => g.matMul(a, b),
    "in blocks of rows": (g, a, b, { m, k, n }) =>
      g.reshape(g.matMul(g.reshape(a, [-1, Math.min(m, BLOCK), k]), g.reshape(b, [1, k, n])), [m, n]),
  },
  nt: {
    "as it is": (g, a, b) => g.gemm(a, b, { transB: true }),
    "b transposed first": (g, a, b, { k, n }) => g.matMul(a, turned(g, b, n, k)),
  },
  tn: {
    "narrower transposed first": (g, a, b, { m, k, n }) =>
      m <= n ? g.matMul(turned(g, a, k, m), b) : g.transpose(g.matMul(turned(g, b, k, n), a), [1, 0]),
    "as it is": (g, a, b) => g.gemm(a, b, { transA: true }),
  },
};

const [python, names = Object.keys(STEPS).join(","), rounds = "3", seconds = "1"] = process.argv.slice(2);
if (!python) throw new Error("Which Python has torch? node bench/compare/products.ts PYTHON");

const torch = spawn(python, ["-u", join(import.meta.dirname, "products.py")], {
  stdio: ["pipe", "pipe", "inherit"],
  env: { ...process.env, OMP_NUM_THREADS: "1" },
});
const answers = createInterface({ input: torch.stdout })[Symbol.asyncIterator]();

/** Milliseconds of processor time that one run takes in PyTorch. */
async function torchMs(a: readonly number[], b: readonly number[], orientation: Orientation): Promise<number> {
  torch.stdin.write(`${JSON.stringify({ a, b, orientation, seconds: Number(seconds) })}\n`);
  return Number((await answers.next()).value);
}

const data = (dims: readonly number[]) =>
  tensorOf(
    "float32",
    dims,
    Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(0.37 * i)),
  );

/** Each form in a session of its own, which gives one element of the result, so that copying it out is not measured. */
async function openForm(form: Form, product: Product, aDims: readonly number[], bDims: readonly number[]) {
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "product" });
  const g = new GraphBuilder(model.graph);
  const [a, b] = [model.graph.addInput("a", "float32", aDims), model.graph.addInput("b", "float32", bDims)];
  const corner = g.slice(form(g, a, b, product), [0, 1], [0, 0], [1, 1]);
  model.graph.addOutput(corner);
  const session = await openSession({ bytes: modelToBytes(model) }, { threads: 1 });
  const feeds = { a: data(aDims), b: data(bDims) };
  return {
    close: () => session.close(),
    async ms(): Promise<number> {
      await session.run(feeds);
      const before = process.cpuUsage();
      for (let runs = 1; ; runs++) {
        await session.run(feeds);
        const { user, system } = process.cpuUsage(before);
        if (user + system > 1e6 * Number(seconds)) return (user + system) / 1000 / runs;
      }
    },
  };
}

for (const name of names.split(",")) {
  console.log(`${name}, GFLOP/s: PyTorch, then onnxruntime's forms and their ratio to it`);
  for (const product of STEPS[name]!) {
    const { what, orientation, m, k, n } = product;
    const aDims = orientation === "tn" ? [k, m] : [m, k];
    const bDims = orientation === "nt" ? [n, k] : [k, n];
    const labels = Object.keys(FORMS[orientation]);
    const forms = await Promise.all(
      Object.values(FORMS[orientation]).map((form) => openForm(form, product, aDims, bDims)),
    );
    const best = [Infinity, ...forms.map(() => Infinity)];
    for (let round = 0; round < Number(rounds); round++) {
      best[0] = Math.min(best[0]!, await torchMs(aDims, bDims, orientation));
      for (const [i, form] of forms.entries()) best[i + 1] = Math.min(best[i + 1]!, await form.ms());
    }
    const [theirs, ...ours] = best.map((ms) => (2 * m * k * n) / ms / 1e6) as [number, ...number[]];
    const columns = ours.map((own, i) => `${labels[i]} ${own.toFixed(0)} (${(own / theirs).toFixed(2)}x)`);
    console.log(
      `  ${what.padEnd(2)} ${orientation} [${m}, ${k}]·[${k}, ${n}]`.padEnd(32),
      theirs.toFixed(0).padStart(4),
      ` ${columns.join("   ")}`,
    );
    for (const form of forms) await form.close();
  }
}
torch.stdin.end();
