/**
 * Small networks of every shape that tests need, built on the IR itself. Weights are uniform with variance 1 / fan-in (2 / fan-in before a
 * Relu), so that activations stay near 1 however deep the network is; the same options give the same bytes.
 */

import type { DType } from "../../src/core/onnx/dtype.ts";
import { type Attr, type Dim, Graph, Model, type Node, type Value } from "../../src/core/onnx/ir.ts";
import type { ArrayDType } from "../../src/core/onnx/tensor.ts";
import { elementCount, type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";

/** Integers, lists of integers, strings, tensors and bodies stand for themselves; floats need `{ type: "float", value }`. */
export type AttrShorthand = number | readonly number[] | string | Graph | Attr;

export interface MakerOptions {
  readonly seed?: number;
  /** Version of ai.onnx; 17 unless given. */
  readonly opset?: number;
  readonly irVersion?: number;
  /** Where weights are kept: in initializers, or in Constant nodes as PaddlePaddle's exporter does. */
  readonly storage?: "initializer" | "constant";
}

/** mulberry32: fast enough to fill 25 M weights in a test. */
export function uniformSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Builds one graph node by node. `body` makes another for a subgraph of the same model. */
export class GraphMaker {
  readonly model: Model;
  readonly graph: Graph;
  readonly #uniform: () => number;
  readonly #storage: "initializer" | "constant";

  constructor(options: MakerOptions = {}, parent?: { readonly model: Model; readonly uniform: () => number }) {
    this.model =
      parent?.model ??
      new Model({ irVersion: options.irVersion ?? 8, opsets: [["", options.opset ?? 17]], graphName: "main" });
    this.graph = parent ? new Graph(this.model, "body") : this.model.graph;
    this.#uniform = parent?.uniform ?? uniformSource(options.seed ?? 1);
    this.#storage = options.storage ?? "initializer";
  }

  /** A maker for a body of this model; pass its `graph` as an attribute. */
  body(): GraphMaker {
    return new GraphMaker({ storage: this.#storage }, { model: this.model, uniform: this.#uniform });
  }

  input(name: string, dims: readonly Dim[] | undefined, dtype: DType = "float32"): Value {
    return this.graph.addInput(name, dtype, dims);
  }

  output(value: Value, name: string, dims?: readonly Dim[], dtype: DType = "float32"): void {
    value.name = this.model.freshName(name);
    value.retype(dtype, dims);
    this.graph.addOutput(value);
  }

  /** A constant; `storage` of the options says in what form. */
  constant(name: string, tensor: Tensor): Value {
    if (this.#storage === "initializer") return this.graph.addInitializer(name, tensor);
    const attrs = { value: { type: "tensor", value: tensor } } as const;
    return this.graph.append({ opType: "Constant", inputs: [], outputs: [this.model.freshName(name)], attrs })
      .outputs[0]!;
  }

  /** Uniform numbers with mean `mean` and standard deviation `deviation`. */
  random(dims: readonly number[], deviation = 1, mean = 0): Tensor {
    const half = Math.sqrt(3) * deviation;
    const data = new Float32Array(elementCount(dims));
    for (let i = 0; i < data.length; i++) data[i] = mean + (2 * this.#uniform() - 1) * half;
    return tensorOf("float32", dims, data);
  }

  weight(name: string, dims: readonly number[], deviation: number): Value {
    return this.constant(name, this.random(dims, deviation));
  }

  floats(name: string, dims: readonly number[], data: readonly number[]): Value {
    return this.constant(name, tensorOf("float32", dims, data));
  }

  ints(name: string, data: readonly number[], dims: readonly number[] = [data.length]): Value {
    return this.constant(name, tensorOf("int64", dims, data));
  }

  node(
    opType: string,
    inputs: readonly (Value | undefined)[],
    attrs: Readonly<Record<string, AttrShorthand>> = {},
    outputs: number | readonly string[] = 1,
    domain = "",
  ): Node {
    if (domain !== "") this.model.requireOpset(domain, 1);
    const name = this.model.freshName(`${opType.toLowerCase()}_node`);
    const full = Object.fromEntries(Object.entries(attrs).map(([key, value]) => [key, attrOf(value)]));
    return this.graph.append({ opType, domain, name, inputs, outputs, attrs: full });
  }

  /** The first output of a new node. */
  op(
    opType: string,
    inputs: readonly (Value | undefined)[],
    attrs: Readonly<Record<string, AttrShorthand>> = {},
  ): Value {
    return this.node(opType, inputs, attrs).outputs[0]!;
  }

  // ---- layers ------------------------------------------------------------------------------------------------------

  /** x [n, in, h, w] → [n, out, h', w'] with `kernel / 2` padding. */
  conv(
    x: Value,
    channels: readonly [number, number],
    kernel: number,
    options: { stride?: number; group?: number; bias?: boolean; gain?: number } = {},
  ): Value {
    const [inputs, outputs] = channels;
    const { stride = 1, group = 1, bias = true, gain = 2 } = options;
    const fanIn = (inputs / group) * kernel * kernel;
    const weight = this.weight("conv_w", [outputs, inputs / group, kernel, kernel], Math.sqrt(gain / fanIn));
    const pad = Math.floor(kernel / 2);
    return this.op("Conv", [x, weight, ...(bias ? [this.weight("conv_b", [outputs], 0.1)] : [])], {
      kernel_shape: [kernel, kernel],
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
      group,
    });
  }

  batchNorm(x: Value, channels: number, epsilon = 1e-5): Value {
    return this.op(
      "BatchNormalization",
      [
        x,
        this.constant("bn_scale", this.random([channels], 0.2, 1)),
        this.constant("bn_bias", this.random([channels], 0.2)),
        this.constant("bn_mean", this.random([channels], 0.2)),
        this.constant("bn_var", this.random([channels], 0.2, 1)),
      ],
      { epsilon: { type: "float", value: epsilon } },
    );
  }

  /** x [.., in] → [.., out] as MatMul and Add, the way exporters write a linear layer over sequences. */
  linear(x: Value, inputs: number, outputs: number, gain = 1): Value {
    const product = this.op("MatMul", [x, this.weight("linear_w", [inputs, outputs], Math.sqrt(gain / inputs))]);
    return this.op("Add", [product, this.weight("linear_b", [outputs], 0.1)]);
  }

  layerNorm(x: Value, features: number): Value {
    const scale = this.constant("ln_scale", this.random([features], 0.2, 1));
    return this.op("LayerNormalization", [x, scale, this.weight("ln_bias", [features], 0.1)], { axis: -1 });
  }

  /** x · Φ(x) by Erf, as exporters before opset 20 write it. */
  gelu(x: Value): Value {
    const half = this.op("Mul", [x, this.floats("half", [], [0.5])]);
    const erf = this.op("Erf", [this.op("Div", [x, this.floats("sqrt2", [], [Math.SQRT2])])]);
    return this.op("Mul", [half, this.op("Add", [erf, this.floats("one", [], [1])])]);
  }
}

function attrOf(value: AttrShorthand): Attr {
  if (typeof value === "number") return { type: "int", value };
  if (typeof value === "string") return { type: "string", value };
  if (value instanceof Graph) return { type: "graph", value };
  return Array.isArray(value) ? { type: "ints", value } : (value as Attr);
}

// ---- networks --------------------------------------------------------------------------------------------------------

/** x [n, sizes[0]] → y [n, sizes.at(-1)]: Gemm and Relu. */
export function mlp(options: MakerOptions & { readonly sizes?: readonly number[] } = {}): Model {
  const { sizes = [16, 32, 8] } = options;
  const make = new GraphMaker(options);
  let x = make.input("x", ["n", sizes[0]!]);
  for (let i = 1; i < sizes.length; i++) {
    const [inputs, outputs] = [sizes[i - 1]!, sizes[i]!];
    const weight = make.weight("fc_w", [outputs, inputs], Math.sqrt(2 / inputs));
    x = make.op("Gemm", [x, weight, make.weight("fc_b", [outputs], 0.1)], { transB: 1 });
    if (i < sizes.length - 1) x = make.op("Relu", [x]);
  }
  make.output(x, "y", ["n", sizes.at(-1)!]);
  return make.model;
}

/** x [n, 1, 28, 28] → y [n, 10]: two convolutions with batch normalization, pooling, two dense layers. */
export function cnn(options: MakerOptions & { readonly width?: number; readonly batchNorm?: boolean } = {}): Model {
  const { width = 8, batchNorm = true } = options;
  const make = new GraphMaker(options);
  let x = make.input("x", ["n", 1, 28, 28]);
  let channels = 1;
  for (const outputs of [width, 2 * width]) {
    x = make.conv(x, [channels, outputs], 3, { bias: !batchNorm });
    if (batchNorm) x = make.batchNorm(x, outputs);
    x = make.op("Relu", [x]);
    x = make.op("MaxPool", [x], { kernel_shape: [2, 2], strides: [2, 2] });
    channels = outputs;
  }
  x = make.op("Flatten", [x], { axis: 1 });
  const features = channels * 7 * 7;
  x = make.op("Relu", [make.linear(x, features, 32, 2)]);
  make.output(make.linear(x, 32, 10), "y", ["n", 10]);
  return make.model;
}

/**
 * The ResNet of He et al. (2015) with the stride in the 3x3 convolution: x [n, 3, size, size] → logits [n, classes].
 * Depth 50, width 64, 1000 classes at 224 has 25.6 M parameters and 4.1 G multiply-accumulates.
 */
export function resnet(
  options: MakerOptions & {
    readonly depth?: 18 | 50;
    readonly width?: number;
    readonly classes?: number;
    readonly size?: Dim;
    readonly batchNorm?: boolean;
  } = {},
): Model {
  const { depth = 18, width = 64, classes = 1000, size = 224, batchNorm = true } = options;
  const make = new GraphMaker(options);
  const convolve = (x: Value, channels: readonly [number, number], kernel: number, stride: number, gain = 2) => {
    const y = make.conv(x, channels, kernel, { stride, bias: !batchNorm, gain });
    return batchNorm ? make.batchNorm(y, channels[1]) : y;
  };
  let x = make.input("x", ["n", 3, size, size]);
  x = make.op("Relu", [convolve(x, [3, width], 7, 2)]);
  x = make.op("MaxPool", [x], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
  const bottleneck = depth === 50;
  let channels = width;
  [depth === 18 ? [2, 2, 2, 2] : [3, 4, 6, 3]].flat().forEach((blocks, stage) => {
    const inner = width * 2 ** stage;
    const outputs = bottleneck ? 4 * inner : inner;
    for (let block = 0; block < blocks; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      let y = x;
      if (bottleneck) {
        y = make.op("Relu", [convolve(y, [channels, inner], 1, 1)]);
        y = make.op("Relu", [convolve(y, [inner, inner], 3, stride)]);
        y = convolve(y, [inner, outputs], 1, 1, 0.25);
      } else {
        y = make.op("Relu", [convolve(y, [channels, inner], 3, stride)]);
        y = convolve(y, [inner, outputs], 3, 1, 0.25);
      }
      const shortcut = stride !== 1 || channels !== outputs ? convolve(x, [channels, outputs], 1, stride, 1) : x;
      x = make.op("Relu", [make.op("Add", [y, shortcut])]);
      channels = outputs;
    }
  });
  x = make.op("Flatten", [make.op("GlobalAveragePool", [x])], { axis: 1 });
  const weight = make.weight("fc_w", [classes, channels], Math.sqrt(1 / channels));
  make.output(make.op("Gemm", [x, weight, make.weight("fc_b", [classes], 0.1)], { transB: 1 }), "logits", [
    "n",
    classes,
  ]);
  return make.model;
}

/** Inverted residuals with depthwise convolutions and clipped activations, as MobileNetV2: x [n, 3, size, size] → logits [n, classes]. */
export function mobilenet(
  options: MakerOptions & {
    readonly width?: number;
    readonly blocks?: number;
    readonly size?: Dim;
    readonly classes?: number;
    readonly batchNorm?: boolean;
  } = {},
): Model {
  const { width = 16, blocks = 3, size = 32, classes = 10, batchNorm = true } = options;
  const make = new GraphMaker(options);
  const normalize = (x: Value, channels: number) => (batchNorm ? make.batchNorm(x, channels) : x);
  const relu6 = (x: Value) => make.op("Clip", [x, make.floats("clip_min", [], [0]), make.floats("clip_max", [], [6])]);
  const bias = !batchNorm;
  let x = make.input("x", ["n", 3, size, size]);
  x = relu6(normalize(make.conv(x, [3, width], 3, { stride: 2, bias }), width));
  for (let block = 0; block < blocks; block++) {
    const hidden = 4 * width;
    const stride = block % 2 === 1 ? 2 : 1;
    let y = relu6(normalize(make.conv(x, [width, hidden], 1, { bias }), hidden));
    y = relu6(normalize(make.conv(y, [hidden, hidden], 3, { stride, group: hidden, bias }), hidden));
    y = normalize(make.conv(y, [hidden, width], 1, { bias, gain: 0.5 }), width);
    x = stride === 1 ? make.op("Add", [x, y]) : y;
  }
  x = make.op("Flatten", [make.op("GlobalAveragePool", [x])], { axis: 1 });
  make.output(make.linear(x, width, classes), "logits", ["n", classes]);
  return make.model;
}

/**
 * A transformer encoder with learned token embeddings: ids int64 [n, sequence] → hidden states [n, sequence, hidden], or logits
 * [n, sequence, vocabulary] through the embedding table again when `tied`.
 */
export function transformer(
  options: MakerOptions & {
    readonly layers?: number;
    readonly hidden?: number;
    readonly heads?: number;
    readonly sequence?: number;
    readonly vocabulary?: number;
    readonly tied?: boolean;
  } = {},
): Model {
  const { layers = 2, hidden = 32, heads = 4, sequence = 8, vocabulary = 64, tied = false } = options;
  const make = new GraphMaker(options);
  const ids = make.input("ids", ["n", sequence], "int64");
  const table = make.weight("embedding", [vocabulary, hidden], 1);
  let x = make.op("Gather", [table, ids], { axis: 0 });
  x = make.op("Add", [x, make.weight("position", [sequence, hidden], 0.1)]);
  const split = make.ints("heads", [0, sequence, heads, hidden / heads]);
  const merge = make.ints("merged", [0, sequence, hidden]);
  const scale = make.floats("scale", [], [1 / Math.sqrt(hidden / heads)]);
  for (let layer = 0; layer < layers; layer++) {
    const normalized = make.layerNorm(x, hidden);
    const project = (perm: number[]) =>
      make.op("Transpose", [make.op("Reshape", [make.linear(normalized, hidden, hidden), split])], { perm });
    const [query, key, value] = [project([0, 2, 1, 3]), project([0, 2, 3, 1]), project([0, 2, 1, 3])];
    const scores = make.op("Softmax", [make.op("Mul", [make.op("MatMul", [query, key]), scale])], { axis: -1 });
    const context = make.op("Transpose", [make.op("MatMul", [scores, value])], { perm: [0, 2, 1, 3] });
    x = make.op("Add", [x, make.linear(make.op("Reshape", [context, merge]), hidden, hidden)]);
    const widened = make.gelu(make.linear(make.layerNorm(x, hidden), hidden, 4 * hidden, 2));
    x = make.op("Add", [x, make.linear(widened, 4 * hidden, hidden)]);
  }
  x = make.layerNorm(x, hidden);
  if (tied) {
    const logits = make.op("MatMul", [x, make.op("Transpose", [table], { perm: [1, 0] })]);
    make.output(logits, "logits", ["n", sequence, vocabulary]);
  } else make.output(x, "hidden", ["n", sequence, hidden]);
  return make.model;
}

/** x [time, n, inputs] → y [time, directions, n, hidden]: one LSTM with bias and zero initial state. */
export function lstm(
  options: MakerOptions & { readonly inputs?: number; readonly hidden?: number; readonly bidirectional?: boolean } = {},
): Model {
  const { inputs = 12, hidden = 16, bidirectional = false } = options;
  const directions = bidirectional ? 2 : 1;
  const make = new GraphMaker(options);
  const x = make.input("x", ["time", "n", inputs]);
  const w = make.weight("lstm_w", [directions, 4 * hidden, inputs], Math.sqrt(1 / inputs));
  const r = make.weight("lstm_r", [directions, 4 * hidden, hidden], Math.sqrt(1 / hidden));
  const b = make.weight("lstm_b", [directions, 8 * hidden], 0.1);
  const y = make.op("LSTM", [x, w, r, b], {
    hidden_size: hidden,
    direction: bidirectional ? "bidirectional" : "forward",
  });
  make.output(y, "y", ["time", directions, "n", hidden]);
  return make.model;
}

/**
 * condition bool [], x [n, 16] → y [n, 16]: an If whose branches hold their own weights and both read one of the main graph, as
 * silero VAD's does.
 */
export function branches(options: MakerOptions & { readonly features?: number } = {}): Model {
  const { features = 16 } = options;
  const make = new GraphMaker(options);
  const condition = make.input("condition", [], "bool");
  const x = make.input("x", ["n", features]);
  const shared = make.weight("shared", [features, features], Math.sqrt(1 / features));
  const branch = (activation: string) => {
    const body = make.body();
    const y = body.op(activation, [body.linear(x, features, 2 * features, 2)]);
    body.output(body.op("MatMul", [body.linear(y, 2 * features, features), shared]), "branch_y");
    return body.graph;
  };
  const y = make.op("If", [condition], { then_branch: branch("Relu"), else_branch: branch("Tanh") });
  make.output(y, "y", ["n", features]);
  return make.model;
}

/** x [n, 16] → y [n, 16], the state after `steps` rounds of state = tanh(state · W), and all states [steps, n, 16]. */
export function loop(options: MakerOptions & { readonly features?: number; readonly steps?: number } = {}): Model {
  const { features = 16, steps = 3 } = options;
  const make = new GraphMaker(options);
  const x = make.input("x", ["n", features]);
  const outer = make.weight("outer_w", [features, features], Math.sqrt(1 / features));
  const body = make.body();
  body.input("iteration", [], "int64");
  const going = body.input("going", [], "bool");
  const state = body.input("state", ["n", features]);
  const next = body.op("Tanh", [body.linear(body.op("MatMul", [state, outer]), features, features)]);
  body.output(body.op("Identity", [going]), "going_out", [], "bool");
  body.output(next, "state_out");
  body.output(body.op("Identity", [next]), "state_scan");
  const trips = make.ints("trips", [steps], []);
  const [y, all] = make.node("Loop", [trips, undefined, x], { body: body.graph }, 2).outputs;
  make.output(y!, "y", ["n", features]);
  make.output(all!, "states", [steps, "n", features]);
  return make.model;
}

// ---- inputs ----------------------------------------------------------------------------------------------------------

/**
 * Random feeds for every input without a default: floats uniform in ±√3, integers below `maxInteger`, booleans true.
 * Symbolic dimensions take their size from `dims`, else 2.
 */
export function randomFeeds(
  model: Model,
  options: {
    readonly seed?: number;
    readonly dims?: Readonly<Record<string, number>>;
    readonly maxInteger?: number;
  } = {},
): Record<string, Tensor> {
  const { seed = 7, dims = {}, maxInteger = 8 } = options;
  const uniform = uniformSource(seed);
  const fill: Partial<Record<DType, () => number>> = {
    float32: () => (2 * uniform() - 1) * Math.sqrt(3),
    bool: () => 1,
  };
  return Object.fromEntries(
    model.graph.inputs
      .filter((input) => !input.constant)
      .map((input) => {
        const dtype = input.dtype as ArrayDType;
        const shape = (input.shape ?? []).map((dim) => (typeof dim === "number" ? dim : (dims[dim ?? ""] ?? 2)));
        const next = fill[dtype] ?? (() => Math.floor(uniform() * maxInteger));
        return [input.name, tensorOf(dtype, shape, Array.from({ length: elementCount(shape) }, next))];
      }),
  );
}
