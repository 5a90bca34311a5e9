/**
 * Forms of the gradients that training spends its time in, side by side: each row is a small graph, run in turn with the others (so that
 * whatever else the machine does meets all of them). The gradient table uses the fastest exact one.
 *
 *   node bench/train-kernels.ts [group,group,...] [threads] [rounds]
 *
 * Run it with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296, as job children are. Every form ends in a ReduceMax,
 * so that copying the result out is not measured; its value shows that the forms agree.
 */
import { float, GraphBuilder, int, ints, range, string } from "../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../src/core/onnx/ir.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { openSession, type Session } from "../src/core/runtime/session.ts";

type Form = (g: GraphBuilder, v: Readonly<Record<string, Value>>) => Value;

interface Group {
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly forms: Readonly<Record<string, Form>>;
}

const same = { kernel_shape: ints([3, 3]), pads: ints([1, 1, 1, 1]) };
const axes = [0, 2, 3];

/** The weight gradient of a 3x3 convolution of n images of c channels and size², to m channels. */
function weightGradient(n: number, c: number, size: number, m: number): Group {
  const taps = (g: GraphBuilder, x: Value): Value[] => {
    const padded = g.pad(x, [0, 0, 1, 1], [0, 0, 1, 1]);
    return [0, 1, 2].flatMap((i) => [0, 1, 2].map((j) => g.slice(padded, [2, 3], [i, j], [i + size, j + size])));
  };
  const p = size * size;
  const wide = size + 2;
  const long = size * wide;
  const columns = (g: GraphBuilder, dy: Value) => [0, 1, 2].map((j) => g.pad(dy, [0, 0, 0, j], [0, 0, 0, 2 - j]));
  const rowProducts = (g: GraphBuilder, x: Value, dy: Value, way: "pad" | "slice" | "concat"): Value => {
    const rows = g.op(
      "Gather",
      [g.pad(x, [0, 0, 1, 1], [0, 0, 1, 1]), g.shape([0, 1, 2].flatMap((i) => range(size).map((h) => h + i)))],
      { axis: int(2) },
    );
    const left = g.reshape(rows, [n, 3 * c, long]);
    const sliced = () => {
      const flat = g.reshape(g.pad(dy, [0, 0, 1, 0], [0, 0, 0, 2]), [n, m, wide + long]);
      return [0, 1, 2].map((j) => g.slice(flat, [2], [wide - j], [wide - j + long]));
    };
    const rights = way === "slice" ? sliced() : columns(g, dy).map((value) => g.reshape(value, [n, m, long]));
    const joined = way === "concat" ? [g.concat(rights, 1)] : rights;
    const products = joined.map((right) => g.sum(g.matMul(left, g.transpose(right, [0, 2, 1])), [0], false));
    return g.concat(products, 1);
  };
  const longRows = (g: GraphBuilder, x: Value, dy: Value, joined: boolean): Value => {
    const padded = g.pad(g.transpose(x, [1, 0, 2, 3]), [0, 0, 1, 1], [0, 0, 1, 1]);
    const indices = [0, 1, 2].flatMap((i) => range(n * size).map((r) => Math.floor(r / size) * wide + (r % size) + i));
    const rows = g.op("Gather", [g.reshape(padded, [c, n * wide, wide]), g.shape(indices)], { axis: int(1) });
    const left = g.reshape(rows, [3 * c, n * long]);
    const rights = columns(g, g.transpose(dy, [1, 0, 2, 3])).map((value) => g.reshape(value, [m, n * long]));
    const all = joined ? [g.concat(rights, 0)] : rights;
    return g.concat(
      all.map((right) => g.gemm(left, right, { transB: true })),
      1,
    );
  };
  return {
    inputs: { x: [n, c, size, size], dy: [n, m, size, size] },
    forms: {
      "taps side by side, products, sum": (g, { x, dy }) => {
        const columns = g.concat(
          taps(g, x!).map((tap) => g.reshape(tap, [n, c, p])),
          1,
        );
        return g.sum(g.matMul(g.reshape(dy!, [n, m, p]), g.transpose(columns, [0, 2, 1])), [0], false);
      },
      "a product and a sum for each tap": (g, { x, dy }) => {
        const d = g.reshape(dy!, [n, m, p]);
        const each = taps(g, x!).map((tap) => g.matMul(d, g.transpose(g.reshape(tap, [n, c, p]), [0, 2, 1])));
        return g.concat(
          each.map((product) => g.sum(product, [0], false)),
          1,
        );
      },
      "channels first, taps side by side, one Gemm": (g, { x, dy }) => {
        const columns = taps(g, g.transpose(x!, [1, 0, 2, 3])).map((tap) => g.reshape(tap, [c, n * p]));
        const d = g.reshape(g.transpose(dy!, [1, 0, 2, 3]), [m, n * p]);
        return g.gemm(d, g.concat(columns, 0), { transB: true });
      },
      "rows of x gathered, a product for each column, dy padded": (g, { x, dy }) => rowProducts(g, x!, dy!, "pad"),
      "the same, dy padded once and sliced": (g, { x, dy }) => rowProducts(g, x!, dy!, "slice"),
      "the same, one product": (g, { x, dy }) => rowProducts(g, x!, dy!, "concat"),
      "channels first, rows gathered, a Gemm for each column": (g, { x, dy }) => longRows(g, x!, dy!, false),
      "the same, one Gemm": (g, { x, dy }) => longRows(g, x!, dy!, true),
      "convolution with axes exchanged": (g, { x, dy }) => {
        const swap = (value: Value) => g.transpose(value, [1, 0, 2, 3]);
        return g.op("Conv", [swap(x!), swap(dy!)], { kernel_shape: ints([size, size]), pads: ints([1, 1, 1, 1]) });
      },
    },
  };
}

