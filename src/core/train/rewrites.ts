/**
 * What makes a training step of an inference graph, one rewrite for each thing that training does otherwise. A rewrite changes the graph of
 * one network, and says what is fed to its steps and done after them. What changes a network for inference as well (fake quantization,
 * further outputs) is not done here but to the network itself, before it is trained; see `extendTrainable`.
 */
import { dimsOf, type GraphBuilder } from "../onnx/graph-builder.ts";
import type { Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import { moveAverage } from "./optimizer.ts";
import type { Floats } from "./parameter-kernels.ts";
import { useBatchStatistics } from "./statistics.ts";
import type { StepNetwork } from "./step-networks.ts";
import type { UpdateRounding } from "./update-roundings.ts";

type Named = Readonly<Record<string, Tensor>>;

export interface RewriteTarget {
  /** Emits into the graph of this network alone, in which values have the names that they have in the model. Shapes are known. */
  readonly g: GraphBuilder;
  readonly network: StepNetwork;
  readonly seed: number;
}

/** What a rewrite adds to every step. Values are those of the graph it has changed. */
export interface StepPart {
  /** Feeds of a step, which counts from 0. They depend on it and the seed alone, so that a resumed run is fed the same. */
  readonly feeds?: (step: number) => Named;
  /** Read from every step, for `after`. */
  readonly outputs?: readonly Value[];
  /** Called when the parameters of the step have been updated, with the values of `outputs`; `steps` are finished. */
  readonly after?: (outputs: readonly Tensor[], steps: number) => void;
}

export interface Rewrite {
  readonly name: string;
  /** Undefined when the network has nothing of the kind. */
  readonly apply: (target: RewriteTarget) => StepPart | undefined;
}

/** Every Dropout becomes a product with a mask that is drawn outside, from the seed and the step. */
export const dropout: Rewrite = {
  name: "dropout",
  apply({ g, seed }) {
    const masks: { readonly input: Value; readonly ratio: number }[] = [];
    for (const node of g.graph.nodes.filter(({ opType, domain }) => opType === "Dropout" && domain === "")) {
      const given = node.inputs[1]?.constant;
      const ratio = given ? floatsOf(given)[0]! : 0.5;
      const [x, y] = [node.inputs[0]!, node.outputs[0]!];
      if (ratio === 0 || node.outputs[1]?.uses.length) continue;
      const input = g.graph.addInput(g.graph.model.freshName(`dropout/${node.label}`), "float32", dimsOf(x));
      const product = g.before(node, () => g.mul(x, input));
      product.retype(y.dtype, y.shape);
      g.graph.replaceUses(y, product);
      g.graph.remove(node);
      masks.push({ input, ratio });
    }
    if (masks.length === 0) return undefined;
    return {
      feeds: (step) =>
        Object.fromEntries(
          masks.map(({ input, ratio }) => [
            input.name,
            drawMask({ input: input.name, dims: dimsOf(input), ratio }, seed, step),
          ]),
        ),
    };
  },
};

/** The mask of a step: 0 with probability `ratio`, else 1/(1 − ratio). */
export function drawMask(
  { input, dims, ratio }: { readonly input: string; readonly dims: readonly number[]; readonly ratio: number },
  seed: number,
  step: number,
): Tensor {
  const random = new Random(seed, `${input} ${step}`);
  const kept = 1 / (1 - ratio);
  const threshold = ratio * 2 ** 32;
  const data = new Float32Array(elementCount(dims));
  for (let i = 0; i < data.length; i++) data[i] = random.uint32() < threshold ? 0 : kept;
  return tensorOf("float32", dims, data);
}

/**
 * BatchNormalization normalises by its batch, whose statistics move the running ones of a network that is trained. They are outputs for one
 * that is not trained as well: onnxruntime writes statistics that are no outputs over the running ones that it was fed.
 */
export const batchStatistics: Rewrite = {
  name: "batch statistics",
  apply({ g, network: { trainable, trained } }) {
    const found = useBatchStatistics(g.graph.nodes, trainable.statistics);
    if (found.length === 0) return undefined;
    const outputs = found.flatMap(({ node }) => node.outputs.slice(1, 3));
    if (!trained) return { outputs };
    return {
      outputs,
      after(values) {
        for (const [i, { running }] of found.entries()) {
          moveAverage(running.mean, floatsOf(values[2 * i]!), running.momentum);
          moveAverage(running.variance, floatsOf(values[2 * i + 1]!), running.momentum);
        }
      },
    };
  },
};

/**
 * Moves a second set of values towards those of a network that is trained. Early steps weigh more: the decay is at most (1 + t)/(10 + t).
 * `averageOf` answers the values to move, undefined for a network without any.
 */
export function movingAverage(
  decay: number,
  averageOf: (network: StepNetwork) => readonly { readonly data: Floats }[] | undefined,
): Rewrite {
  return {
    name: "moving average",
    apply({ network }) {
      const averages = network.trained ? averageOf(network) : undefined;
      if (!averages) return undefined;
      return {
        after(_outputs, steps) {
          const own = Math.min(decay, (1 + steps) / (10 + steps));
          for (const [i, { data }] of averages.entries()) moveAverage(data, network.trainable.parameters[i]!.data, own);
        },
      };
    },
  };
}

/**
 * Keeps a network's weights in bfloat16: after every update each is rounded to one of the two values beside it, to the nearer one, or to
 * either at random, with the chance that makes the mean the exact weight (stochastic rounding, Gupta et al. 2015). An update smaller than half
 * a step is lost by the first and kept on average by the second. Learned scales stay in float32.
 */
export function roundedUpdates(rounding: UpdateRounding): Rewrite {
  return {
    name: `${rounding} updates`,
    apply({ network: { trainable, trained, prefix }, seed }) {
      if (!trained) return undefined;
      const parameters = trainable.parameters.filter(({ role }) => role !== "scale");
      return {
        after(_outputs, steps) {
          for (const { name, data } of parameters) {
            if (rounding === "nearest") toNearestBfloat16(data);
            else toRandomBfloat16(data, new Random(seed, `update ${prefix}${name} ${steps}`));
          }
        },
      };
    },
  };
}

const bitsOf = (data: Float32Array) => new Uint32Array(data.buffer, data.byteOffset, data.length);

/** To the upper 16 bits of float32, ties to even. */
export function toNearestBfloat16(data: Float32Array): void {
  const bits = bitsOf(data);
  for (let i = 0; i < bits.length; i++) bits[i] = (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) & 0xffff0000;
}

/** Up with the chance that the lower 16 bits are of a step. */
export function toRandomBfloat16(data: Float32Array, random: Random): void {
  const bits = bitsOf(data);
  for (let i = 0; i < bits.length; i += 2) {
    const drawn = random.uint32();
    bits[i] = (bits[i]! + (drawn & 0xffff)) & 0xffff0000;
    if (i + 1 < bits.length) bits[i + 1] = (bits[i + 1]! + (drawn >>> 16)) & 0xffff0000;
  }
}
