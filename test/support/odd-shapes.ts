/** Small networks whose outputs have unusual shapes, and samples whose labels are of many kinds; for tests over HTTP. */
import { int } from "../../src/core/onnx/graph-builder.ts";
import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { floatsOf, type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { Random } from "../../src/core/random.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { writeNpz } from "./dataset-writers.ts";
import { NetworkBuilder } from "./networks.ts";

/** Samples of each dataset. */
export const COUNT = 320;
const WIDTH = 8;
const TOKENS = 3;

interface Shape {
  readonly seed: number;
  /** Values of each sample, or of each of its tokens. */
  readonly values: number;
  /** The output's, the batch first. */
  readonly dims: readonly (number | string)[];
  readonly tokens?: boolean;
  /** With a BatchNormalization. */
  readonly normal?: boolean;
  /** Behind all else; a Softmax is over the second axis. */
  readonly last?: "Softmax" | "Sigmoid";
}

/** Two dense layers on x [n, 8], or on tokens [n, 3, 8]; the output is called y. */
function network({ seed, values, dims, tokens = false, normal = false, last }: Shape): Uint8Array<ArrayBuffer> {
  const net = new NetworkBuilder(seed);
  const x = net.input(tokens ? ["n", TOKENS, WIDTH] : ["n", WIDTH]);
  const inner = net.linear(x, WIDTH, 16, tokens);
  const y = net.linear(net.relu(normal ? net.batchNorm(inner, 16) : inner), 16, values, tokens);
  const shape = dims.map((dim) => (typeof dim === "number" ? dim : -1));
  const shaped = tokens ? y : net.g.reshape(y, shape);
  const ended = last ? net.g.op(last, [shaped], last === "Softmax" ? { axis: int(1) } : {}) : shaped;
  const model: Model = net.output(ended, dims, "y");
  return new Uint8Array(modelToBytes(model));
}

export const ODD_MODELS = {
  "teacher of n1": network({ seed: 1, values: 1, dims: ["n", 1] }),
  "student of n": network({ seed: 2, values: 1, dims: ["n"] }),
  four: network({ seed: 3, values: 4, dims: ["n", 4] }),
  "four as maps": network({ seed: 4, values: 4, dims: ["n", 4, 1, 1] }),
  five: network({ seed: 5, values: 5, dims: ["n", 5] }),
  normal: network({ seed: 6, values: 4, dims: ["n", 4], normal: true }),
  pixels: network({ seed: 10, values: 16, dims: ["n", 4, 2, 2], last: "Softmax" }),
  shares: network({ seed: 12, values: 4, dims: ["n", 4], last: "Sigmoid" }),
  "small shares": network({ seed: 13, values: 4, dims: ["n", 4], last: "Sigmoid" }),
  "one share": network({ seed: 14, values: 1, dims: ["n", 1], last: "Sigmoid" }),
  "three tokens": network({ seed: 7, values: 4, dims: ["n", TOKENS, 4], tokens: true }),
  "open tokens": network({ seed: 8, values: 4, dims: ["n", "t", 4], tokens: true }),
  "open tokens of five": network({ seed: 9, values: 5, dims: ["n", "u", 5], tokens: true }),
};

const random = new Random(11, "samples");
function noise(count: number): Float32Array<ArrayBuffer> {
  const data = new Float32Array(count * WIDTH);
  random.fillNormal(data);
  return data;
}

/** The place of the largest of a row's first four numbers: what a network can learn. */
function classesOf(rows: Float32Array): number[] {
  return Array.from({ length: rows.length / WIDTH }, (_, i) => {
    const own = [...rows.subarray(i * WIDTH, i * WIDTH + 4)];
    return own.indexOf(Math.max(...own));
  });
}

const x = noise(COUNT);
const classes = classesOf(x);
const tokens = noise(TOKENS * COUNT);
/** Which of a row's first four numbers are above zero: labels that are binary. */
const signs = Array.from(classes).flatMap((_, i) =>
  Array.from(x.subarray(i * WIDTH, i * WIDTH + 4), (value) => (value > 0 ? 1 : 0)),
);
const changed = (change: (own: number, i: number) => number) => classes.map(change);

function dataset(labels?: Tensor, values = tensorOf("float32", [COUNT, WIDTH], x)): Uint8Array<ArrayBuffer> {
  return new Uint8Array(writeNpz({ x: values, ...(labels && { labels }) }));
}

/** The same samples with labels of all kinds; `tokens` are others, the last token of each without a label. */
export const ODD_DATASETS = {
  bare: dataset(),
  classes: dataset(tensorOf("int64", [COUNT], classes)),
  column: dataset(tensorOf("int32", [COUNT, 1], classes)),
  floats: dataset(tensorOf("float32", [COUNT], classes)),
  "one-hot": dataset(
    tensorOf(
      "float32",
      [COUNT, 4],
      classes.flatMap((own) => [0, 1, 2, 3].map((k) => (k === own ? 1 : 0))),
    ),
  ),
  signs: dataset(tensorOf("int64", [COUNT, 4], signs)),
  "signs as floats": dataset(tensorOf("float32", [COUNT, 4], signs)),
  /** Every third one is 255. */
  "signs with gaps": dataset(
    tensorOf(
      "uint8",
      [COUNT, 4],
      signs.map((sign, i) => (i % 3 === 0 ? 255 : sign)),
    ),
  ),
  "first signs": dataset(
    tensorOf(
      "bool",
      [COUNT],
      changed((_, i) => signs[4 * i]!),
    ),
  ),
  /** The same class for each of 2 x 2 pixels. */
  pixels: dataset(
    tensorOf(
      "uint8",
      [COUNT, 2, 2],
      classes.flatMap((own) => [own, own, own, own]),
    ),
  ),
  two: new Uint8Array(
    writeNpz({
      x: tensorOf("float32", [2, WIDTH], x.slice(0, 2 * WIDTH)),
      labels: tensorOf("int64", [2], classes.slice(0, 2)),
    }),
  ),
  /** Samples 9 and 30 have a NaN and an infinity. */
  broken: dataset(
    tensorOf("int64", [COUNT], classes),
    tensorOf(
      "float32",
      [COUNT, WIDTH],
      x.map((value, i) => (i === 9 * WIDTH + 3 ? Number.NaN : i === 30 * WIDTH ? Number.POSITIVE_INFINITY : value)),
    ),
  ),
  /** Every second one is -1. */
  unknown: dataset(
    tensorOf(
      "int64",
      [COUNT],
      changed((own, i) => (i % 2 === 1 ? -1 : own)),
    ),
  ),
  /** Sample 17 has class 6 of 4. */
  "too many": dataset(
    tensorOf(
      "int64",
      [COUNT],
      changed((own, i) => (i === 17 ? 6 : own)),
    ),
  ),
  halves: dataset(
    tensorOf(
      "float32",
      [COUNT],
      changed((own) => own / 2),
    ),
  ),
  tokens: dataset(
    tensorOf(
      "int64",
      [COUNT, TOKENS],
      classesOf(tokens).map((own, i) => (i % TOKENS === 2 ? -100 : own)),
    ),
    tensorOf("float32", [COUNT, TOKENS, WIDTH], tokens),
  ),
};

/** What a model says of the samples x. */
export async function oddOutputs(bytes: Uint8Array): Promise<Float32Array> {
  const session = await openSession({ bytes });
  const results = await session.run({ x: tensorOf("float32", [COUNT, WIDTH], x) });
  await session.close();
  return floatsOf(results.y!);
}
