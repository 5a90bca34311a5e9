import { createHash } from "node:crypto";
import type { Graph, Model, Value } from "../onnx/ir.ts";
import type { Tensor } from "../onnx/tensor.ts";
import type { Pass } from "./pass.ts";

/** Smaller constants are not worth a second name in the reader's head, nor an edge across graphs. */
const MIN_BYTES = 256;

/**
 * Keeps constants that are byte for byte the same once: the copies of a tied embedding, or of what the branches of an If have in common.
 * The one that stays is an initializer of the innermost graph that all its readers can see. Constants with the same type and shape are
 * read, and read once more and whole where they look alike.
 */
export const mergeDuplicates: Pass = {
  name: "merge duplicate constants",
  once: true,
  run(model) {
    let changed = false;
    for (const group of duplicatesOf(model)) {
      const [first] = group as [Value, ...Value[]];
      const home = group.map(({ graph }) => graph).reduce(commonGraph);
      const kept =
        group.find((value) => value.graph === home && home.initializers.has(value)) ??
        home.addInitializer(first.name, first.constant!);
      for (const value of group) if (value !== kept) value.graph.replaceUses(value, kept);
      changed = true;
    }
    return changed;
  },
};

/** Groups of two or more constants with the same bytes, in order of first appearance. Strings and what callers can see are left out. */
function duplicatesOf(model: Model): Value[][] {
  const candidates = new Map<string, Value[]>();
  for (const value of constantsOf(model)) {
    const { dtype, dims, byteLength } = value.constant!;
    if (byteLength >= MIN_BYTES && value.useCount > 0) push(candidates, `${dtype}[${dims}]`, value);
  }
  const groups = new Map<string, Value[]>();
  for (const [type, values] of candidates) {
    if (values.length === 1) continue;
    // Weights of one shape differ nearly always, and show it in any few bytes: hashing them all would take longer than rounding them.
    const alike = new Map<string, Value[]>();
    for (const value of values) push(alike, sampleOf(value.constant!.bytes), value);
    for (const same of alike.values()) {
      if (same.length === 1) continue;
      const digests = new Map<Tensor, string>();
      for (const value of same) {
        const tensor = value.constant!;
        const digest = digests.get(tensor) ?? createHash("sha256").update(tensor.bytes).digest("hex");
        digests.set(tensor, digest);
        push(groups, `${type} ${digest}`, value);
      }
    }
  }
  return [...groups.values()].filter((group) => group.length > 1);
}

const SAMPLE_BYTES = 32;

/** Bytes from the beginning, the middle and the end. */
function sampleOf(bytes: Uint8Array): string {
  const starts = [0, bytes.length >>> 1, Math.max(0, bytes.length - SAMPLE_BYTES)];
  return starts.map((start) => bytes.subarray(start, start + SAMPLE_BYTES).join()).join(";");
}

function* constantsOf(model: Model): Generator<Value> {
  for (const graph of model.graphs()) {
    const fromNodes = graph.nodes.flatMap((node) => node.outputs);
    for (const value of [...graph.initializers, ...fromNodes]) {
      if (value.constant && !value.isGraphOutput && !graph.isOverridable(value)) yield value;
    }
  }
}

function push<K>(groups: Map<K, Value[]>, key: K, value: Value): void {
  const group = groups.get(key);
  if (group) group.push(value);
  else groups.set(key, [value]);
}

/** The innermost graph around both. */
function commonGraph(a: Graph, b: Graph): Graph {
  const around = new Set(chainOf(a));
  return chainOf(b).find((graph) => around.has(graph))!;
}

/** A graph and those around it, innermost first. */
function chainOf(graph: Graph): Graph[] {
  return graph.owner ? [graph, ...chainOf(graph.owner.graph)] : [graph];
}