const image = [32, 64, 28, 28];
const perChannel = (g: GraphBuilder, vector: Value) => g.unsqueeze(vector, [1, 2]);
const halve = { kernel_shape: ints([2, 2]), strides: ints([2, 2]) };
const twice = (g: GraphBuilder, value: Value) =>
  g.op("Resize", [value, undefined, g.constant("float32", [4], [1, 1, 2, 2])], {
    mode: string("nearest"),
    coordinate_transformation_mode: string("asymmetric"),
    nearest_mode: string("floor"),
  });

/** The weight gradient of a linear layer, xᵀ·dy. */
function linearWeights(rows: number, k: number, n: number): Group {
  // In three dimensions: onnxruntime would take a Transpose of two back into the product.
  const turned = (g: GraphBuilder, value: Value, width: number) =>
    g.reshape(g.transpose(g.reshape(value, [rows, width, 1]), [1, 0, 2]), [width, rows]);
  return {
    inputs: { x: [rows, k], dy: [rows, n] },
    forms: {
      "Gemm, left operand transposed": (g, { x, dy }) => g.gemm(x!, dy!, { transA: true }),
      "Gemm of dy transposed, transposed": (g, { x, dy }) => g.transpose(g.gemm(dy!, x!, { transA: true }), [1, 0]),
      "x transposed, product": (g, { x, dy }) => g.matMul(turned(g, x!, k), dy!),
      "dy transposed, product, transposed": (g, { x, dy }) => g.transpose(g.matMul(turned(g, dy!, n), x!), [1, 0]),
      ...Object.fromEntries(
        [256, 512, 1024]
          .filter((height) => rows > height)
          .map((height): [string, Form] => [
            `sum of products of ${height} rows`,
            (g, { x, dy }) => {
              const [left, right] = [g.reshape(x!, [-1, height, k]), g.reshape(dy!, [-1, height, n])];
              return g.sum(g.matMul(g.transpose(left, [0, 2, 1]), right), [0], false);
            },
          ]),
      ),
    },
  };
}

