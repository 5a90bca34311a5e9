import { CoreError, checkCancelled } from "../errors.ts";
import type { ValueFacts } from "../facts.ts";
import { byteLengthOf } from "../onnx/dtype.ts";
import type { Dim, Graph, Model, Node, Value } from "../onnx/ir.ts";
import { LIMITS } from "../onnx/limits.ts";
import { elementCount, integersOf } from "../onnx/tensor.ts";
import { hasMacs, macsOf } from "../operators/operators.ts";
import type { OpenSession } from "../runtime/session.ts";
import { type ConcreteType, isConcrete, probeTypes } from "./shape-probe.ts";

/** What one sample costs; null where shapes are not known. */
export interface ModelCost {
  readonly macs: number | null;
  readonly activation_bytes: number | null;
}

/** What running a graph once costs; undefined where a shape is not known. */
interface Cost {
  readonly macs: number | undefined;
  readonly bytes: number | undefined;
}

const UNKNOWN: Cost = { macs: undefined, bytes: undefined };
const NOTHING: Cost = { macs: 0, bytes: 0 };

/** Each body that multiplies is loaded by itself; a model with more of them has no cost that is worth the wait. */
const MAX_PROBES = 40;

/**
 * Multiply-accumulates and bytes of all intermediate values for one sample. Symbolic dimensions get their sizes from `dims`, by name, or by
 * `input.axis` ("x.3") where they have none; the first axis of an input with two or more is the batch, and 1 unless given. A model whose
 * batch is fixed is counted as it runs.
 *
 * Of an If the branch that costs more counts, among those that the runtime can load with these sizes; of a Loop with a constant trip
 * count all its rounds. Other loops over layers make the cost unknown.
 * Throws `invalid_params` for a dimension that no input has, or a size that cannot be.
 */
