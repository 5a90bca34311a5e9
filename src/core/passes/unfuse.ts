/**
 * Operators of com.microsoft that hold weights, written as operators whose weights can be quantized:
 *
 * | operator                  | becomes                                                                       |
 * |---------------------------|-------------------------------------------------------------------------------|
 * | Attention                 | MatMul and Add for queries, keys and values, Split, and MultiHeadAttention     |
 * | EmbedLayerNormalization   | a Gather for each table, Add, LayerNormalization (from operator set 17 on)     |
 * | FusedMatMul               | MatMul, with the weight transposed and the product scaled where it says so    |
 *
 * Only for methods that quantize weights: the fused operators are as fast, or a little faster, in float.
 */
import { float, GraphBuilder, int } from "../onnx/graph-builder.ts";
import type { Node, Value } from "../onnx/ir.ts";
import type { ContribOpType } from "../operators/operators.ts";
import type { Pass } from "./pass.ts";

const DOMAIN = "com.microsoft";

/** The first version with LayerNormalization. */
const NORMALIZATION_OPSET = 17;

/** The values that take the place of the outputs, by index; undefined where the node cannot be written so. */
type Unfuse = (node: Node, g: GraphBuilder) => readonly (Value | undefined)[] | undefined;

export const unfuse: Pass = {
  name: "unfuse operators that hold weights",
  run(model) {
    let changed = false;
    for (const graph of model.graphs()) {
      const g = new GraphBuilder(graph);
      for (const node of [...graph.nodes]) {
        const rewrite = node.domain === DOMAIN ? UNFUSE[node.opType] : undefined;
        if (!rewrite) continue;
        const values = g.before(node, () => g.within(node.ownLabel, () => rewrite(node, g)), node);
        if (!values) continue;
        node.outputs.forEach((output, i) => {
          const value = values[i];
          if (!value) return;
          value.retype(output.dtype ?? value.dtype, output.shape);
          graph.replaceUses(output, value);
        });
        graph.remove(node);
        changed = true;
      }
    }
    return changed;
  },
};

const UNFUSE: Readonly<Record<string, Unfuse>> = {
  Attention(node, g) {
    const [x, weight, bias, mask, past, attentionBias, ...others] = node.inputs;
    const heads = node.int("num_heads");
    const columns = weight?.constant?.dims[1];
    if (!x || !weight || !columns || !heads || past || others.some(Boolean)) return undefined;
    if (node.int("do_rotary", 0) !== 0 || node.outputs.slice(1).some(isRead)) return undefined;
    const maskRank = mask && rankOfMask(mask);
    if (mask && (maskRank === undefined || maskRank > 3)) return undefined;
    const sizes = node.ints("qkv_hidden_sizes") ?? [columns / 3, columns / 3, columns / 3];
    const product = g.matMul(x, weight);
    const projected = bias ? g.add(product, bias) : product;
    const [q, k, v] = splitLast(g, projected, sizes);
    const attrs = Object.fromEntries(
      ["num_heads", "mask_filter_value", "scale", "unidirectional"].flatMap((name) => {
        const attr = node.attrs.get(name);
        return attr ? [[name, attr]] : [];
      }),
    );
    const inputs = [q, k, v, undefined, mask, attentionBias];
    while (inputs.at(-1) === undefined) inputs.pop();
    return [g.op("MultiHeadAttention", inputs, attrs, DOMAIN)];
  },

  EmbedLayerNormalization(node, g) {
    const [ids, segments, words, positions, segmentTable, gamma, beta, mask, positionIds] = node.inputs;
    const [, maskIndex, sumOutput] = node.outputs;
    if (node.graph.model.opset < NORMALIZATION_OPSET || !ids || !words?.constant || !positions || !gamma) {
      return undefined;
    }
    if (maskIndex && isRead(maskIndex) && !mask) return undefined;
    const rows = (table: Value, at: Value) => g.op("Gather", [table, at], { axis: int(0) });
    // Sentences are as long as the second axis of the ids says; each starts at position 0.
    const places = () => {
      const length = g.op("Gather", [g.op("Shape", [ids]), g.constant("int64", [], [1])], { axis: int(0) });
      return g.op("Range", [g.constant("int64", [], [0]), length, g.constant("int64", [], [1])]);
    };
    let sum = g.add(rows(words, ids), rows(positions, positionIds ?? places()));
    if (segments && segmentTable) sum = g.add(sum, rows(segmentTable, segments));
    const epsilon = float(node.float("epsilon", 1e-12));
    const normalized = g.op("LayerNormalization", [sum, gamma, beta], { axis: int(-1), epsilon });
    const counted = maskIndex && isRead(maskIndex) ? g.sum(mask!, [1], false) : undefined;
    return [normalized, counted, sumOutput && isRead(sumOutput) ? sum : undefined];
  },

  FusedMatMul(node, g) {
    const [a, b] = node.inputs;
    const isPlain = ["transA", "transBatchA", "transBatchB"].every((name) => node.int(name, 0) === 0);
    if (!a || b?.constant?.dims.length !== 2 || !isPlain) return undefined;
    const product = g.matMul(a, node.int("transB", 0) !== 0 ? g.transpose(b, [1, 0]) : b);
    const alpha = node.float("alpha", 1);
    return [alpha === 1 ? product : g.mul(product, alpha)];
  },
} satisfies Partial<Record<ContribOpType, Unfuse>>;

function isRead(value: Value): boolean {
  return value.uses.length > 0 || value.isGraphOutput;
}

/** Of one axis: lengths of the sequences. Two: which positions count. Three: which position sees which. */
function rankOfMask(mask: Value): number | undefined {
  const isLengths = mask.producer?.opType === "EmbedLayerNormalization" || mask.producer?.opType === "ReduceSum";
  return isLengths ? 1 : mask.shape?.length;
}

/** Parts along the last axis. Before version 13 the sizes were an attribute. */
function splitLast(g: GraphBuilder, x: Value, sizes: readonly number[]): readonly Value[] {
  if (g.graph.model.opset >= 13) return g.split(x, -1, sizes);
  return g.ops("Split", [x], sizes.length, { axis: int(-1), split: { type: "ints", value: sizes } });
}
