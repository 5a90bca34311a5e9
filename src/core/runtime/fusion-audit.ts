import { CoreError, checkCancelled } from "../errors.ts";
import type { NodeNote } from "../facts.ts";
import { DTYPES } from "../onnx/dtype.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import type { OpType } from "../operators/operators.ts";
import { int8Support, isQuantizedKernel, movesQuantized } from "../targets/onnxruntime-cpu.ts";
import type { OpenSession } from "./session.ts";

/** What onnxruntime makes of a quantized model. */
export interface FusionAudit {
  /** Nodes that compute on, or move, quantized data. */
  readonly fusedNodes: number;
  /** How many nodes of each operator the rewritten graph has. */
  readonly operators: Readonly<Record<string, number>>;
  /** Nodes that compute in float although their input, or their weights, are quantized. */
  readonly floatIslands: readonly NodeNote[];
}

export interface FusionAuditOptions {
  readonly modelPath: string;
  /** Bytes of all the model's files. */
  readonly modelBytes: number;
  /** Where the rewritten graph may be written, and `<path>.data` for its weights. The caller removes both. */
  readonly scratchPath: string;
  readonly openSession: OpenSession;
  /** Reads a model that `openSession` has written there. */
  readonly readModel: (path: string) => Model;
  /** What users call the nodes of the model, by node or value name (`labelsByName`). */
  readonly labels?: ReadonlyMap<string, string> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Lets onnxruntime rewrite the model as it does before running it, writes that graph out and reads it back. The level is `extended`: every
 * fusion of quantized operators happens there; what `all` adds is memory layouts (NCHWc, NHWC), in operators that no file may contain.
 */
export async function auditFusion(options: FusionAuditOptions): Promise<FusionAudit> {
  const { modelPath, modelBytes, scratchPath, openSession, readModel, signal } = options;
  checkCancelled(signal);
  const session = await openSession(
    { path: modelPath },
    {
      optimization: "extended",
      optimizedModelPath: scratchPath,
      ...(modelBytes > MAX_INLINE_BYTES && { optimizedModelData: `${scratchPath.replace(/^.*[/\\]/, "")}.data` }),
    },
  );
  await session.close();
  let graph: Model;
  try {
    graph = readModel(scratchPath);
  } catch (error) {
    // The graph is onnxruntime's; that it cannot be read says nothing about the model.
    if (!(error instanceof CoreError)) throw error;
    const message = `The graph that onnxruntime makes of the model cannot be read back. ${error.message}`;
    return { fusedNodes: 0, operators: {}, floatIslands: [{ name: "", op: "", code: "not_audited", message }] };
  }
  return auditGraph(graph, options.labels);
}

/** Larger models keep their weights outside the graph; folding constants may make it somewhat larger than the model was. */
const MAX_INLINE_BYTES = 2 ** 30;

const CONVERTERS: ReadonlySet<string> = new Set<OpType>([
  "QuantizeLinear",
  "DequantizeLinear",
  "DynamicQuantizeLinear",
]);

/** The audit of a graph that onnxruntime has written. */
function auditGraph(model: Model, labels: ReadonlyMap<string, string> = new Map()): FusionAudit {
  const labelOf = ({ name, outputs, label }: Node) =>
    labels.get(name) ?? outputs.map((value) => labels.get(value.name)).find((known) => known !== undefined) ?? label;
  const operators: Record<string, number> = {};
  const floatIslands: NodeNote[] = [];
  const codes = new Set<Value>();
  let fusedNodes = 0;
  for (const node of model.nodes()) {
    operators[node.opType] = (operators[node.opType] ?? 0) + 1;
    const movesCodes = movesQuantized(node) && holdsCodes(node.inputs[0], codes);
    if (isQuantizedKernel(node) || movesCodes) fusedNodes++;
    // Kernels that answer in float are told from those that answer in codes by what reads them, so only moved codes need following.
    if (movesCodes || node.opType === "QuantizeLinear") for (const output of node.outputs) codes.add(output);
    const why = CONVERTERS.has(node.opType) ? undefined : whyFloat(node);
    if (why) floatIslands.push({ name: labelOf(node), op: node.opType, ...why });
  }
  return {
    fusedNodes,
    operators: Object.fromEntries(Object.entries(operators).sort(([a], [b]) => (a < b ? -1 : 1))),
    floatIslands,
  };
}

/** Whether a value is made of integer codes: moved or fresh ones, a quantized table, or what a node reads that expects codes. */
function holdsCodes(value: Value | undefined, codes: ReadonlySet<Value>): boolean {
  if (!value) return false;
  if (value.constant) return DTYPES[value.constant.dtype].bits <= 8 && value.uses.some(leadsToDequantize);
  return codes.has(value) || (value.producer?.opType.startsWith("QLinear") ?? false);
}

/** Whether what this use makes is dequantized later: an 8-bit table that nothing scales back is a table of bytes. */
function leadsToDequantize({ node }: { readonly node: Node }): boolean {
  const next = node.outputs[0]?.uses ?? [];
  return movesQuantized(node) && next.some((use) => use.node.opType === "DequantizeLinear" || leadsToDequantize(use));
}

/** Whether a value is a quantized constant turned into floats, perhaps reshaped since. */
function isStoredWeight(value: Value | undefined): boolean {
  const producer = value?.producer;
  if (!producer) return false;
  return producer.opType === "DequantizeLinear" ? !!producer.inputs[0]?.constant : movesStoredWeight(producer);
}

/** Whether a node hands a stored weight on, instead of computing with it: a lookup by ids that a run brings does not. */
function movesStoredWeight(node: Node): boolean {
  const [data, ...others] = node.inputs;
  return (
    movesQuantized(node) && isStoredWeight(data) && others.every((value) => !value || value.constant !== undefined)
  );
}

function whyFloat(node: Node): Pick<NodeNote, "code" | "message"> | undefined {
  const dequantized = node.inputs.filter(
    (value) => value?.producer?.opType === "DequantizeLinear" || isStoredWeight(value),
  );
  if (dequantized.length === 0 || movesStoredWeight(node)) return undefined;
  if (dequantized.every(isStoredWeight)) {
    return {
      code: "dequantized_every_run",
      message:
        "The weights are stored quantized; onnxruntime has no kernel here that reads them so. It turns them into floats at every run and computes in float.",
    };
  }
  const support = int8Support(node);
  if (!support) {
    return { code: "no_integer_kernel", message: `onnxruntime has no integer kernel for ${node.opType} on the CPU.` };
  }
  if (support.runs === "moves") {
    const refused = support.refuse?.(node);
    if (refused) return { code: "no_integer_kernel", message: refused.message };
    return {
      code: "different_scales",
      message: "It only moves data, but scale or zero point differ before and after it, so it runs in float.",
    };
  }
  if (node.inputs.some((value) => value && !value.constant && !dequantized.includes(value))) {
    return { code: "float_input", message: "Another of its inputs is float, so it runs in float." };
  }
  const isQuantizedAgain = node.outputs.every(
    (value) =>
      !value.isGraphOutput && value.uses.length > 0 && value.uses.every((use) => use.node.opType === "QuantizeLinear"),
  );
  return isQuantizedAgain
    ? {
        code: "not_fused",
        message:
          "Types or parameters around it do not match any integer kernel (signed and unsigned mixed, a clip that the scale does not cover).",
      }
    : { code: "float_output", message: "Its output is not quantized again, so it runs in float." };
}
