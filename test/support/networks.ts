/** Networks to train in tests and benches: inference graphs as an exporter writes them, with weights drawn from a seed. */
import { float, GraphBuilder, int, ints } from "../../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../../src/core/onnx/ir.ts";
import { elementCount, tensorOf } from "../../src/core/onnx/tensor.ts";
import { Random } from "../../src/core/random.ts";
import { type Samples, samplesOf } from "../../src/core/train/samples.ts";

/** Adds layers to a model; every layer's weights are initializers named after it. */
export class NetworkBuilder {
  readonly model = new Model({ irVersion: 10, opsets: [["", 18]], graphName: "network" });
  readonly g = new GraphBuilder(this.model.graph);
  readonly #random: Random;
  #layers = 0;

  constructor(seed = 0) {
    this.#random = new Random(seed, "network");
  }

  input(dims: readonly (number | string)[], name = "x", dtype: "float32" | "int64" = "float32"): Value {
    return this.model.graph.addInput(name, dtype, dims);
  }

  #weight(name: string, dims: readonly number[], deviation: number): Value {
    const data = new Float32Array(elementCount(dims));
    this.#random.fillNormal(data);
    for (let i = 0; i < data.length; i++) data[i]! *= deviation;
    return this.model.graph.addInitializer(name, tensorOf("float32", dims, data));
  }

  #vector(name: string, length: number, value: number): Value {
    return this.model.graph.addInitializer(name, tensorOf("float32", [length], new Float32Array(length).fill(value)));
  }

  #name(kind: string): string {
    return `${kind}${this.#layers++}`;
  }

  /** A matrix product and a bias, as Gemm for rows and as MatMul and Add for stacks of them. */
  linear(x: Value, from: number, to: number, stacked = false): Value {
    const name = this.#name("fc");
    const deviation = Math.sqrt(2 / from);
    const bias = this.#vector(`${name}.bias`, to, 0);
    if (stacked)
      return this.g.add(this.g.matMul(x, this.#weight(`${name}.weight`, [from, to], Math.sqrt(1 / from))), bias);
    return this.g.op("Gemm", [x, this.#weight(`${name}.weight`, [to, from], deviation), bias], { transB: int(1) });
  }

  conv(
    x: Value,
    from: number,
    to: number,
    options: { kernel?: number; stride?: number; group?: number; bias?: boolean; axes?: 1 | 2 } = {},
  ): Value {
    const { kernel = 3, stride = 1, group = 1, bias = false, axes = 2 } = options;
    const name = this.#name("conv");
    const pad = Math.floor(kernel / 2);
    const each = <T>(value: T): T[] => Array(axes).fill(value);
    const dims = [to, from / group, ...each(kernel)];
    const weight = this.#weight(`${name}.weight`, dims, Math.sqrt(2 / (elementCount(dims) / to)));
    return this.g.op("Conv", bias ? [x, weight, this.#vector(`${name}.bias`, to, 0)] : [x, weight], {
      kernel_shape: ints(each(kernel)),
      pads: ints([...each(pad), ...each(pad)]),
      strides: ints(each(stride)),
      group: int(group),
    });
  }

  batchNorm(x: Value, channels: number): Value {
    const name = this.#name("bn");
    const vectors = [1, 0, 0, 1].map((value, i) =>
      this.#vector(`${name}.${["weight", "bias", "running_mean", "running_var"][i]}`, channels, value),
    );
    return this.g.op("BatchNormalization", [x, ...vectors], { epsilon: float(1e-5), momentum: float(0.9) });
  }

  layerNorm(x: Value, width: number): Value {
    const name = this.#name("ln");
    return this.g.op(
      "LayerNormalization",
      [x, this.#vector(`${name}.weight`, width, 1), this.#vector(`${name}.bias`, width, 0)],
      {
        axis: int(-1),
      },
    );
  }

  relu(x: Value): Value {
    return this.g.op("Relu", [x]);
  }

  maxPool(x: Value, size = 2): Value {
    return this.g.op("MaxPool", [x], { kernel_shape: ints([size, size]), strides: ints([size, size]) });
  }

  globalAverage(x: Value): Value {
    return this.g.op("Flatten", [this.g.op("GlobalAveragePool", [x])], { axis: int(1) });
  }

  embedding(tokens: Value, vocabulary: number, width: number): Value {
    return this.g.op("Gather", [this.#weight(`${this.#name("embedding")}.weight`, [vocabulary, width], 0.02), tokens]);
  }

  /** A learned constant that is added: positions. */
  positions(x: Value, length: number, width: number): Value {
    return this.g.add(x, this.#weight(`${this.#name("positions")}.weight`, [length, width], 0.02));
  }

  output(value: Value, dims: readonly (number | string)[], name = "logits"): Model {
    const y = this.g.op("Identity", [value]);
    y.name = name;
    this.model.claimName(name);
    y.retype("float32", dims);
    this.model.graph.addOutput(y);
    return this.model;
  }
}

/** Layers of the given widths with Relu between, on flattened images. */
export function mlp(widths: readonly number[], seed = 0): Model {
  const net = new NetworkBuilder(seed);
  let x = net.g.op("Flatten", [net.input(["n", 1, 28, 28])], { axis: int(1) });
  for (let i = 1; i < widths.length; i++) {
    x = net.linear(x, widths[i - 1]!, widths[i]!);
    if (i < widths.length - 1) x = net.relu(x);
  }
  return net.output(x, ["n", widths.at(-1)!]);
}

/** Two blocks of two 3x3 convolutions with BatchNormalization, each block pooled, and two dense layers; for 28x28 images. */
export function cnn(channels: readonly [number, number], hidden: number, seed = 0): Model {
  const net = new NetworkBuilder(seed);
  let x = net.input(["n", 1, 28, 28]);
  let from = 1;
  for (const to of channels) {
    for (let i = 0; i < 2; i++) {
      x = net.relu(net.batchNorm(net.conv(x, from, to), to));
      from = to;
    }
    x = net.maxPool(x);
  }
  x = net.g.op("Flatten", [x], { axis: int(1) });
  x = net.relu(net.linear(x, from * 49, hidden));
  return net.output(net.linear(x, hidden, 10), ["n", 10]);
}

/** Two strided convolutions of 12 and 24 channels and a dense layer; for 28x28 images. */
export function smallStudent(seed = 0): Model {
  const net = new NetworkBuilder(seed);
  let x = net.relu(net.conv(net.input(["n", 1, 28, 28]), 1, 12, { stride: 2, bias: true }));
  x = net.relu(net.conv(x, 12, 24, { stride: 2, bias: true }));
  return net.output(net.linear(net.g.op("Flatten", [x], { axis: int(1) }), 24 * 49, 10), ["n", 10]);
}

/** ResNet-18's shape (He et al. 2016) without the first pooling, for small images. */
export function resNet18(options: { size: number; classes: number; width?: number; seed?: number }): Model {
  const { size, classes, width = 64, seed = 0 } = options;
  const net = new NetworkBuilder(seed);
  let x = net.relu(net.batchNorm(net.conv(net.input(["n", 3, size, size]), 3, width), width));
  let from = width;
  for (const [stage, to] of [width, 2 * width, 4 * width, 8 * width].entries()) {
    for (let block = 0; block < 2; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      const shortcut = from === to ? x : net.batchNorm(net.conv(x, from, to, { kernel: 1, stride }), to);
      const inner = net.relu(net.batchNorm(net.conv(x, from, to, { stride }), to));
      x = net.relu(net.g.add(net.batchNorm(net.conv(inner, to, to), to), shortcut));
      from = to;
    }
  }
  return net.output(net.linear(net.globalAverage(x), from, classes), ["n", classes]);
}

interface EncoderShape {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly length: number;
  readonly classes: number;
}

/** A transformer encoder (pre-norm, GELU) over tokens, with a class for each sequence from the mean of its states. */
export function transformer(options: EncoderShape & { vocabulary: number; seed?: number }): Model {
  const { width, length, vocabulary, seed = 0 } = options;
  const net = new NetworkBuilder(seed);
  const tokens = net.input(["n", length], "tokens", "int64");
  return encode(net, net.embedding(tokens, vocabulary, width), options);
}

/** The same encoder over images of 28x28 pixels, cut into `length` bands. */
export function imageTransformer(options: EncoderShape & { seed?: number }): Model {
  const { width, length, seed = 0 } = options;
  const net = new NetworkBuilder(seed);
  const pixels = 784 / length;
  const bands = net.g.reshape(net.input(["n", 1, 28, 28]), [0, length, pixels]);
  return encode(net, net.linear(bands, pixels, width, true), options);
}

function encode(net: NetworkBuilder, states: Value, { layers, width, heads, length, classes }: EncoderShape): Model {
  const { g } = net;
  let x = net.positions(states, length, width);
  const head = width / heads;
  const split = (value: Value, perm: readonly number[]) =>
    g.transpose(g.reshape(value, [0, length, heads, head]), perm);
  for (let layer = 0; layer < layers; layer++) {
    const normal = net.layerNorm(x, width);
    const q = split(net.linear(normal, width, width, true), [0, 2, 1, 3]);
    const k = split(net.linear(normal, width, width, true), [0, 2, 3, 1]);
    const v = split(net.linear(normal, width, width, true), [0, 2, 1, 3]);
    const attention = g.op("Softmax", [g.mul(g.matMul(q, k), 1 / Math.sqrt(head))], { axis: int(-1) });
    const mixed = g.reshape(g.transpose(g.matMul(attention, v), [0, 2, 1, 3]), [0, length, width]);
    x = g.add(x, net.linear(mixed, width, width, true));
    const inner = net.linear(net.layerNorm(x, width), width, 4 * width, true);
    // GELU as exporters before opset 20 write it.
    const gelu = g.mul(g.mul(inner, g.add(g.op("Erf", [g.div(inner, Math.SQRT2)]), 1)), 0.5);
    x = g.add(x, net.linear(gelu, 4 * width, width, true));
  }
  const pooled = g.op("ReduceMean", [net.layerNorm(x, width), g.shape([1])], { keepdims: int(0) });
  return net.output(net.linear(pooled, width, classes), ["n", classes]);
}

/** Images of one bright half: class 0 left, 1 right, 2 top, 3 bottom, under noise. */
export function halves(count: number, seed: number): Samples {
  const random = new Random(seed, "halves");
  const data = new Float32Array(count * 64);
  random.fillNormal(data);
  const labels = BigInt64Array.from({ length: count }, () => BigInt(random.integer(4)));
  for (let i = 0; i < count; i++) {
    for (let p = 0; p < 64; p++) {
      const [row, column] = [p >> 3, p & 7];
      const bright = [column < 4, column >= 4, row < 4, row >= 4][Number(labels[i])];
      data[i * 64 + p] = 0.7 * data[i * 64 + p]! + (bright ? 1 : 0);
    }
  }
  return samplesOf({ x: tensorOf("float32", [count, 1, 8, 8], data) }, { labels: tensorOf("int64", [count], labels) });
}
