import { checkDifferentiable, TRAINING_OPSET } from "../autodiff/gradient.ts";
import { CoreError } from "../errors.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { upgradeOpset } from "../onnx/opset.ts";
import { floatsOf, type Tensor, tensorOf } from "../onnx/tensor.ts";
import { parameterOf } from "../operators/operators.ts";
import type { Floats } from "./parameter-kernels.ts";
import {
  checkTrainableDType,
  findOwnerOfParameters,
  findParameters,
  liveTensor,
  type Parameter,
  parametersOf,
  reinitialize,
} from "./parameters.ts";

/** Mean and variance that an inference BatchNormalization uses: running averages while the model is trained. */
export interface RunningStatistics {
  /** Names of the constants in the model. */
  readonly meanName: string;
  readonly varianceName: string;
  readonly mean: Floats;
  readonly variance: Floats;
  /** Weight of the old average when the statistics of a batch are added. */
  readonly momentum: number;
}

export interface TrainableOptions {
  /** Names of constants that stay as they are. */
  readonly frozen?: readonly string[];
  /** Draw all parameters anew from this seed and forget the running statistics. */
  readonly reinitializeSeed?: number;
  /** Keep the statistics of BatchNormalization as they are, as is usual when little data fine-tunes a model. */
  readonly freezeStatistics?: boolean;
  /** Values of the graph, other than outputs, that losses read; they keep their names. */
  readonly watch?: readonly string[];
}

/**
 * A model taken apart for training: the graph in the signatures of `TRAINING_OPSET` with its parameters and running statistics as inputs,
 * and their values in arrays beside it. It still computes inference; `buildStepGraph` makes a training step of it.
 */
export interface TrainableModel {
  readonly source: Model;
  readonly graph: Model;
  readonly parameters: readonly Parameter[];
  readonly statistics: readonly RunningStatistics[];
  /** What a forward pass needs besides the data: parameters and statistics over their own memory. */
  readonly feeds: Readonly<Record<string, Tensor>>;
  /** Names of values of `graph` that no gradient flows through. */
  readonly detached?: readonly string[];
  /** Outputs of `graph` with one element, which training adds to any loss. */
  readonly penalties?: readonly { readonly name: string; readonly value: string; readonly weight: number }[];
}

/**
 * Throws `unsupported`, naming the node or tensor, when the model has nothing to train or is made of operators that cannot be
 * differentiated. Needs no run of the model: this is for when a job is posted.
 */
export function checkTrainable(model: Model, options: TrainableOptions = {}): void {
  takeApart(model, options);
}

/** Takes `model` apart for training; the model itself is left alone. Throws as `checkTrainable` does. */
export function createTrainable(model: Model, options: TrainableOptions = {}): TrainableModel {
  const { graph, values, statisticNodes } = takeApart(model, options);
  const parameters = parametersOf(values);
  const statistics = statisticNodes.map((node) => statisticsOf(node));
  if (options.reinitializeSeed !== undefined) {
    for (const parameter of parameters) reinitialize(parameter, options.reinitializeSeed);
    for (const { mean, variance } of statistics) {
      mean.fill(0);
      variance.fill(1);
    }
  }
  const feeds: Record<string, Tensor> = {};
  for (const [i, { value }] of values.entries()) feeds[value.name] = becomeInput(graph, value, parameters[i]!.data);
  for (const [i, node] of statisticNodes.entries()) {
    const { mean, variance, meanName, varianceName } = statistics[i]!;
    for (const [value, data] of [[node.inputs[3]!, mean] as const, [node.inputs[4]!, variance] as const]) {
      if (value.constant) feeds[value.name] = becomeInput(graph, value, data);
    }
    feeds[meanName] ??= tensorOf("float32", [mean.length], mean);
    feeds[varianceName] ??= tensorOf("float32", [variance.length], variance);
  }
  return { source: model, graph, parameters, statistics, feeds };
}

function takeApart(model: Model, options: TrainableOptions) {
  const graph = model.clone();
  watchValues(graph, options.watch ?? []);
  upgradeOpset(graph, TRAINING_OPSET);
  const frozen = new Set(options.frozen ?? []);
  for (const name of frozen) {
    if (![...graph.nodes()].some((node) => node.inputs.some((value) => value?.name === name && value.constant))) {
      throw new CoreError("invalid_params", `The model has no constant "${name}" to freeze.`, name);
    }
  }
  const found = findParameters(graph);
  const values = found.filter(({ value }) => !frozen.has(value.name));
  if (values.length === 0) throw nothingToTrain(graph, found.length > 0);
  for (const { value } of values) checkTrainableDType(value);
  checkDifferentiable(
    graph,
    values.map(({ value }) => value),
  );
  const statisticNodes = graph.graph.nodes.filter(
    (node) =>
      node.opType === "BatchNormalization" &&
      node.domain === "" &&
      !options.freezeStatistics &&
      node.inputs[3]?.constant &&
      node.inputs[4]?.constant,
  );
  return { graph, values, statisticNodes };
}

