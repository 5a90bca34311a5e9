/**
 * A shallower student: of blocks that repeat, some are left out and the rest keep their weights (as DistilBERT keeps every other layer of
 * BERT; Sanh et al. 2019).
 *
 * A cut is a place where a single learned value is alive: everything behind it depends on the weights before it through that value alone.
 * Between two cuts lies a segment; segments with the same operators, attributes, weight shapes and wiring are repeats of each other, and a
 * period of segments that repeats is a block. A block's output has the shape of its input, so that it can be bypassed. Values that depend
 * on no weight (masks, shapes) may go around blocks.
 */
import { CoreError } from "../errors.ts";
import type { Attr, Graph, Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, isFloat } from "../onnx/tensor.ts";
import { removeDeadCode } from "../passes/dead-code.ts";
import { findParameters } from "../train/parameters.ts";

/** Blocks that repeat each other, and which of them a student keeps. */
export interface BlockRun {
  /** The values between blocks, one more than there are blocks. */
  readonly boundaries: readonly string[];
  readonly blocks: number;
  readonly kept: readonly number[];
}

/**
 * A copy of `model` with `fraction` of the blocks of every run: at least one, the first and the last where there are two or more, the rest
 * evenly spaced. Throws `unsupported` where no blocks repeat.
 */
export function dropLayers(
  model: Model,
  fraction: number,
): { readonly model: Model; readonly runs: readonly BlockRun[] } {
  const student = model.clone();
  const { graph } = student;
  const segments = findSegments(student);
  const runs = findRuns(segments);
  const report: BlockRun[] = [];
  for (const { start, period, blocks } of runs) {
    const kept = evenlySpaced(blocks, Math.max(1, Math.round(blocks * fraction)));
    const boundary = (block: number) => segments[start + block * period]?.from ?? segments.at(-1)!.to;
    report.push({ boundaries: Array.from({ length: blocks + 1 }, (_, i) => boundary(i).name), blocks, kept });
  }
  // From the end, so that a bypassed block's input is still the value it was found with.
  for (const [i, { start, period, blocks }] of [...runs.entries()].reverse()) {
    for (let block = blocks - 1; block >= 0; block--) {
      if (report[i]!.kept.includes(block)) continue;
      const { from } = segments[start + block * period]!;
      const { to } = segments[start + (block + 1) * period - 1]!;
      bypass(graph, to, from);
    }
  }
  if (runs.length === 0) {
    throw new CoreError("unsupported", "The model has no blocks that repeat, so that no layers can be left out.");
  }
  removeDeadCode.run(student, () => {});
  return { model: student, runs: report };
}

/** What read a block's output reads its input, parameters of the block aside. */
function bypass(graph: Graph, to: Value, from: Value): void {
  if (graph.canReplace(to, from)) graph.replaceUses(to, from);
  else throw new CoreError("unsupported", "A block between two outputs of the model cannot be left out.", to.name);
}

/** `count` of 0 … n−1, the first and the last among them. */
export function evenlySpaced(n: number, count: number): readonly number[] {
  if (count >= n) return Array.from({ length: n }, (_, i) => i);
  if (count === 1) return [0];
  return Array.from({ length: count }, (_, i) => Math.round((i * (n - 1)) / (count - 1)));
}

export interface Segment {
  readonly from: Value;
  readonly to: Value;
  /** Equal for segments that compute the same with other weights. */
  readonly signature: string;
  readonly parameters: number;
}

/** The segments between cuts, first to last. */
export function findSegments(model: Model): Segment[] {
  const { nodes } = model.graph;
  const parameters = new Set(findParameters(model).map(({ value }) => value));
  const learned = new Set<Value>(parameters);
  const lastUse = new Map<Value, number>();
  const learnedNodes: { node: Node; index: number }[] = [];
  nodes.forEach((node, index) => {
    for (const value of readsOf(node)) lastUse.set(value, index);
    if (!readsOf(node).some((value) => learned.has(value))) return;
    learnedNodes.push({ node, index });
    for (const value of node.outputs) learned.add(value);
  });
  for (const value of model.graph.outputs) lastUse.set(value, Number.POSITIVE_INFINITY);

  const segments: Segment[] = [];
  const alive = new Set<Value>();
  let from: Value | undefined;
  let part: Node[] = [];
  for (const { node, index } of learnedNodes) {
    part.push(node);
    for (const value of node.outputs) if ((lastUse.get(value) ?? -1) > index) alive.add(value);
    for (const value of alive) if (lastUse.get(value)! <= index) alive.delete(value);
    if (alive.size !== 1) continue;
    const [to] = alive as Set<Value> & Iterable<Value>;
    if (from && to && from !== to) segments.push(describe(part, from, to, learned, parameters));
    from = to;
    part = [];
  }
  return segments;
}

