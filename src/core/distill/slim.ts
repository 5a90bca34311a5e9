/**
 * A narrower student: channels, hidden units and attention heads are cut through everything that is tied to them (`channel-labels.ts`).
 *
 * Units whose members lie on the same axes of the same weights are alternatives to each other: the output channels of a convolution, the
 * heads of an attention layer, the features of a residual stream. Of each such family the units with the largest weights are kept: a unit's
 * score is the mean over its weights of the squared norm of its slice, relative to the family's mean (Fang et al. 2023, group norm).
 */
import { CoreError } from "../errors.ts";
import { byteLengthOf } from "../onnx/dtype.ts";
import type { Model, Node, Value } from "../onnx/ir.ts";
import { elementCount, floatsOf, integersOf, isFloat, type Tensor, tensor, tensorOf } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import type { OpenSession } from "../runtime/session.ts";
import { runAllValues } from "../train/statics.ts";
import { ChannelLabels, relateChannels, splitAxis } from "./channel-labels.ts";

/** Units that were alternatives to each other, and how many of them were kept. */
export interface ChannelFamily {
  /** The weight whose slices they are. */
  readonly weight: string;
  readonly units: number;
  readonly kept: number;
}

export interface SlimOptions {
  /** Share of the units of each family that is kept. */
  readonly fraction: number;
  /** One small batch, to see shapes by. */
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly openSession: OpenSession;
  /** Only the structure is wanted: weights get their sizes, and mean nothing. */
  readonly structureOnly?: boolean | undefined;
}

/** Kept counts of large families are rounded up to a multiple of this, which kernels work best with. */
const ROUNDING = 8;
const MIN_ROUNDED = 32;

interface Member {
  readonly value: Value;
  readonly axis: number;
  readonly index: number;
}

interface Family {
  readonly units: readonly { readonly unit: number; readonly members: readonly Member[] }[];
}

/** A narrower copy of `model`. Throws `unsupported` where nothing can be cut. */
export async function slimWidth(
  model: Model,
  { fraction, feeds, openSession, structureOnly = false }: SlimOptions,
): Promise<{ readonly model: Model; readonly families: readonly ChannelFamily[] }> {
  const student = model.clone();
  const { graph } = student;
  const results = await runAllValues(student, feeds, openSession);
  const dimsOf = (value: Value): readonly number[] => {
    const dims = value.constant?.dims ?? results[value.name]?.dims ?? feeds[value.name]?.dims;
    if (!dims) throw new CoreError("unsupported", `The shape of "${value.name}" is not known.`, value.name);
    return dims;
  };
  const labels = new ChannelLabels(dimsOf);
  relateChannels(labels, graph.nodes, [...graph.inputs.filter((value) => !value.constant), ...graph.outputs]);

  const dropped = new Set<number>();
  const normsOf = sliceNorms();
  const families = familiesOf(labels).map((family): ChannelFamily => {
    const { units } = family;
    const kept = keptCount(units.length, fraction);
    const order = rankUnits(family, normsOf);
    for (const unit of order.slice(kept)) dropped.add(unit);
    const first = units[0]!.members.find(({ value }) => value.constant!.dims.length > 1) ?? units[0]!.members[0]!;
    return { weight: first.value.name, units: units.length, kept };
  });
  if (dropped.size === 0) throw new CoreError("unsupported", "The model has no channels that can be cut.");
  const cut = (value: Value, axis: number) => {
    const size = dimsOf(value)[axis]!;
    return Array.from({ length: size }, (_, i) => i).filter((i) => {
      const unit = labels.unit(value, axis, i);
      return unit === undefined || !dropped.has(unit);
    });
  };
  for (const node of graph.nodes) correctSizes(node, cut, dimsOf);
  for (const value of [...labels.values])
    if (value.constant && isFloat(value.constant.dtype)) sliceConstant(value, cut, structureOnly);
  const outer = new Set<Value>([...graph.inputs, ...graph.outputs]);
  for (const node of graph.nodes)
    for (const value of node.outputs) if (!outer.has(value)) value.retype(value.dtype, undefined);
  await checkRuns(student, feeds, openSession);
  return { model: student, families };
}

