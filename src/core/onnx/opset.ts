/**
 * Brings a model's ai.onnx operators to a newer version, so that other code sees one signature for each operator: what older versions keep
 * in attributes are inputs, what they left to a default is written out. Models that are newer already stay as they are.
 */
import { CoreError } from "../errors.ts";
import type { OpType } from "../operators/operators.ts";
import { GraphBuilder, int, string } from "./graph-builder.ts";
import type { Model, Node, Value } from "./ir.ts";
import { hasArray } from "./tensor.ts";

interface Upgrade {
  /** The first version with the signature that `rewrite` gives. */
  readonly since: number;
  /**
   * Changes the node, or answers the value that takes the place of its first output; the others must be unused then. `g` emits before the node,
   * in version `version`.
   */
  readonly rewrite: (node: Node, g: GraphBuilder, version: number) => Value | undefined;
}

/** What was an operator once, or meant something else: nodes of these from before `since` are refused. */
const REFUSED: Readonly<Record<string, { readonly since: number }>> = {
  // Broadcasting needed attributes, and aligned axes in another way.
  ...refusedSince(
    7,
    "Add",
    "And",
    "Div",
    "Equal",
    "Gemm",
    "Greater",
    "Less",
    "Mul",
    "Or",
    "Pow",
    "PRelu",
    "Sub",
    "Xor",
  ),
  // Whether it trains was said by attributes.
  ...refusedSince(7, "BatchNormalization", "Dropout"),
  // Sequences were given out by another rule, and scaled by other attributes.
  ...refusedSince(7, "GRU", "LSTM", "RNN", "Upsample"),
  ...refusedSince(5, "Reshape"),
  ...refusedSince(6, "Cast", "Tile"),
  ...refusedSince(4, "Concat"),
  ...refusedSince(2, "Pad", "Split", "LpPool", "GlobalLpPool"),
  // Sequences of different lengths, in batches.
  ...refusedSince(9, "Scan", "MeanVarianceNormalization"),
  // Never standardized.
  ...refusedSince(10, "Affine", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "ScaledTanh"),
} satisfies Partial<Record<OpType, { readonly since: number }>>;

function refusedSince(since: number, ...operators: readonly string[]) {
  return Object.fromEntries(operators.map((opType) => [opType, { since }]));
}

/** Moves an attribute with integers to an input. */
function integersToInput(attribute: string, index: number): Upgrade["rewrite"] {
  return (node, g) => {
    const values = node.ints(attribute);
    node.setAttr(attribute, undefined);
    if (values) node.setInput(index, g.shape(values));
    return undefined;
  };
}

/** Moves an attribute with one number to an input of the type of the first. */
function floatToInput(attribute: string, index: number): Upgrade["rewrite"] {
  return (node, g) => {
    const value = node.float(attribute);
    const dtype = node.inputs[0]?.dtype ?? "float32";
    node.setAttr(attribute, undefined);
    if (value === undefined) return undefined;
    if (!hasArray(dtype)) throw unsupported(node, `It computes in ${dtype}`);
    node.setInput(index, g.constant(dtype, [], [value]));
    return undefined;
  };
}

function inTurn(...rewrites: readonly Upgrade["rewrite"][]): Upgrade["rewrite"] {
  return (node, g, version) => {
    for (const rewrite of rewrites) rewrite(node, g, version);
    return undefined;
  };
}

/** Before version 13 all axes from `axis` on were one: the same as Softmax over the last axis of a matrix. */
function coerceSoftmax(node: Node, g: GraphBuilder, version: number): Value | undefined {
  const axis = node.int("axis", 1);
  const x = node.inputs[0];
  if (axis === -1 || (x?.shape && axis === x.shape.length - 1)) {
    node.setAttr("axis", int(-1));
    return undefined;
  }
  const flat = g.op("Flatten", [x], { axis: int(axis) });
  // Sizes of 0 are sizes, not those that stay as they are.
  const attrs = version >= 14 ? { allowzero: int(1) } : undefined;
  return g.op("Reshape", [g.op(node.opType, [flat], { axis: int(-1) }), g.op("Shape", [x])], attrs);
}

