/**
 * Brings a model's ai.onnx operators to a newer version, so that other code sees one signature for each operator: what older versions keep
 * in attributes are inputs, what they left to a default is written out. Models that are newer already stay as they are.
 */
import { CoreError } from "../errors.ts";
import { GraphBuilder, int, string } from "./graph-builder.ts";
import type { Model, Node, Value } from "./ir.ts";

/** Before version 7 broadcasting needed attributes, and some operators meant something else. */
const OLDEST_OPSET = 7;

interface Upgrade {
  /** The first version with the signature that `rewrite` gives. */
  readonly since: number;
  /** Changes the node, or answers the value that takes the place of its output. `g` emits before the node. */
  readonly rewrite: (node: Node, g: GraphBuilder) => Value | undefined;
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

/** Moves an attribute with one number to an input. */
function floatToInput(attribute: string, index: number): Upgrade["rewrite"] {
  return (node, g) => {
    const value = node.float(attribute);
    node.setAttr(attribute, undefined);
    if (value !== undefined) node.setInput(index, g.constant("float32", [], [value]));
    return undefined;
  };
}

function inTurn(...rewrites: readonly Upgrade["rewrite"][]): Upgrade["rewrite"] {
  return (node, g) => {
    for (const rewrite of rewrites) rewrite(node, g);
    return undefined;
  };
}

/** Before version 13 all axes from `axis` on were one: the same as Softmax over the last axis of a matrix. */
function coerceSoftmax(node: Node, g: GraphBuilder): Value | undefined {
  const axis = node.int("axis", 1);
  const x = node.inputs[0];
  if (axis === -1 || (x?.shape && axis === x.shape.length - 1)) {
    node.setAttr("axis", int(-1));
    return undefined;
  }
  const flat = g.op("Flatten", [x], { axis: int(axis) });
  return g.op("Reshape", [g.op(node.opType, [flat], { axis: int(-1) }), g.op("Shape", [x])]);
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

/** Version 18 has one scale and one bias for each group: they are repeated for its channels. */
function spreadGroups(node: Node, g: GraphBuilder): undefined {
  const channels = node.inputs[0]?.shape?.[1];
  const groups = node.int("num_groups")!;
  if (typeof channels !== "number") {
    throw new CoreError("unsupported", "The number of channels is not known before the model runs.", node.label);
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
  Dropout: [{ since: 12, rewrite: floatToInput("ratio", 1) }],
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
    {
      since: 9,
      rewrite: (node) => {
        node.setAttr("spatial", undefined);
        return undefined;
      },
    },
  ],
  GroupNormalization: [{ since: 21, rewrite: spreadGroups }],
};

/** The first IR version whose models may use an operator set. */
function irVersionFor(opset: number): number {
  return opset >= 21 ? 10 : opset >= 19 ? 9 : opset >= 15 ? 8 : opset >= 12 ? 7 : 3;
}

/** Rewrites `model` in place to ai.onnx `version`. Throws `unsupported` for models older than version 7. */
export function upgradeOpset(model: Model, version: number): void {
  const present = model.opset;
  if (present < OLDEST_OPSET) {
    throw new CoreError(
      "unsupported",
      `The model uses operator set ${present}, in which operators mean other things; ${OLDEST_OPSET} is the oldest that can be rewritten.`,
    );
  }
  if (present >= version) return;
  for (const graph of model.graphs()) {
    const g = new GraphBuilder(graph);
    for (const node of [...graph.nodes]) {
      if (node.domain !== "") continue;
      for (const { since, rewrite } of UPGRADES[node.opType] ?? []) {
        if (present >= since || since > version) continue;
        const substitute = g.before(node, () => g.within(node.ownLabel, () => rewrite(node, g)), node);
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