function readsOf(node: Node): readonly Value[] {
  const inner = node
    .bodies()
    .flatMap((body) => [...body.walk()].flatMap((graph) => graph.nodes.flatMap(({ inputs }) => inputs)));
  return [...node.inputs, ...inner].filter((value) => value !== undefined);
}

/** Writes a segment down with its weights replaced by their shapes and its values by their place in it. */
function describe(
  nodes: readonly Node[],
  from: Value,
  to: Value,
  learned: ReadonlySet<Value>,
  parameters: ReadonlySet<Value>,
): Segment {
  const places = new Map<Value, string>([[from, "in"]]);
  const own = new Set<Value>();
  const name = (value: Value | undefined): string => {
    if (!value) return "-";
    const place = places.get(value);
    if (place !== undefined) return place;
    let text: string;
    if (parameters.has(value)) {
      own.add(value);
      text = `weight ${value.constant!.dtype} ${value.constant!.dims}`;
    } else if (value.constant) text = constantText(value);
    else if (learned.has(value) || !value.producer) text = `outer ${value.name}`;
    else
      text = `${operatorText(value.producer)}(${value.producer.inputs.map(name)})${value.producer.outputs.indexOf(value)}`;
    places.set(value, text);
    return text;
  };
  const lines = nodes.map((node, i) => {
    const line = `${operatorText(node)}(${node.inputs.map(name)})`;
    for (const [k, value] of node.outputs.entries()) places.set(value, `${i}.${k}`);
    return line;
  });
  return { from, to, signature: `${lines.join(";")} -> ${places.get(to)}`, parameters: own.size };
}

/** Settings count with their values; vectors of floats that are not trained (running statistics, for instance) differ between repeats. */
function constantText(value: Value): string {
  const { dtype, dims, byteLength, bytes } = value.constant!;
  const isSetting = isFloat(dtype) ? elementCount(dims) === 1 : byteLength <= 256;
  return `constant ${dtype} ${dims} ${isSetting ? bytes : ""}`;
}

function operatorText(node: Node): string {
  const attrs = [...node.attrs].map(([key, attr]) => `${key}=${attrText(attr)}`).sort();
  return `${node.domain}.${node.opType}[${attrs}]`;
}

function attrText(attr: Attr): string {
  if (attr.type === "tensor")
    return `${attr.value.dtype} ${attr.value.dims} ${attr.value.byteLength <= 256 ? attr.value.bytes : ""}`;
  // Bodies are told apart by the names in them: a block that has one repeats no other.
  if (attr.type === "graph" || attr.type === "graphs")
    return `body of ${attr.type === "graph" ? attr.value.nodes.map(({ name, outputs }) => name || outputs[0]?.name) : ""}`;
  return JSON.stringify(attr.value);
}

interface Run {
  readonly start: number;
  /** Segments in a block. */
  readonly period: number;
  readonly blocks: number;
}

/** The longest repetitions from the front, of blocks that have weights. */
function findRuns(segments: readonly Segment[]): readonly Run[] {
  const runs: Run[] = [];
  for (let start = 0; start < segments.length; ) {
    const best = longestRun(segments, start);
    if (best) runs.push(best);
    start = best ? best.start + best.period * best.blocks : start + 1;
  }
  return runs;
}

function longestRun(segments: readonly Segment[], start: number): Run | undefined {
  let best: Run | undefined;
  for (let period = 1; start + 2 * period <= segments.length; period++) {
    const same = (block: number) =>
      segments
        .slice(start, start + period)
        .every(({ signature }, i) => segments[start + block * period + i]?.signature === signature);
    let blocks = 1;
    while (same(blocks)) blocks++;
    const weighty = segments.slice(start, start + period).some(({ parameters }) => parameters > 0);
    if (blocks > 1 && weighty && period * blocks > (best ? best.period * best.blocks : 0))
      best = { start, period, blocks };
  }
  return best;
}