/** Upsample, and Resize of version 10, map coordinates without a shift and round down. */
function plainResize(node: Node, g: GraphBuilder): Value {
  const attr = node.attrs.get("scales");
  const inAttribute = attr?.type === "floats" ? attr.value : [];
  const scales = node.inputs[1] ?? g.constant("float32", [inAttribute.length], inAttribute);
  const mode = node.string("mode", "nearest");
  return g.op("Resize", [node.inputs[0], undefined, scales], {
    mode: string(mode === "bilinear" ? "linear" : mode),
    coordinate_transformation_mode: string("asymmetric"),
    nearest_mode: string("floor"),
  });
}

/** Older versions could normalize each position by itself. */
function dropSpatial(node: Node): undefined {
  if (node.int("spatial", 1) === 0) throw unsupported(node, "It normalizes each position by itself");
  node.setAttr("spatial", undefined);
}

/** Four statistics of training could be given out, which inference leaves empty. */
function dropStatistics(node: Node, g: GraphBuilder): Value | undefined {
  if (node.outputs.length === 1) return undefined;
  if (node.outputs.slice(1).some(isRead)) throw unsupported(node, "Its statistics are read");
  return g.op("BatchNormalization", node.inputs, Object.fromEntries(node.attrs));
}

function isRead(value: Value): boolean {
  return value.uses.length > 0 || value.isGraphOutput;
}

/** Attributes with a value, where it is absent: the default was another one. */
function keepDefault(name: string, value: string): Upgrade["rewrite"] {
  return (node) => {
    node.setAttr(name, string(node.string(name, value)));
    return undefined;
  };
}

const GRID_MODES: Readonly<Record<string, string>> = { bilinear: "linear", bicubic: "cubic" };

function unsupported(node: Node, why: string): CoreError {
  return new CoreError(
    "unsupported",
    `The ${node.opType} "${node.label}" cannot be rewritten from operator set ${node.graph.model.opset} to a newer one. ${why}.`,
    node.label,
  );
}

/** Version 18 has one scale and one bias for each group: they are repeated for its channels. */
function spreadGroups(node: Node, g: GraphBuilder): undefined {
  const channels = node.inputs[0]?.shape?.[1];
  const groups = node.int("num_groups")!;
  if (typeof channels !== "number") {
    throw unsupported(node, "The number of channels is not known before the model runs");
  }
  for (const index of [1, 2]) {
    const repeated = g.expand(g.unsqueeze(node.inputs[index]!, [1]), [groups, channels / groups]);
    node.setInput(index, g.reshape(repeated, [-1]));
  }
}

const axesToInput: Upgrade = { since: 18, rewrite: integersToInput("axes", 1) };