function nothingToTrain(model: Model, allFrozen: boolean): CoreError {
  if (allFrozen)
    return new CoreError("invalid_params", "All weights of the model are frozen: nothing is left to train.");
  const owner = findOwnerOfParameters(model);
  if (!owner) return new CoreError("unsupported", "The model has no floating-point weights that could be trained.");
  return new CoreError(
    "unsupported",
    `The model cannot be trained: its weights stand in the bodies of "${owner.label}", and no gradient is known for ${owner.opType}.`,
    owner.label,
  );
}

/** Makes inner values outputs, so that rewrites keep their names. Throws `invalid_params` for a name the graph does not have. */
function watchValues(model: Model, names: readonly string[]): void {
  const byName = new Map<string, Value>();
  for (const node of model.graph.nodes) for (const value of node.outputs) byName.set(value.name, value);
  for (const name of names) {
    const value = byName.get(name);
    if (!value) throw new CoreError("invalid_params", `The model has no value "${name}".`, name);
    if (!value.isGraphOutput) model.graph.addOutput(value);
  }
}

/** The same network over copies of its parameters, which are to become moving averages; statistics are shared. */
export function averageOf(trainable: TrainableModel): TrainableModel {
  const parameters = trainable.parameters.map((parameter) => ({ ...parameter, data: parameter.data.slice() }));
  const live = parameters.map((parameter) => [parameter.name, liveTensor(parameter)]);
  return { ...trainable, parameters, feeds: { ...trainable.feeds, ...Object.fromEntries(live) } };
}

/** Two layers that share a constant share its average. */
function statisticsOf(node: Node): RunningStatistics {
  const [mean, variance] = [node.inputs[3]!, node.inputs[4]!];
  return {
    meanName: mean.name,
    varianceName: variance.name,
    mean: new Float32Array(floatsOf(mean.constant!)),
    variance: new Float32Array(floatsOf(variance.constant!)),
    momentum: parameterOf(node, "momentum"),
  };
}

/** Turns a constant into an input of the same name. */
function becomeInput(model: Model, value: Value, data: Floats): Tensor {
  const { graph } = model;
  const { name } = value;
  const dims = value.constant!.dims;
  const live = liveTensor({ dims, data });
  const input = graph.addInput(name, "float32", dims);
  for (const use of [...value.uses]) use.node.setInput(use.index, input);
  if (value.producer) graph.remove(value.producer);
  else graph.removeInitializer(value);
  return live;
}

/** The trained model: the source with the current values of all parameters and statistics. Structure, names and outputs are the source's. */
export function exportTrained(trainable: TrainableModel, values: TrainedValues = trainable): Model {
  const model = trainable.source.clone();
  const constants = new Map<string, Value>();
  for (const value of model.graph.initializers) constants.set(value.name, value);
  for (const node of model.graph.nodes) {
    if (node.isConstant) for (const value of node.outputs) constants.set(value.name, value);
  }
  const write = (name: string, data: Floats) => {
    const old = constants.get(name)!;
    const fresh = model.graph.addInitializer(name, tensorOf("float32", old.constant!.dims, data.slice()));
    model.graph.replaceUses(old, fresh);
    const overridable = model.graph.inputs.includes(old);
    if (old.producer) model.graph.remove(old.producer);
    else model.graph.removeInitializer(old);
    if (overridable) model.graph.setOverridable(fresh, true);
    fresh.name = name;
  };
  const written = new Set<string>();
  const writeOnce = (name: string, data: Floats) => {
    if (!written.has(name)) write(name, data);
    written.add(name);
  };
  for (const { name, data } of values.parameters) if (constants.has(name)) writeOnce(name, data);
  for (const { meanName, varianceName, mean, variance } of values.statistics) {
    writeOnce(meanName, mean);
    writeOnce(varianceName, variance);
  }
  return model;
}

/** What `exportTrained` writes: a trainable model itself, or the best values of a run. */
export type TrainedValues = Pick<TrainableModel, "statistics"> & {
  readonly parameters: readonly Pick<Parameter, "name" | "data">[];
};
