import assert from "node:assert/strict";
import type { Model, Value } from "../../src/core/onnx/ir.ts";
import { arrayOf, type Tensor, tensorOf } from "../../src/core/onnx/tensor.ts";
import { type Float16Options, float16Pass } from "../../src/core/passes/float16.ts";
import { compress, floatArray } from "./compressed.ts";
import { GraphMaker, type MakerOptions, randomFeeds } from "./graphs.ts";
import { runModel } from "./open-model.ts";

export function float16(options: Partial<Float16Options> = {}) {
  return float16Pass({ keepIo: true, exclude: { nodes: [], ops: [] }, ...options });
}

export type Feeds = Readonly<Record<string, Tensor>>;

function toHalf(tensor: Tensor): Tensor {
  return tensor.dtype === "float32"
    ? tensorOf("float16", tensor.dims, Float16Array.from(arrayOf(tensor, "float32")))
    : tensor;
}

/** Runs the converted model as it stands and optimized; its outputs must be within `tolerance` of the largest of the original's. */
export async function assertConverted(
  original: Model,
  options: Partial<Float16Options> = {},
  tolerance = 4e-3,
  feeds: Feeds = randomFeeds(original),
): Promise<Model> {
  const { model } = compress(original, float16(options));
  const half = options.keepIo === false;
  const given = half ? Object.fromEntries(Object.entries(feeds).map(([name, feed]) => [name, toHalf(feed)])) : feeds;
  const before = await runModel(original, feeds);
  for (const optimization of ["disabled", "all"] as const) {
    const after = await runModel(model, given, { optimization });
    assert.deepEqual(Object.keys(after), Object.keys(before));
    for (const [name, x] of Object.entries(before)) {
      const y = after[name]!;
      assert.deepEqual(y.dims, x.dims, name);
      assert.equal(y.dtype, half && x.dtype === "float32" ? "float16" : x.dtype, name);
      if (x.dtype !== "float32") {
        assert.deepEqual(y.bytes, x.bytes, name);
        continue;
      }
      const [xs, ys] = [floatArray(x), floatArray(y)];
      let largest = 0;
      for (const value of xs) largest = Math.max(largest, Math.abs(value));
      xs.forEach((value, i) => {
        const error = Math.abs(value - ys[i]!);
        assert.ok(error <= tolerance * largest, `${name}[${i}] is ${ys[i]} and was ${value} (${optimization})`);
      });
    }
  }
  return model;
}

/** float32 bytes and float16 bytes of all constants. */
export function weightBytes(model: Model): { float32: number; float16: number } {
  const bytes = { float32: 0, float16: 0 };
  for (const graph of model.graphs()) {
    const values: Value[] = [...graph.initializers, ...graph.nodes.flatMap(({ outputs }) => outputs)];
    for (const { constant } of values) {
      if (constant?.dtype === "float32" || constant?.dtype === "float16") bytes[constant.dtype] += constant.byteLength;
    }
  }
  return bytes;
}

/** A model of one input `x`, built by `build`. */
export function modelOf(
  dims: readonly number[],
  build: (make: GraphMaker, x: Value) => Value,
  options: MakerOptions = {},
): Model {
  const make = new GraphMaker(options);
  make.output(build(make, make.input("x", dims)), "y");
  return make.model;
}