function keptCount(units: number, fraction: number): number {
  const wanted = Math.max(1, Math.round(units * fraction));
  return units < MIN_ROUNDED ? wanted : Math.min(units, Math.ceil(wanted / ROUNDING) * ROUNDING);
}

/**
 * Units by the axes of constants that their members lie on. Only floats are weights. A unit that lies on one axis alone has no other end:
 * nothing is known to make or to read it.
 */
function familiesOf(labels: ChannelLabels): Family[] {
  const units = new Map<number, Member[]>();
  for (const value of labels.values) {
    if (!value.constant || !isFloat(value.constant.dtype)) continue;
    value.constant.dims.forEach((size, axis) => {
      for (let index = 0; index < size; index++) {
        const unit = labels.unit(value, axis, index);
        if (unit === undefined) continue;
        const members = units.get(unit) ?? [];
        members.push({ value, axis, index });
        units.set(unit, members);
      }
    });
  }
  const families = new Map<string, { unit: number; members: Member[] }[]>();
  for (const [unit, members] of units) {
    const axes = new Set(members.map(({ value, axis }) => `${value.name}#${axis}`));
    if (axes.size < 2) continue;
    const key = [...axes].sort().join(" ");
    const family = families.get(key) ?? [];
    family.push({ unit, members });
    families.set(key, family);
  }
  // A family of one is a whole axis in one piece.
  return [...families.values()].filter((family) => family.length > 1).map((family) => ({ units: family }));
}

/** Units of a family, the most important first. */
function rankUnits({ units }: Family, normsOf: (value: Value, axis: number) => Float64Array): readonly number[] {
  const scores = new Map<number, number>(units.map(({ unit }) => [unit, 0]));
  const keys = new Map<string, Map<number, number>>();
  for (const { unit, members } of units) {
    for (const { value, axis, index } of members) {
      if (value.constant!.dims.length < 2) continue;
      const key = `${value.name}#${axis}`;
      const norms = keys.get(key) ?? new Map<number, number>();
      norms.set(unit, (norms.get(unit) ?? 0) + normsOf(value, axis)[index]!);
      keys.set(key, norms);
    }
  }
  for (const norms of keys.values()) {
    const total = [...norms.values()].reduce((sum, norm) => sum + norm, 0);
    for (const [unit, norm] of norms) scores.set(unit, scores.get(unit)! + (total > 0 ? norm / total : 0));
  }
  // Equal scores keep their order, so that the result does not depend on anything else.
  return [...scores].sort((a, b) => b[1] - a[1]).map(([unit]) => unit);
}

/** The squared norm of each slice along an axis of a weight, read once for all of them. */
function sliceNorms(): (value: Value, axis: number) => Float64Array {
  const known = new Map<Value, Map<number, Float64Array>>();
  return (value, axis) => {
    const ofValue = known.get(value) ?? new Map<number, Float64Array>();
    known.set(value, ofValue);
    const norms = ofValue.get(axis) ?? squaredNorms(value.constant!, axis);
    ofValue.set(axis, norms);
    return norms;
  };
}

function squaredNorms(constant: Tensor, axis: number): Float64Array {
  const data = floatsOf(constant);
  const inner = elementCount(constant.dims.slice(axis + 1));
  const size = constant.dims[axis]!;
  const norms = new Float64Array(size);
  for (let start = 0, index = 0; start < data.length; start += inner) {
    let sum = norms[index]!;
    for (let i = start; i < start + inner; i++) sum += data[i]! ** 2;
    norms[index] = sum;
    index = index + 1 === size ? 0 : index + 1;
  }
  return norms;
}

