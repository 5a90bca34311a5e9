import type { GraphBuilder } from "../../onnx/graph-builder.ts";
import type { Node, Value } from "../../onnx/ir.ts";

/**
 * One entry of the gradient table.
 * `backward` emits dL/d(input i) for each wanted input from `dy[j]` = dL/d(output j), undefined where an output does not reach the loss;
 * at least one dy is defined. It answers undefined where no gradient flows.
 */
export interface GradientRule {
  readonly backward: (
    g: GraphBuilder,
    node: Node,
    dy: readonly (Value | undefined)[],
    wanted: readonly boolean[],
  ) => readonly (Value | undefined)[];
  /** Answers have the shape of the node's output; the walk sums them down to the shape of the input. */
  readonly broadcasts?: boolean;
  /** Not the derivative, which is zero, but an estimate that lets gradients through; values in between may be integers. */
  readonly straightThrough?: boolean;
  /** Why the gradient of this very node is not known, judged by its attributes and inputs alone. */
  readonly refuses?: (node: Node) => string | undefined;
}
