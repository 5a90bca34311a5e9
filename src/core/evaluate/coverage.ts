/** Whether every layer of a model is accounted for, and what to say when nothing was done. */
import type { JobMetrics, Warning } from "../facts.ts";
import type { DType } from "../onnx/dtype.ts";
import type { Model, Node } from "../onnx/ir.ts";
import { isFloat } from "../onnx/tensor.ts";
import { type Note, noteOn } from "../passes/pass.ts";
import { inferDTypes } from "../passes/value-dtypes.ts";
import { auditFusion, type FusionAudit, type FusionAuditOptions } from "../runtime/fusion-audit.ts";
import { weightDTypes } from "./layer-facts.ts";

/**
 * The notes of a method on `original`, as it was read, with what was missing: a layer whose weights are quantized already is said to be, whatever
 * the method made of it, and every other layer that no note is about gets one, by what `result` holds in its place.
 */
export function completeNotes(original: Model, result: Model, notes: readonly Note[]): Note[] {
  const layers = layersOf(original);
  const isQuantized = new Set(layers.filter(({ dtypes }) => isStoredInFewBits(dtypes)).map(({ node }) => node.label));
  const corrected = notes.map((note) =>
    note.outcome === "skipped" && note.code !== "excluded" && isQuantized.has(note.name)
      ? quantizedAlready(note)
      : note,
  );
  const mentioned = new Set(notes.filter(({ outcome }) => outcome !== "simplified").map(({ name }) => name));
  const silent = layers.filter(({ node }) => !mentioned.has(node.label));
  if (silent.length === 0) return corrected;
  const made = dtypesByOrigin(result);
  const added = silent.flatMap(({ node, dtypes }): Note[] => {
    const now = made.get(node.label);
    // It was computed from constants, and is one now.
    if (!now) return [];
    if (isStoredInFewBits(dtypes)) return [quantizedAlready(noteOn(node, "skipped", "already_quantized", ""))];
    if (dtypes.includes("float32") && now.includes("float16"))
      return [noteOn(node, "changed", "float16", "Weights and computation are float16.")];
    if (dtypes.includes("float16") && now.includes("float16"))
      return [noteOn(node, "skipped", "already_float16", "Its weights are float16 already, and stay as they are.")];
    const message = `This method leaves weights of ${node.opType} as they are.`;
    return [noteOn(node, "skipped", "unsupported_op", message)];
  });
  return [...corrected, ...added];
}

/**
 * What is to be said of a method that did nothing, or had nothing to do. `notes` are complete; they are about layers, and float16 also
 * converts models that have none.
 */
export function coverageWarnings(original: Model, result: Model, notes: readonly Note[]): Warning[] {
  const layers = layersOf(original);
  const already = layers.filter(({ dtypes }) => isStoredInFewBits(dtypes)).length;
  const warnings: Warning[] = [];
  if (already > 0) {
    const message = `${already} of its ${layers.length} layers are quantized already and stay as they are: start from the float model to change method or bits.`;
    warnings.push({ code: "already_quantized", message, value: already });
  }
  if (!notes.some(({ outcome }) => outcome === "changed") && halfValues(result) <= halfValues(original)) {
    const reasons = Map.groupBy(
      notes.filter(({ outcome }) => outcome === "skipped"),
      ({ code }) => code,
    );
    const counted = [...reasons].map(([code, { length }]) => `${length} ${code}`).join(", ");
    const why = counted === "" ? "it has nothing that this method handles" : `nodes that were left alone: ${counted}`;
    warnings.push({ code: "nothing_quantized", message: `Nothing was changed: ${why}.`, value: 0 });
  }
  return warnings;
}

/** How many values are float16. */
function halfValues(model: Model): number {
  return [...inferDTypes(model).values()].filter((dtype) => dtype === "float16").length;
}

interface Layer {
  readonly node: Node;
  /** Of its weights. */
  readonly dtypes: readonly DType[];
}

function layersOf(model: Model): Layer[] {
  return [...model.nodes()].flatMap((node): Layer[] => {
    const dtypes = weightDTypes(node);
    return dtypes.length > 0 ? [{ node, dtypes }] : [];
  });
}

function isStoredInFewBits(dtypes: readonly DType[]): boolean {
  return dtypes.every((dtype) => !isFloat(dtype));
}

function quantizedAlready(note: Note): Note {
  return { ...note, code: "already_quantized", message: "Its weights are quantized already, and stay as they are." };
}

/** dtypes of the weights that are found where each uploaded node was; nodes that hold none have none. */
function dtypesByOrigin(model: Model): ReadonlyMap<string, readonly DType[]> {
  const found = new Map<string, DType[]>();
  for (const node of model.nodes()) {
    const dtypes = weightDTypes(node);
    for (const label of node.origins) found.set(label, [...(found.get(label) ?? []), ...dtypes]);
  }
  return found;
}

/** What became of the nodes: by what the method says, and by what the runtime made of them. */
export function coverageOf(notes: readonly Note[], fusion: FusionAudit): JobMetrics["coverage"] {
  return {
    quantized_nodes: notes.filter(({ outcome }) => outcome === "changed").length,
    skipped_nodes: notes
      .filter(({ outcome }) => outcome === "skipped")
      .map(({ name, op, code, message }) => ({ name, op, code, message })),
    fused_nodes: fusion.fusedNodes,
    float_islands: fusion.floatIslands,
  };
}

/** The same, of a model that was not looked into yet. */
export async function auditedCoverage(
  notes: readonly Note[],
  options: FusionAuditOptions,
): Promise<JobMetrics["coverage"]> {
  return coverageOf(notes, await auditFusion(options));
}