export async function costOf(
  model: Model,
  inputs: readonly ValueFacts[],
  options: {
    readonly openSession: OpenSession;
    readonly dims: Readonly<Record<string, number>>;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<ModelCost> {
  const types = bindInputs(model, inputs, options.dims);
  const cost = types && (await new CostMeter(model, options).graph(model.graph, types));
  const { macs, bytes } = cost ?? UNKNOWN;
  return { macs: macs ?? null, activation_bytes: bytes ?? null };
}

/** The types of the model's inputs, or undefined when a size is neither fixed nor given. */
function bindInputs(
  model: Model,
  inputs: readonly ValueFacts[],
  dims: Readonly<Record<string, number>>,
): Map<Value, ConcreteType> | undefined {
  for (const [name, size] of Object.entries(dims)) {
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new CoreError("invalid_params", `The dimension "${name}" cannot have the size ${size}.`, name);
    }
  }
  const nameOf = (input: ValueFacts, axis: number, dim: Dim) =>
    typeof dim === "string" ? dim : `${input.name}.${axis}`;
  const symbolic = new Set<string>();
  const batches = new Set<string>();
  for (const input of inputs) {
    input.shape?.forEach((dim, axis) => {
      if (typeof dim === "number") return;
      symbolic.add(nameOf(input, axis, dim));
      if (axis === 0 && input.shape!.length > 1) batches.add(nameOf(input, axis, dim));
    });
  }
  const unknown = Object.keys(dims).find((name) => !symbolic.has(name));
  if (unknown !== undefined) {
    const names = [...symbolic].map((name) => `"${name}"`).join(", ");
    const there = symbolic.size > 0 ? `there are ${names}` : "all are fixed";
    throw new CoreError(
      "invalid_params",
      `The model's inputs have no dimension called "${unknown}": ${there}.`,
      unknown,
    );
  }

  const types = new Map<Value, ConcreteType>();
  for (const input of inputs) {
    const value = model.graph.inputs.find(({ name }) => name === input.name);
    if (!value || !input.dtype || !input.shape) return undefined;
    const shape = input.shape.map((dim, axis) => {
      if (typeof dim === "number") return dim;
      const name = nameOf(input, axis, dim);
      return Object.hasOwn(dims, name) ? dims[name]! : batches.has(name) ? 1 : null;
    });
    if (!isConcrete(shape)) return undefined;
    if (elementCount(shape) > LIMITS.elements) {
      throw new CoreError("invalid_params", `The input "${input.name}" would have the shape [${shape}].`, input.name);
    }
    types.set(value, { dtype: input.dtype, shape });
  }
  return types;
}

class CostMeter {
  readonly #openSession: OpenSession;
  readonly #signal: AbortSignal | undefined;
  /** Model-local functions: the runtime expands them, and does not say what is inside. */
  readonly #functions: ReadonlySet<string>;
  #probes = 0;

  constructor(model: Model, options: { openSession: OpenSession; signal?: AbortSignal | undefined }) {
    this.#openSession = options.openSession;
    this.#signal = options.signal;
    this.#functions = new Set(model.functions.map(({ domain, name }) => `${domain} ${name}`));
  }

  /**
   * `outer` holds the types of the graph's inputs and of what it reads of the graphs around it. Undefined for a body that the runtime
   * cannot load with them: silero VAD's branch for 8 kHz takes no frames of 16 kHz. The main graph is never that; where a branch keeps
   * it from being loaded, its other branch may still say something.
   */
  async graph(graph: Graph, outer: ReadonlyMap<Value, ConcreteType>): Promise<Cost | undefined> {
    checkCancelled(this.#signal);
    if (++this.#probes > MAX_PROBES) return UNKNOWN;
    const probed = await probeTypes(graph, outer, this.#openSession);
    if (!probed && graph.owner) return undefined;
    const types = new Map([...outer, ...(probed ?? [])]);
    let total = NOTHING;
    for (const node of graph.nodes) if (!node.isConstant) total = sum(total, await this.#node(node, types));
    return total;
  }

  async #node(node: Node, types: ReadonlyMap<Value, ConcreteType>): Promise<Cost> {
    if (node.bodies().some((body) => [...body.walk()].some(({ nodes }) => nodes.some(hasMacs))))
      return this.#control(node, types);
    const bytes = bytesOf(node.outputs, types);
    if (this.#functions.has(`${node.domain} ${node.opType}`)) return UNKNOWN;
    const macs = hasMacs(node) ? macsOf(node, (value) => value.constant?.dims ?? types.get(value)?.shape) : 0;
    return { macs, bytes };
  }

  /** A node whose bodies multiply. The outputs of a branch are those of the If. */
  async #control(node: Node, types: ReadonlyMap<Value, ConcreteType>): Promise<Cost> {
    const costs: (Cost | undefined)[] = [];
    const rounds = node.opType === "If" ? 1 : tripCount(node);
    if (rounds === undefined) return UNKNOWN;
    for (const body of node.bodies()) {
      const inputs = node.opType === "If" ? [] : loopInputs(node, body, types);
      costs.push(await this.graph(body, new Map([...types, ...inputs])));
    }
    const possible = costs.filter((cost) => cost !== undefined);
    if (possible.length === 0) return UNKNOWN;
    const { macs, bytes } = possible.reduce((a, b) => ((a.macs ?? Infinity) >= (b.macs ?? Infinity) ? a : b));
    const times = (count: number | undefined) => (count === undefined ? undefined : count * rounds);
    const own = node.opType === "If" ? NOTHING : { macs: 0, bytes: bytesOf(node.outputs, types) };
    return sum(own, { macs: times(macs), bytes: times(bytes) });
  }
}

/** How often a Loop runs; undefined unless it is a constant. */
function tripCount(node: Node): number | undefined {
  const trips = node.opType === "Loop" ? node.inputs[0]?.constant : undefined;
  return trips && integersOf(trips)[0];
}

/** A Loop's body takes the round, the condition, and what is carried from round to round. */
function loopInputs(node: Node, body: Graph, types: ReadonlyMap<Value, ConcreteType>): [Value, ConcreteType][] {
  return body.inputs.flatMap((input, i): [Value, ConcreteType][] => {
    if (i < 2) return [[input, { dtype: i === 0 ? "int64" : "bool", shape: [] }]];
    const initial = node.inputs[i];
    const type = initial?.constant
      ? { dtype: initial.constant.dtype, shape: initial.constant.dims }
      : initial && types.get(initial);
    return type ? [[input, type]] : [];
  });
}

function bytesOf(values: readonly Value[], types: ReadonlyMap<Value, ConcreteType>): number | undefined {
  let bytes = 0;
  for (const value of values) {
    if (value.name === "") continue;
    const type = types.get(value);
    if (!type) return undefined;
    bytes += byteLengthOf(type.dtype, elementCount(type.shape));
  }
  return bytes;
}

function sum(a: Cost, b: Cost): Cost {
  const add = (x: number | undefined, y: number | undefined) =>
    x === undefined || y === undefined ? undefined : x + y;
  return { macs: add(a.macs, b.macs), bytes: add(a.bytes, b.bytes) };
}