const GROUPS: Readonly<Record<string, Group>> = {
  "linear-784-512": linearWeights(128, 784, 512),
  "linear-256-256": linearWeights(4096, 256, 256),
  "linear-256-1024": linearWeights(4096, 256, 1024),
  "linear-1024-256": linearWeights(4096, 1024, 256),
  "half-256-256": linearWeights(2048, 256, 256),
  "half-256-1024": linearWeights(2048, 256, 1024),
  "half-1024-256": linearWeights(2048, 1024, 256),
  "half-512-512": linearWeights(2048, 512, 512),
  gelu: {
    inputs: { x: [4096, 1024], dy: [4096, 1024] },
    forms: {
      "gradients of the parts": (g, { x, dy }) => {
        const s = g.div(x!, Math.SQRT2);
        const sum = g.add(g.op("Erf", [s]), 1);
        const y = g.mul(g.mul(x!, sum), 0.5);
        const half = g.mul(dy!, 0.5);
        const slope = g.mul(g.exp(g.neg(g.square(s))), 2 / Math.sqrt(Math.PI));
        const dx = g.add(g.mul(half, sum), g.div(g.mul(g.mul(half, x!), slope), Math.SQRT2));
        return g.add(dx, g.meanAll(y));
      },
      "Gelu, gradient from x": (g, { x, dy }) => {
        const s = g.mul(x!, Math.SQRT1_2);
        const half = { alpha: float(0.5), beta: float(0.5) };
        const cdf = g.op("HardSigmoid", [g.op("Erf", [s])], half);
        const density = g.exp(g.sub(-0.5 * Math.log(2 * Math.PI), g.mul(s, s)));
        return g.add(g.mul(dy!, g.add(cdf, g.mul(x!, density))), g.meanAll(g.op("Gelu", [x])));
      },
    },
  },
  "weights-1": weightGradient(128, 1, 28, 32),
  "weights-16": weightGradient(64, 16, 28, 32),
  "weights-32": weightGradient(128, 32, 28, 32),
  "weights-64-large": weightGradient(32, 64, 64, 64),
  "weights-128": weightGradient(32, 128, 32, 128),
  "weights-256": weightGradient(32, 256, 16, 256),
  "weights-64": weightGradient(32, 64, 28, 64),
  "weights-64-small": weightGradient(128, 64, 14, 64),
  "weights-256-small": weightGradient(32, 256, 8, 256),
  input: {
    inputs: { dy: image, w: [64, 64, 3, 3] },
    forms: {
      "convolution with the turned kernel": (g, { dy, w }) =>
        g.op("Conv", [dy, g.transpose(g.flip(w!, [2, 3]), [1, 0, 2, 3])], same),
      ConvTranspose: (g, { dy, w }) => g.op("ConvTranspose", [dy, w], same),
    },
  },
  "input-strided": {
    inputs: { dy: [32, 128, 16, 16], w: [128, 64, 3, 3] },
    forms: {
      ConvTranspose: (g, { dy, w }) =>
        g.op("ConvTranspose", [dy, w], { ...same, strides: ints([2, 2]), output_padding: ints([1, 1]) }),
      "zeros between, convolution": (g, { dy, w }) => {
        const apart = g.pad(g.reshape(dy!, [32, 128, 16, 1, 16, 1]), [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1]);
        return g.op("Conv", [g.reshape(apart, [32, 128, 32, 32]), g.transpose(g.flip(w!, [2, 3]), [1, 0, 2, 3])], same);
      },
    },
  },
  relu: {
    inputs: { x: image, dy: image },
    forms: {
      "forward only": (g, { x, dy }) => g.mul(dy!, g.op("Relu", [x])),
      "comparison, cast, product": (g, { x, dy }) => g.mul(dy!, g.indicator(g.greater(g.op("Relu", [x]), 0), dy!)),
      "clipped multiple, product": (g, { x, dy }) =>
        g.mul(dy!, g.op("HardSigmoid", [g.op("Relu", [x])], { alpha: float(2 ** 127), beta: float(0) })),
      "sign, product": (g, { x, dy }) => g.mul(dy!, g.op("Sign", [g.op("Relu", [x])])),
      "comparison, where": (g, { x, dy }) => g.where(g.greater(g.op("Relu", [x]), 0), dy!, 0),
    },
  },
  "max-pool": {
    inputs: { x: image, dy: [32, 64, 14, 14] },
    forms: {
      "indices, scatter": (g, { x, dy }) => {
        const [y, indices] = g.ops("MaxPool", [x], 2, halve) as [Value, Value];
        indices.dtype = "int64";
        const scattered = g.op(
          "ScatterElements",
          [g.full([elementCount(image)], 0, dy!), g.reshape(indices, [-1]), g.reshape(dy!, [-1])],
          { axis: int(0), reduction: string("add") },
        );
        return g.add(g.reshape(scattered, image), g.meanAll(y));
      },
      "repeat, equal (ties all get dy)": (g, { x, dy }) => {
        const y = g.op("MaxPool", [x], halve);
        const reached = g.indicator(g.equal(x!, twice(g, y)), dy!);
        return g.add(g.mul(reached, twice(g, dy!)), g.meanAll(y));
      },
      "repeat, equal, ties share": (g, { x, dy }) => {
        const y = g.op("MaxPool", [x], halve);
        const reached = g.indicator(g.equal(x!, twice(g, y)), dy!);
        const share = g.div(dy!, g.mul(g.op("AveragePool", [reached], halve), 4));
        return g.add(g.mul(reached, twice(g, share)), g.meanAll(y));
      },
    },
  },
  "batch-norm": {
    inputs: { x: image, dy: image, gamma: [64], mean: [64], variance: [64] },
    forms: {
      "from x̂": (g, { x, dy, gamma, mean, variance }) => {
        const n = 32 * 28 * 28;
        const r = g.op("Reciprocal", [g.sqrt(g.add(g.square(variance!), 1e-5))]);
        const xHat = g.mul(g.sub(x!, perChannel(g, mean!)), perChannel(g, r));
        const beta = g.sum(dy!, axes, false);
        const dGamma = g.sum(g.mul(dy!, xHat), axes, false);
        const centred = g.sub(dy!, perChannel(g, g.mul(beta, 1 / n)));
        return g.mul(g.sub(centred, g.mul(xHat, perChannel(g, g.mul(dGamma, 1 / n)))), perChannel(g, g.mul(gamma!, r)));
      },
      "from x, one factor for each of dy, x and 1": (g, { x, dy, gamma, mean, variance }) => {
        const n = 32 * 28 * 28;
        const r = g.op("Reciprocal", [g.sqrt(g.add(g.square(variance!), 1e-5))]);
        const beta = g.sum(dy!, axes, false);
        const dGamma = g.mul(g.sub(g.sum(g.mul(dy!, x!), axes, false), g.mul(mean!, beta)), r);
        const a = g.mul(gamma!, r);
        const b = g.neg(g.mul(g.mul(a, r), g.mul(dGamma, 1 / n)));
        const c = g.sub(g.neg(g.mul(a, g.mul(beta, 1 / n))), g.mul(b, mean!));
        return g.add(g.mul(dy!, perChannel(g, a)), g.add(g.mul(x!, perChannel(g, b)), perChannel(g, c)));
      },
    },
  },
};