/** Numbers of channels that a node has written into it: the groups of a depthwise convolution, the target of a Reshape, the sizes of a Split. */
function correctSizes(
  node: Node,
  cut: (value: Value, axis: number) => readonly number[],
  dimsOf: (value: Value) => readonly number[],
): void {
  if (operatorOf(node)?.channels === "convolution" && node.int("group", 1) > 1) {
    const w = node.inputs[1]!;
    if (node.int("group", 1) === dimsOf(w)[0]) node.setAttr("group", { type: "int", value: cut(w, 0).length });
  }
  if (operatorOf(node)?.channels === "split") correctSplit(node, cut, dimsOf);
  const target = node.opType === "Reshape" ? node.inputs[1]?.constant : undefined;
  if (!target) return;
  const y = node.outputs[0]!;
  const sizes = integersOf(target);
  const corrected = sizes.map((size, axis) => (size > 0 ? Math.min(size, cut(y, axis).length) : size));
  if (corrected.every((size, axis) => size === sizes[axis])) return;
  node.setInput(1, node.graph.addInitializer(`${node.label}_shape`, tensorOf("int64", [sizes.length], corrected)));
}

/** Parts that were equal need not be any more, and are named then: by an attribute before version 13 of ai.onnx, by an input since. */
function correctSplit(
  node: Node,
  cut: (value: Value, axis: number) => readonly number[],
  dimsOf: (value: Value) => readonly number[],
): void {
  const axis = splitAxis(node, dimsOf(node.inputs[0]!).length);
  const sizes = node.outputs.map((y) => cut(y, axis).length);
  if (sizes.every((size, i) => size === dimsOf(node.outputs[i]!)[axis])) return;
  const { graph } = node;
  if (graph.model.opset < 13) {
    node.setAttr("split", { type: "ints", value: sizes });
    return;
  }
  node.setInput(1, graph.addInitializer(`${node.label}_sizes`, tensorOf("int64", [sizes.length], sizes)));
  node.setAttr("num_outputs", undefined);
}

/** Replaces a constant by what is left of it, or by zeros of that shape. */
function sliceConstant(
  value: Value,
  cut: (value: Value, axis: number) => readonly number[],
  structureOnly: boolean,
): void {
  const constant = value.constant!;
  const kept = constant.dims.map((_, axis) => cut(value, axis));
  if (kept.every((indices, axis) => indices.length === constant.dims[axis])) return;
  const dims = kept.map(({ length }) => length);
  const bytes = structureOnly
    ? new Uint8Array(byteLengthOf(constant.dtype, elementCount(dims)))
    : slicedBytes(constant, kept);
  const { graph, name, producer } = value;
  const slim = graph.addInitializer(name, tensor(constant.dtype, dims, bytes));
  graph.replaceUses(value, slim);
  if (producer) graph.remove(producer);
  else graph.removeInitializer(value);
  slim.name = name;
}

/** The elements of a tensor at the kept indices of each axis. */
function slicedBytes(constant: Tensor, kept: readonly (readonly number[])[]): Uint8Array {
  let { dims, bytes }: { dims: readonly number[]; bytes: Uint8Array } = constant;
  for (const [axis, indices] of kept.entries()) {
    if (indices.length === dims[axis]) continue;
    const inner = byteLengthOf(constant.dtype, elementCount(dims.slice(axis + 1)));
    const outer = elementCount(dims.slice(0, axis));
    const next = new Uint8Array(outer * indices.length * inner);
    for (let o = 0; o < outer; o++) {
      for (const [i, index] of indices.entries()) {
        const from = (o * dims[axis]! + index) * inner;
        next.set(bytes.subarray(from, from + inner), (o * indices.length + i) * inner);
      }
    }
    dims = dims.map((dim, a) => (a === axis ? indices.length : dim));
    bytes = next;
  }
  return bytes;
}

/** Cut networks that do not fit together any more would be a fault of the table; this says so before anyone trains one. */
async function checkRuns(
  model: Model,
  feeds: Readonly<Record<string, Tensor>>,
  openSession: OpenSession,
): Promise<void> {
  try {
    await runAllValues(model, feeds, openSession);
  } catch (error) {
    throw new CoreError(
      "unsupported",
      `The channels of this model cannot be cut: ${(error as Error).message}`,
      undefined,
      {
        cause: error,
      },
    );
  }
}