const UPGRADES: Readonly<Record<string, readonly Upgrade[]>> = {
  ReduceSum: [{ since: 13, rewrite: integersToInput("axes", 1) }],
  ReduceMean: [axesToInput],
  ReduceMax: [axesToInput],
  ReduceMin: [axesToInput],
  ReduceProd: [axesToInput],
  ReduceL1: [axesToInput],
  ReduceL2: [axesToInput],
  ReduceLogSum: [axesToInput],
  ReduceLogSumExp: [axesToInput],
  ReduceSumSquare: [axesToInput],
  Squeeze: [{ since: 13, rewrite: integersToInput("axes", 1) }],
  Unsqueeze: [{ since: 13, rewrite: integersToInput("axes", 1) }],
  Split: [
    { since: 13, rewrite: integersToInput("split", 1) },
    {
      since: 18,
      rewrite: (node) => {
        if (!node.inputs[1]) node.setAttr("num_outputs", int(node.outputs.length));
        return undefined;
      },
    },
  ],
  Softmax: [{ since: 13, rewrite: coerceSoftmax }],
  LogSoftmax: [{ since: 13, rewrite: coerceSoftmax }],
  Hardmax: [{ since: 13, rewrite: coerceSoftmax }],
  Scatter: [
    { since: 11, rewrite: (node, g) => g.op("ScatterElements", node.inputs, { axis: int(node.int("axis", 0)) }) },
  ],
  Pad: [{ since: 11, rewrite: inTurn(integersToInput("pads", 1), floatToInput("value", 2)) }],
  Clip: [{ since: 11, rewrite: inTurn(floatToInput("min", 1), floatToInput("max", 2)) }],
  Slice: [
    {
      since: 10,
      rewrite: inTurn(integersToInput("starts", 1), integersToInput("ends", 2), integersToInput("axes", 3)),
    },
  ],
  Dropout: [
    {
      since: 10,
      rewrite: (node) => {
        // It was of the type of the values, and is bool.
        if (node.outputs[1] && isRead(node.outputs[1])) throw unsupported(node, "Its mask is read");
        return undefined;
      },
    },
    {
      since: 12,
      rewrite: (node, g) => {
        const ratio = node.float("ratio");
        node.setAttr("ratio", undefined);
        if (ratio !== undefined) node.setInput(1, g.constant("float32", [], [ratio]));
        return undefined;
      },
    },
  ],
  DFT: [
    {
      since: 20,
      rewrite: (node, g) => {
        node.setInput(2, g.constant("int64", [], [node.int("axis", 1)]));
        node.setAttr("axis", undefined);
        return undefined;
      },
    },
  ],
  GridSample: [
    {
      since: 20,
      rewrite: (node) => {
        const mode = node.string("mode", "bilinear");
        node.setAttr("mode", string(GRID_MODES[mode] ?? mode));
        return undefined;
      },
    },
  ],
  RoiAlign: [{ since: 16, rewrite: keepDefault("coordinate_transformation_mode", "output_half_pixel") }],
  Upsample: [{ since: 10, rewrite: plainResize }],
  Resize: [{ since: 11, rewrite: plainResize }],
  TopK: [
    {
      since: 10,
      rewrite: (node, g) => {
        node.setInput(1, g.shape([node.int("k", 1)]));
        node.setAttr("k", undefined);
        return undefined;
      },
    },
  ],
  BatchNormalization: [
    { since: 9, rewrite: dropSpatial },
    { since: 14, rewrite: dropStatistics },
  ],
  GroupNormalization: [{ since: 21, rewrite: spreadGroups }],
} satisfies Partial<Record<OpType, readonly Upgrade[]>>;

/** The operators that are rewritten. */
export const UPGRADED_OPERATORS: ReadonlySet<string> = new Set(Object.keys(UPGRADES));

/** The first IR version whose models may use an operator set. */
function irVersionFor(opset: number): number {
  return opset >= 21 ? 10 : opset >= 19 ? 9 : opset >= 15 ? 8 : opset >= 12 ? 7 : 3;
}

/**
 * Rewrites `model` in place to ai.onnx `version`. Throws `unsupported`, with the node at fault, where an operator of the old version has no
 * equal in the new one.
 */
export function upgradeOpset(model: Model, version: number): void {
  const present = model.opset;
  if (present >= version) return;
  for (const graph of model.graphs()) {
    const g = new GraphBuilder(graph);
    for (const node of [...graph.nodes]) {
      if (node.domain !== "") continue;
      const refused = REFUSED[node.opType];
      if (refused && present < refused.since && version >= refused.since) {
        throw unsupported(node, "The operator means something else there");
      }
      for (const { since, rewrite } of UPGRADES[node.opType] ?? []) {
        if (present >= since || since > version) continue;
        const substitute = g.before(node, () => g.within(node.ownLabel, () => rewrite(node, g, version)), node);
        if (!substitute) continue;
        substitute.retype(node.outputs[0]!.dtype, node.outputs[0]!.shape);
        graph.replaceUses(node.outputs[0]!, substitute);
        graph.remove(node);
      }
    }
  }
  model.requireOpset("", version);
  model.irVersion = Math.max(model.irVersion, irVersionFor(version));
}