function data(dims: readonly number[]): Tensor {
  return tensorOf(
    "float32",
    dims,
    Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(0.37 * i)),
  );
}

async function openForm({ inputs }: Group, form: Form, threads: number): Promise<Session> {
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "form" });
  const g = new GraphBuilder(model.graph);
  const values = Object.fromEntries(
    Object.entries(inputs).map(([name, dims]) => [name, model.graph.addInput(name, "float32", dims)]),
  );
  const result = g.op("ReduceMax", [form(g, values)], { keepdims: int(0) });
  result.name = "max";
  model.graph.addOutput(result);
  return openSession({ bytes: modelToBytes(model) }, { threads });
}

const [names = Object.keys(GROUPS).join(","), threads = "2", rounds = "20"] = process.argv.slice(2);
for (const name of names.split(",")) {
  const group = GROUPS[name]!;
  const feeds = Object.fromEntries(Object.entries(group.inputs).map(([input, dims]) => [input, data(dims)]));
  const forms = await Promise.all(
    Object.entries(group.forms).map(async ([label, form]) => ({
      label,
      session: await openForm(group, form, Number(threads)),
      times: [] as number[],
      max: 0,
    })),
  );
  for (let round = 0; round < Number(rounds); round++) {
    for (const form of forms) {
      const started = performance.now();
      form.max = floatsOf((await form.session.run(feeds)).max!)[0]!;
      form.times.push(performance.now() - started);
    }
  }
  console.log(name);
  for (const { label, session, times, max } of forms) {
    times.sort((a, b) => a - b);
    const [least, median] = [times[0]!, times[times.length >> 1]!].map((ms) => ms.toFixed(2).padStart(8));
    console.log(`  ${label.padEnd(46)} least ${least} ms, median ${median} ms   (${max.toPrecision(6)})`);
    await session.close();
  }
}
