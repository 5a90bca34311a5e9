import { MIN_PACKED_WEIGHTS, type Model, type QuantizationPlan, weightFacts } from "../../../../core/index.ts";
import type { Compressed } from "../../run/job-environment.ts";
import type { StaticParams } from "../spec.ts";

/**
 * Weights of `float`, which was quantized, that are stored in more bits than were asked for, other than by name; not those that fewer bits would not
 * make smaller.
 */
export function bitsWarnings(
  { weight_bits, layers }: Pick<StaticParams, "weight_bits" | "layers">,
  plan: QuantizationPlan,
  float: Model,
): NonNullable<Compressed["warnings"]> {
  if (weight_bits === 8) return [];
  const isNamed = (node: string) => Object.hasOwn(layers, node);
  const small = new Set<string>();
  for (const graph of float.graphs()) {
    for (const { name, constant } of graph.initializers) {
      const count = constant?.dims.reduce((product, dim) => product * dim, 1) ?? 0;
      if (count < MIN_PACKED_WEIGHTS) small.add(name);
    }
  }
  const stored = weightFacts(plan).filter(
    ({ name, bits, nodes }) => bits > weight_bits && !small.has(name) && !nodes.every(isNamed),
  );
  if (stored.length === 0) return [];
  const shown = stored.slice(0, 3).map(({ name }) => `"${name}"`);
  const more = stored.length > shown.length ? `, and ${stored.length - shown.length} more` : "";
  const message = `Weights are stored in 8 bits, not in ${weight_bits}: ${shown.join(", ")}${more}. What is said of the nodes that read them tells why.`;
  return [{ code: "more_bits_stored", message, value: stored.length }];
}
