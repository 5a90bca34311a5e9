import { mnist } from "../../bench/mnist.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { writeNpz } from "./dataset-writers.ts";
import { GraphMaker } from "./graphs.ts";
import { cnn, mlp } from "./networks.ts";

/** Part of MNIST as an `.npz` of `x` and, unless told otherwise, `labels`. */
export function mnistFile(
  part: "training" | "test",
  count: number,
  { labels = true }: { labels?: boolean } = {},
): Uint8Array<ArrayBuffer> {
  const { feeds, targets } = mnist(part, count).gather(Array.from({ length: count }, (_, i) => i));
  return new Uint8Array(writeNpz({ ...feeds, ...(labels && targets) }));
}

/** Untrained networks for it, `x` → `logits`, as files. */
export const NETWORKS = {
  cnn: (channels: readonly [number, number], hidden: number) => new Uint8Array(modelToBytes(cnn(channels, hidden))),
  /** Without weights, and with an input of another name. */
  relu(input: string) {
    const make = new GraphMaker();
    make.output(make.op("Relu", [make.input(input, ["n", 784])]), "logits", ["n", 784]);
    return new Uint8Array(modelToBytes(make.model));
  },
  mlp: (hidden: number, classes = 10) => new Uint8Array(modelToBytes(mlp([784, hidden, classes]))),
};
