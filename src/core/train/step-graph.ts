import { expandOperators } from "../autodiff/expand.ts";
import { fuseOperators } from "../autodiff/fuse.ts";
import { buildGradients } from "../autodiff/gradient.ts";
import { CoreError } from "../errors.ts";
import { dimsOf, GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Value } from "../onnx/ir.ts";
import { modelToBytes } from "../onnx/save.ts";
import { elementCount, floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { Random } from "../random.ts";
import type { OpenSession } from "../runtime/session.ts";
import { allocateParameters, type ParameterArrays } from "./adam-kernel.ts";
import { liveTensor, type Parameter } from "./parameters.ts";
import { resolveStatics } from "./statics.ts";
import { useBatchStatistics } from "./statistics.ts";
import type { RunningStatistics, TrainableModel } from "./trainable.ts";

/** One part of the loss: `weight` · `value`, where value is a scalar. */
export interface LossTerm {
  readonly name: string;
  readonly weight: number;
  readonly value: Value;
}

/** What an objective builds the loss from. All values have shapes. */
export interface ObjectiveContext {
  readonly g: GraphBuilder;
  /** A value of the model: an output, or one that was watched. */
  readonly value: (name: string) => Value;
  /** What comes with each batch besides the model's inputs: labels, a teacher's outputs. */
  readonly target: (name: string) => Value;
  /** A parameter of the loss itself, drawn from N(0, 1/fanIn), trained along and left out of the exported model. */
  readonly parameter: (name: string, dims: readonly number[], fanIn: number) => Value;
}

export type Objective = (context: ObjectiveContext) => readonly LossTerm[];

/** A product with a mask that drops activations, where the model has a Dropout. */
interface DropoutMask {
  readonly input: string;
  readonly dims: readonly number[];
  readonly ratio: number;
}

/**
 * One training step as an ONNX model for batches of one size: (batch, targets, parameters) -> (losses, gradients, statistics of the batch).
 * The update is not part of it: one pass over typed arrays is faster (`bench/train-optimizer.ts`).
 */
export interface StepGraph {
  readonly model: Uint8Array;
  /** The model's parameters, then those of the losses. */
  readonly parameters: readonly Parameter[];
  /** The sum, then each term. */
  readonly loss: string;
  readonly terms: readonly { readonly name: string; readonly weight: number; readonly output: string }[];
  /** Output with the gradient of each parameter; undefined where the loss does not depend on it. */
  readonly gradients: readonly (string | undefined)[];
  /** Output with Σ g² of each gradient there is, in order: their norm, and a watch for what is not finite. */
  readonly squares: string;
  /** Outputs with the mean and the variance of this batch for each of the running statistics. */
  readonly batchStatistics: readonly {
    readonly running: RunningStatistics;
    readonly mean: string;
    readonly variance: string;
  }[];
  readonly masks: readonly DropoutMask[];
  /** What every step is fed besides the batch, over live memory. */
  readonly feeds: Readonly<Record<string, Tensor>>;
}

export interface StepGraphOptions {
  /** Inputs and targets of one batch; all later ones must have the same shapes. */
  readonly batch: {
    readonly feeds: Readonly<Record<string, Tensor>>;
    readonly targets: Readonly<Record<string, Tensor>>;
  };
  readonly objective: Objective;
  readonly seed: number;
  readonly openSession: OpenSession;
}

/** How inputs that hold targets are called, so that they cannot be taken for the model's own. */
const targetName = (name: string) => `target/${name}`;

/** The feeds of a step that come with the batch. */
export function batchFeeds(batch: StepGraphOptions["batch"]): Record<string, Tensor> {
  const targets = Object.entries(batch.targets).map(([name, value]) => [targetName(name), value]);
  return { ...batch.feeds, ...Object.fromEntries(targets) };
}

/**
 * Builds the training step of a model. Throws `unsupported` with the node where something cannot be differentiated, `invalid_params` where
 * the objective does not fit the model.
 */
export async function buildStepGraph(trainable: TrainableModel, options: StepGraphOptions): Promise<StepGraph> {
  const { openSession, seed } = options;
  const model = trainable.graph.clone();
  const { graph } = model;
  const feeds: Record<string, Tensor> = { ...trainable.feeds, ...options.batch.feeds };
  await resolveStatics(model, feeds, openSession);
  fuseOperators(graph);
  if (expandOperators(graph)) await resolveStatics(model, feeds, openSession);

  const g = new GraphBuilder(graph);
  const masks = maskDropouts(g);
  for (const { input, dims } of masks) feeds[input] = tensorOf("float32", dims, new Float32Array(elementCount(dims)));
  const batchStatistics = useBatchStatistics(graph.nodes, trainable.statistics);
  for (const [name, value] of Object.entries(options.batch.targets)) {
    graph.addInput(targetName(name), value.dtype, value.dims);
    feeds[targetName(name)] = value;
  }

  const own: Parameter[] = [];
  const terms = g.within("loss", () => options.objective(contextOf(g, own, feeds, seed)));
  if (terms.length === 0) throw new CoreError("invalid_params", "The objective has no loss.");
  const weighted = terms.map(({ value, weight }) => (weight === 1 ? value : g.mul(value, weight)));
  const loss = weighted.reduce((sum, term) => g.add(sum, term));
  for (const value of [...graph.outputs]) graph.removeOutput(value);
  for (const value of new Set([loss, ...terms.map((term) => term.value)])) graph.addOutput(value);
  await resolveStatics(model, feeds, openSession);

  const parameters = [...trainable.parameters, ...own];
  const inputs = new Map(graph.inputs.map((value) => [value.name, value]));
  const values = parameters.map(({ name }) => inputs.get(name)!);
  const gradients = buildGradients(g, loss, values);
  // A gradient that is another value's too (of two added biases) needs a name of its own.
  const given = new Set<Value>(graph.outputs);
  const squares: Value[] = [];
  const outputs = values.map((value) => {
    const gradient = gradients.get(value);
    if (!gradient) return undefined;
    const result = given.has(gradient) ? g.op("Identity", [gradient]) : gradient;
    given.add(result);
    result.retype("float32", dimsOf(value));
    graph.addOutput(result);
    squares.push(g.reshape(g.op("ReduceSumSquare", [result], { keepdims: int(0) }), [1]));
    return result.name;
  });
  if (squares.length === 0) {
    throw new CoreError("invalid_params", "The loss does not depend on anything that can be trained.");
  }
  const allSquares = g.op("Concat", squares, { axis: int(0) });
  graph.addOutput(allSquares);
  for (const { node } of batchStatistics) for (const value of node.outputs.slice(1, 3)) graph.addOutput(value);
  return {
    model: modelToBytes(model),
    parameters,
    loss: loss.name,
    terms: terms.map(({ name, weight, value }) => ({ name, weight, output: value.name })),
    gradients: outputs,
    squares: allSquares.name,
    batchStatistics: batchStatistics.map(({ running, node }) => ({
      running,
      mean: node.outputs[1]!.name,
      variance: node.outputs[2]!.name,
    })),
    masks,
    feeds: {
      ...trainable.feeds,
      ...Object.fromEntries(own.map((parameter) => [parameter.name, liveTensor(parameter)])),
    },
  };
}

function contextOf(g: GraphBuilder, own: Parameter[], feeds: Record<string, Tensor>, seed: number): ObjectiveContext {
  const { graph } = g;
  const find = (name: string, what: string): Value => {
    const value =
      graph.inputs.find((candidate) => candidate.name === name) ??
      graph.outputs.find((candidate) => candidate.name === name);
    if (!value) throw new CoreError("invalid_params", `There is no ${what} "${name}".`, name);
    return value;
  };
  return {
    g,
    value: (name) => find(name, "value"),
    target: (name) => find(targetName(name), "target"),
    parameter: (base, dims, fanIn) => {
      const value = graph.addInput(graph.model.freshName(`loss/${base}`), "float32", dims);
      const [arrays] = allocateParameters([elementCount(dims)]) as [ParameterArrays];
      const { data } = arrays;
      new Random(seed, `initial ${value.name}`).fillNormal(data);
      for (let i = 0; i < data.length; i++) data[i]! /= Math.sqrt(fanIn);
      const parameter: Parameter = {
        name: value.name,
        role: "weight",
        dims,
        ...arrays,
        fan: { in: fanIn, out: 1 },
        rectified: false,
      };
      own.push(parameter);
      feeds[value.name] = liveTensor(parameter);
      return value;
    },
  };
}

/** Every Dropout becomes a product with a mask that is drawn outside, from the seed and the step. */
function maskDropouts(g: GraphBuilder): DropoutMask[] {
  const masks: DropoutMask[] = [];
  for (const node of g.graph.nodes.filter(({ opType, domain }) => opType === "Dropout" && domain === "")) {
    const given = node.inputs[1]?.constant;
    const ratio = given ? floatsOf(given)[0]! : 0.5;
    const [x, y] = [node.inputs[0]!, node.outputs[0]!];
    if (ratio === 0 || node.outputs[1]?.uses.length) continue;
    const dims = dimsOf(x);
    const mask = g.graph.addInput(g.graph.model.freshName(`dropout/${node.label}`), "float32", dims);
    const product = g.before(node, () => g.mul(x, mask));
    product.retype(y.dtype, y.shape);
    g.graph.replaceUses(y, product);
    g.graph.remove(node);
    masks.push({ input: mask.name, dims, ratio });
  }
  return masks;
}

/** The mask of a step: 0 with probability `ratio`, else 1/(1 − ratio). */
export function drawMask({ input, dims, ratio }: DropoutMask, seed: number, step: number): Tensor {
  const random = new Random(seed, `${input} ${step}`);
  const kept = 1 / (1 - ratio);
  const threshold = ratio * 2 ** 32;
  const data = new Float32Array(elementCount(dims));
  for (let i = 0; i < data.length; i++) data[i] = random.uint32() < threshold ? 0 : kept;
  return tensorOf("float32", dims, data);
}
