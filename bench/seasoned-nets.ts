/**
 * Networks without trained weights that behave as trained ones do when they are quantized: filters are smooth; BatchNormalization has seen the
 * data, so that activations neither die nor blow up with depth; channels differ in size; the classifier's answers are centred, or the same class would
 * win for every input; and in encoders a few channels are large, as those of BERT are.
 */
import type { Model, Node, Value } from "../src/core/onnx/ir.ts";
import { arrayOf, elementCount, floatsOf, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";
import { GraphMaker } from "../test/support/graphs.ts";
import { openModel, runModel } from "../test/support/open-model.ts";

type Feeds = Readonly<Record<string, Tensor>>;

const CLASSES = 1000;
const IMAGE_SIZE = 224;
/** MobileNet's. Channels that are nearly dead are not blown up, as trained ones would not be. */
const EPSILON = 1e-2;
/**
 * Share of the power of filters that is smooth. Trained filters are mostly smooth; white ones suppress what natural pictures are made of, and
 * normalization then blows up what is left, noise included.
 */
const SMOOTH = 0.8;

/** Adds layers with normal weights to a graph. */
class Builder {
  readonly make: GraphMaker;
  readonly #random = new Random(1, "weights");

  constructor() {
    this.make = new GraphMaker({ opset: 17 });
  }

  normal(name: string, dims: readonly number[], deviation: number, mean = 0): Value {
    const data = new Float32Array(elementCount(dims));
    this.#random.fillNormal(data);
    for (let i = 0; i < data.length; i++) data[i] = mean + deviation * data[i]!;
    return this.make.constant(name, tensorOf("float32", dims, data));
  }

  /** Positive numbers around `middle`, a factor of e^deviation apart. */
  logNormal(length: number, middle: number, deviation: number): Tensor {
    const data = new Float32Array(length);
    this.#random.fillNormal(data);
    for (let i = 0; i < length; i++) data[i] = middle * Math.exp(deviation * data[i]!);
    return tensorOf("float32", [length], data);
  }

  /** Filters [to, from, size, size], each channel of them in part a bump and in part noise. */
  filters(dims: readonly [number, number, number, number], deviation: number): Value {
    const [to, from, size] = dims;
    const area = size * size;
    const data = new Float32Array(elementCount(dims));
    this.#random.fillNormal(data);
    const heights = new Float32Array(to * from);
    this.#random.fillNormal(heights);
    const bump = Array.from({ length: area }, (_, i) => {
      const distance = (Math.floor(i / size) - (size - 1) / 2) ** 2 + ((i % size) - (size - 1) / 2) ** 2;
      return Math.exp((-4 * distance) / area);
    });
    const length = Math.hypot(...bump) / size;
    const smooth = size > 1 ? SMOOTH : 0;
    for (let i = 0; i < data.length; i++) {
      const height = (heights[Math.floor(i / area)]! * bump[i % area]!) / length;
      data[i] = deviation * (Math.sqrt(smooth) * height + Math.sqrt(1 - smooth) * data[i]!);
    }
    return this.make.constant("conv.weight", tensorOf("float32", dims, data));
  }

  /** A convolution and its normalization, whose statistics `season` fills in. */
  conv(
    x: Value,
    [from, to]: readonly [number, number],
    kernel: number,
    {
      stride = 1,
      group = 1,
      gain = 1,
      shift = 0,
    }: { stride?: number; group?: number; gain?: number; shift?: number } = {},
  ): Value {
    const { make } = this;
    const dims = [to, from / group, kernel, kernel] as const;
    const weight = this.filters(dims, Math.sqrt(2 / (elementCount(dims) / to)));
    const pad = Math.floor(kernel / 2);
    const y = make.op("Conv", [x, weight], {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
      group,
    });
    const gamma = make.constant("bn.weight", this.logNormal(to, gain, 0.35));
    const beta = this.normal("bn.bias", [to], 0.3 * gain, shift);
    const zeros = make.constant("bn.running_mean", tensorOf("float32", [to], new Float32Array(to)));
    const ones = make.constant("bn.running_var", tensorOf("float32", [to], new Float32Array(to).fill(1)));
    return make.op("BatchNormalization", [y, gamma, beta, zeros, ones], { epsilon: { type: "float", value: EPSILON } });
  }

  relu(x: Value): Value {
    return this.make.op("Relu", [x]);
  }

  relu6(x: Value): Value {
    const { make } = this;
    return make.op("Clip", [x, make.floats("low", [], [0]), make.floats("high", [], [6])]);
  }

  /** Pooling and a dense layer: logits [n, classes]. */
  classify(x: Value, channels: number): Model {
    const { make } = this;
    const pooled = make.op("Flatten", [make.op("GlobalAveragePool", [x])], { axis: 1 });
    const weight = this.normal("head.weight", [CLASSES, channels], Math.sqrt(1 / channels));
    const bias = make.constant("head.bias", tensorOf("float32", [CLASSES], new Float32Array(CLASSES)));
    make.output(make.op("Gemm", [pooled, weight, bias], { transB: 1 }), "logits", ["n", CLASSES]);
    return make.model;
  }

  linear(x: Value, from: number, to: number, gain = 1): Value {
    const { make } = this;
    const product = make.op("MatMul", [x, this.normal("linear.weight", [from, to], Math.sqrt(gain / from))]);
    return make.op("Add", [product, this.normal("linear.bias", [to], 0.1)]);
  }

  /** A normalization with three channels that are several times as large as the others. */
  layerNorm(x: Value, width: number): Value {
    const { make } = this;
    const gamma = this.logNormal(width, 1, 0.25);
    const large = arrayOf(gamma, "float32").slice();
    for (const channel of [17, 101, 230]) large[channel]! *= 6;
    const scale = make.constant("ln.weight", tensorOf("float32", [width], large));
    return make.op("LayerNormalization", [x, scale, this.normal("ln.bias", [width], 0.2)], { axis: -1 });
  }
}

/** The ResNet of He et al. (2015) with the stride in the 3x3 convolution; with bottlenecks and [3, 4, 6, 3] blocks it is ResNet-50. */
export function resNet(blocks: readonly number[], bottleneck: boolean): Model {
  const net = new Builder();
  const { make } = net;
  let x = net.relu(net.conv(make.input("x", ["n", 3, IMAGE_SIZE, IMAGE_SIZE]), [3, 64], 7, { stride: 2 }));
  x = make.op("MaxPool", [x], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
  let channels = 64;
  blocks.forEach((count, stage) => {
    const inner = 64 * 2 ** stage;
    const outputs = bottleneck ? 4 * inner : inner;
    for (let block = 0; block < count; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      let y = x;
      if (bottleneck) {
        y = net.relu(net.conv(y, [channels, inner], 1));
        y = net.relu(net.conv(y, [inner, inner], 3, { stride }));
        y = net.conv(y, [inner, outputs], 1, { gain: 0.5 });
      } else {
        y = net.relu(net.conv(y, [channels, inner], 3, { stride }));
        y = net.conv(y, [inner, outputs], 3, { gain: 0.5 });
      }
      const shortcut = stride !== 1 || channels !== outputs ? net.conv(x, [channels, outputs], 1, { stride }) : x;
      x = net.relu(make.op("Add", [y, shortcut]));
      channels = outputs;
    }
  });
  return net.classify(x, channels);
}

/** Expansion, channels, blocks and stride of each stage (Sandler et al. 2018, table 2). */
const STAGES = [
  [1, 16, 1, 1],
  [6, 24, 2, 2],
  [6, 32, 3, 2],
  [6, 64, 4, 2],
  [6, 96, 3, 1],
  [6, 160, 3, 2],
  [6, 320, 1, 1],
] as const;

/** Somewhat more than half of the units are open: layers of noise would otherwise bury what tells two images apart. */
const SHIFT = 0.3;
/** Of what a block adds to its input. Networks that are mostly sums of small parts do not amplify disturbances. */
const BLOCK_GAIN = 0.12;

export function mobileNetV2(size = IMAGE_SIZE): Model {
  const net = new Builder();
  const { make } = net;
  let x = net.relu6(net.conv(make.input("x", ["n", 3, size, size]), [3, 32], 3, { stride: 2, shift: SHIFT }));
  let channels = 32;
  for (const [expansion, outputs, blocks, firstStride] of STAGES) {
    for (let block = 0; block < blocks; block++) {
      const stride = block === 0 ? firstStride : 1;
      const hidden = expansion * channels;
      let y = expansion === 1 ? x : net.relu6(net.conv(x, [channels, hidden], 1, { shift: SHIFT }));
      y = net.relu6(net.conv(y, [hidden, hidden], 3, { stride, group: hidden, shift: SHIFT }));
      const adds = stride === 1 && channels === outputs;
      y = net.conv(y, [hidden, outputs], 1, { gain: adds ? BLOCK_GAIN : 0.35 });
      x = adds ? make.op("Add", [x, y]) : y;
      channels = outputs;
    }
  }
  return net.classify(net.relu6(net.conv(x, [channels, 1280], 1, { shift: SHIFT })), 1280);
}

export interface EncoderShape {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly length: number;
  readonly vocabulary: number;
  /** Where layers normalize: their input, or the sum with it, as BERT does. */
  readonly norm: "before" | "after";
}

const TAGS = 16;

/** ids and mask int64 [n, length] → logits [n, length, 16]: a transformer encoder that tags tokens, written as PyTorch exports it. */
export function encoder({ layers, width, heads, length, vocabulary, norm }: EncoderShape): Model {
  const net = new Builder();
  const { make } = net;
  const ids = make.input("ids", ["n", length], "int64");
  const mask = make.input("mask", ["n", length], "int64");
  const words = make.op("Gather", [net.normal("words.weight", [vocabulary, width], 0.05), ids], { axis: 0 });
  const sum = make.op("Add", [words, net.normal("positions.weight", [length, width], 0.02)]);
  let x = norm === "after" ? net.layerNorm(sum, width) : sum;
  const unmasked = make.op("Unsqueeze", [make.op("Cast", [mask], { to: 1 }), make.ints("axes", [1, 2])]);
  const shut = make.op("Mul", [
    make.op("Sub", [make.floats("one", [], [1]), unmasked]),
    make.floats("shut", [], [-10000]),
  ]);
  const split = make.ints("heads", [0, length, heads, width / heads]);
  const merge = make.ints("merged", [0, length, width]);
  const scale = make.floats("scale", [], [Math.sqrt(width / heads)]);
  const attend = (input: Value): Value => {
    const project = (perm: number[], gain: number) =>
      make.op("Transpose", [make.op("Reshape", [net.linear(input, width, width, gain), split])], { perm });
    const [query, key, value] = [project([0, 2, 1, 3], 1.5), project([0, 2, 3, 1], 1.5), project([0, 2, 1, 3], 1)];
    const scores = make.op("Add", [make.op("Div", [make.op("MatMul", [query, key]), scale]), shut]);
    const context = make.op("MatMul", [make.op("Softmax", [scores], { axis: -1 }), value]);
    const mixed = make.op("Reshape", [make.op("Transpose", [context], { perm: [0, 2, 1, 3] }), merge]);
    return net.linear(mixed, width, width);
  };
  const feed = (input: Value): Value =>
    net.linear(make.gelu(net.linear(input, width, 4 * width, 2)), 4 * width, width, 0.7);
  for (let layer = 0; layer < layers; layer++) {
    for (const part of [attend, feed]) {
      x =
        norm === "before"
          ? make.op("Add", [x, part(net.layerNorm(x, width))])
          : net.layerNorm(make.op("Add", [part(x), x]), width);
    }
  }
  if (norm === "before") x = net.layerNorm(x, width);
  const product = make.op("MatMul", [x, net.normal("head.weight", [width, TAGS], Math.sqrt(1 / width))]);
  const bias = make.constant("head.bias", tensorOf("float32", [TAGS], new Float32Array(TAGS)));
  make.output(make.op("Add", [product, bias]), "logits", ["n", length, TAGS]);
  return make.model;
}

/** Fills in the statistics of normalizations, and centres the answers, on samples that go through the model together. */
export async function season(model: Model, samples: Feeds): Promise<Model> {
  const normalizations = model.graph.nodes.filter(({ opType }) => opType === "BatchNormalization");
  const statistics = await batchStatistics(model, normalizations, samples);
  for (const node of normalizations) {
    for (const [index, name] of [
      [3, "mean"],
      [4, "var"],
    ] as const) {
      node.setInput(index, model.graph.addInitializer(`bn.${name}`, statistics.get(`${node.name} ${name}`)!));
    }
  }
  const { logits } = await runModel(model, samples);
  const bias = [...model.graph.initializers].find(({ name }) => name === "head.bias")!;
  const answers = floatsOf(logits!);
  const means = new Float32Array(elementCount(bias.constant!.dims));
  for (let i = 0; i < answers.length; i++) means[i % means.length]! -= (answers[i]! * means.length) / answers.length;
  for (const { node, index } of [...bias.uses]) {
    node.setInput(index, model.graph.addInitializer("head.centred", tensorOf("float32", [means.length], means)));
  }
  model.graph.removeInitializer(bias);
  return model;
}

/** Mean and variance that each normalization meets when all before it normalize with theirs, by "name mean" and "name var". */
async function batchStatistics(model: Model, normalizations: readonly Node[], samples: Feeds) {
  const copy = model.clone();
  const outputs = new Map<string, string>();
  for (const { name } of normalizations) {
    const node = copy.graph.nodes.find((other) => other.name === name)!;
    node.setAttr("training_mode", { type: "int", value: 1 });
    node.setAttr("momentum", { type: "float", value: 0 });
    for (const what of ["mean", "var"]) {
      const value = node.addOutput(`${name}_${what}`, "float32");
      copy.graph.addOutput(value);
      outputs.set(`${name} ${what}`, value.name);
    }
  }
  if (outputs.size === 0) return new Map<string, Tensor>();
  const session = await openModel(copy, { threads: 2 });
  try {
    const results = await session.run(samples, [...outputs.values()]);
    return new Map([...outputs].map(([key, name]) => [key, results[name]!]));
  } finally {
    await session.close();
  }
}
