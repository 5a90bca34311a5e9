import { CoreError, checkCancelled } from "../errors.ts";
import type { ModelFacts, OutputFacts, ValueFacts } from "../facts.ts";
import type { DType } from "../onnx/dtype.ts";
import type { Model, Value } from "../onnx/ir.ts";
import { isFloat } from "../onnx/tensor.ts";
import { typeText } from "../onnx/type-text.ts";
import { meaningOf } from "../operators/output-meaning.ts";
import type { ModelSource, OpenSession } from "../runtime/session.ts";
import { checkTrainable } from "../train/trainable.ts";
import { costOf } from "./model-cost.ts";
import { weightsOf } from "./model-weights.ts";
import { findNonFiniteWeights } from "./weight-content.ts";

export interface InspectOptions {
  readonly openSession: OpenSession;
  /** The model as the runtime gets it: by path where it has external data. */
  readonly source: ModelSource;
  /** Sizes for symbolic dimensions, by name ("w"), or by `input.axis` ("x.3") for those without one. */
  readonly dims?: Readonly<Record<string, number>>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Loads `model` as onnxruntime would run it, and says what it is. Loading is the check: throws `invalid_model` with the node at fault
 * when the runtime cannot. Nothing is run. Sizes and counts come from the graph, shapes from the runtime's own inference (`costOf`).
 */
export async function inspectModel(model: Model, options: InspectOptions): Promise<ModelFacts> {
  const { openSession, source, dims = {}, signal } = options;
  checkCancelled(signal);
  const session = await openSession(source);
  const { inputs, outputs } = session;
  await session.close();
  checkCancelled(signal);
  return {
    ...structureOf(model),
    inputs: described(inputs, model.graph.inputs),
    outputs: withMeaning(described(outputs, model.graph.outputs), model.graph.outputs),
    ...weightTotals(model),
    ...(await costOf(model, inputs, { openSession, dims, signal })),
    trainable: trainabilityOf(model),
    non_finite_weights: findNonFiniteWeights(model),
  };
}

/** Says of what is no tensor what it is, which onnxruntime's binding does not tell. */
function described(facts: readonly ValueFacts[], declared: readonly Value[]): ValueFacts[] {
  return facts.map((fact) => {
    if (fact.dtype !== null) return fact;
    const type = typeText(declared.find(({ name }) => name === fact.name)?.source?.type);
    return type === undefined ? fact : { ...fact, type };
  });
}

function withMeaning(facts: readonly ValueFacts[], declared: readonly Value[]): OutputFacts[] {
  return facts.map((fact) => {
    const value = declared.find(({ name }) => name === fact.name);
    if (!value || fact.dtype === null || !isFloat(fact.dtype)) return fact;
    return { ...fact, meaning: meaningOf(value, facts.length === 1, fact.shape) };
  });
}

function trainabilityOf(model: Model): ModelFacts["trainable"] {
  try {
    checkTrainable(model);
    return { ok: true, subject: null, message: null };
  } catch (error) {
    if (!(error instanceof CoreError)) throw error;
    return { ok: false, subject: error.subject ?? null, message: error.message };
  }
}

type Structure = Pick<ModelFacts, "ir_version" | "opset_imports" | "producer" | "nodes" | "operators">;

/** What has made the file, with its version; "" when the file does not say. */
function producerOf({ origin, source }: Model): string {
  const { producerName = "", producerVersion = "" } = origin ?? source ?? {};
  return `${producerName} ${producerVersion}`.trim();
}

function structureOf(model: Model): Structure {
  const operators = new Map<string, number>();
  let nodes = 0;
  for (const node of model.nodes()) {
    // Constant nodes are a way to store weights.
    if (node.isConstant) continue;
    const name = node.domain === "" ? node.opType : `${node.domain}.${node.opType}`;
    operators.set(name, (operators.get(name) ?? 0) + 1);
    nodes++;
  }
  return {
    ir_version: model.irVersion,
    opset_imports: Object.fromEntries([...model.opsets].map(([domain, version]) => [domain || "ai.onnx", version])),
    producer: producerOf(model),
    nodes,
    operators: Object.fromEntries([...operators].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))),
  };
}

function weightTotals(model: Model): Pick<ModelFacts, "parameters" | "weight_bytes" | "weight_bytes_by_dtype"> {
  let parameters = 0;
  const bytes = new Map<DType, number>();
  for (const weight of weightsOf(model)) {
    const { dtype, byteLength } = weight.tensor;
    parameters += weight.parameters;
    bytes.set(dtype, (bytes.get(dtype) ?? 0) + byteLength);
  }
  return {
    parameters,
    weight_bytes: [...bytes.values()].reduce((total, count) => total + count, 0),
    weight_bytes_by_dtype: Object.fromEntries(bytes),
  };
}
