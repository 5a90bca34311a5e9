/**
 * Which shapes follow from what a model computes. A compressed model must give every output the shape that the original gives it; only where the
 * shape depends on computed floats (boxes above a threshold) may rounding change it.
 */
import type { Graph, Model, Node, Value } from "../onnx/ir.ts";
import { isFloat } from "../onnx/tensor.ts";
import { operatorOf } from "../operators/operators.ts";
import { type DTypes, inferDTypes } from "../passes/value-dtypes.ts";

/** Answers for one model whether an output can have either of two shapes, because the floats that it computes are rounded. Ranks do not change. */
export function shapesByValue(model: Model): (output: string, shapes: Shapes) => boolean {
  return (name, { before, after }) => {
    if (before.length !== after.length) return false;
    const walk = new Walk(inferDTypes(model));
    return model.graph.outputs.some((value) => value.name === name && walk.shapeVaries(value));
  };
}

interface Shapes {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

class Walk {
  readonly #dtypes: DTypes;
  readonly #shapes = new Map<Value, boolean>();
  readonly #values = new Map<Value, boolean>();

  constructor(dtypes: DTypes) {
    this.#dtypes = dtypes;
  }

  shapeVaries(value: Value): boolean {
    return memo(this.#shapes, value, (node, bodies) => {
      const { sizedBy = [] } = operatorOf(node) ?? {};
      const given = node.inputs.filter((input) => input !== undefined);
      const sizing = sizedBy === "all" ? given : sizedBy.flatMap((index) => node.inputs[index] ?? []);
      return (
        sizing.some((input) => this.#valueVaries(input)) ||
        given.some((input) => this.shapeVaries(input)) ||
        bodies.some((body) => body.outputs.some((output) => this.shapeVaries(output)))
      );
    });
  }

  /** Whether the elements can change by rounding: what is computed from floats can, sizes and what is computed from integers cannot. */
  #valueVaries(value: Value): boolean {
    return memo(this.#values, value, (node, bodies) => {
      const given = node.inputs.filter((input) => input !== undefined);
      if (operatorOf(node)?.ofShape) return given.some((x) => this.shapeVaries(x));
      return (
        given.some((input) => this.#isRounded(input) || this.#valueVaries(input)) ||
        bodies.some((body) => body.outputs.some((output) => this.#valueVaries(output)))
      );
    });
  }

  #isRounded(value: Value): boolean {
    const dtype = this.#dtypes.get(value);
    return !value.constant && (dtype === undefined || isFloat(dtype));
  }
}

/** Constants and inputs do not vary. */
function memo(
  known: Map<Value, boolean>,
  value: Value,
  find: (producer: Node, bodies: readonly Graph[]) => boolean,
): boolean {
  const { producer } = value;
  if (!producer || value.constant) return false;
  let varies = known.get(value);
  if (varies === undefined) {
    known.set(value, false);
    varies = find(producer, producer.bodies());
    known.set(value, varies);
  }
  return varies;
}
