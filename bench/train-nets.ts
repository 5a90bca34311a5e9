/** The networks that training is measured on, each with one random batch and its loss. The PyTorch side has the same. */
import type { Model } from "../src/core/onnx/ir.ts";
import { elementCount, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { crossEntropy } from "../src/core/train/losses.ts";
import type { SampleBatch } from "../src/core/train/samples.ts";
import { buildStepGraph, type StepGraph, soloNetwork } from "../src/core/train/step-graph.ts";
import { createTrainable, type TrainableModel } from "../src/core/train/trainable.ts";
import { cnn, mlp, resNet18, smallStudent, transformer } from "../test/support/networks.ts";

export interface Net {
  readonly batchSize: number;
  readonly classes: number;
  readonly model: () => Model;
  readonly inputs: (batchSize: number) => Record<string, Tensor>;
}

function images(...dims: number[]): (batchSize: number) => Record<string, Tensor> {
  return (batchSize) => {
    const data = new Float32Array(batchSize * elementCount(dims));
    new Random(1, "images").fillNormal(data);
    return { x: tensorOf("float32", [batchSize, ...dims], data) };
  };
}

function integers(name: string, stream: string, bound: number, dims: readonly number[]): Record<string, Tensor> {
  const random = new Random(1, stream);
  const data = BigInt64Array.from({ length: elementCount(dims) }, () => BigInt(random.integer(bound)));
  return { [name]: tensorOf("int64", dims, data) };
}

export const NETS: Readonly<Record<string, Net>> = {
  mlp: { batchSize: 128, classes: 10, model: () => mlp([784, 512, 256, 10]), inputs: images(1, 28, 28) },
  cnn: { batchSize: 128, classes: 10, model: () => cnn([32, 64], 128), inputs: images(1, 28, 28) },
  student: { batchSize: 128, classes: 10, model: () => smallStudent(), inputs: images(1, 28, 28) },
  resnet18: { batchSize: 32, classes: 10, model: () => resNet18({ size: 64, classes: 10 }), inputs: images(3, 64, 64) },
  transformer: {
    batchSize: 32,
    classes: 10,
    model: () => transformer({ layers: 4, width: 256, heads: 8, length: 128, vocabulary: 8000, classes: 10 }),
    inputs: (batchSize) => integers("tokens", "tokens", 8000, [batchSize, 128]),
  },
};

export interface NetStep {
  readonly trainable: TrainableModel;
  readonly graph: StepGraph;
  /** Inputs and targets of the one batch. */
  readonly batch: SampleBatch;
  /** The graph of the same step for a batch of other size, and sessions of so many threads. */
  readonly rebuild: (batch: SampleBatch, threads: number) => Promise<StepGraph>;
}

/** For a session of so many threads. */
export async function netStep({ batchSize, classes, model, inputs }: Net, threads: number): Promise<NetStep> {
  const trainable = createTrainable(model());
  const batch = { feeds: inputs(batchSize), targets: integers("labels", "labels", classes, [batchSize]) };
  const rebuild = (part: SampleBatch, of: number) =>
    buildStepGraph([soloNetwork(trainable)], {
      batch: part,
      objective: ({ g, value, target }) => [
        { name: "label", weight: 1, value: crossEntropy(g, value("logits"), target("labels")), overSamples: true },
      ],
      seed: 1,
      threads: of,
      openSession,
    });
  return { trainable, graph: await rebuild(batch, threads), batch, rebuild };
}
