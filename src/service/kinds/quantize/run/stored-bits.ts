import { type QuantizationPlan, weightFacts } from "../../../../core/index.ts";
import type { Compressed } from "../../run/job-environment.ts";
import type { StaticParams } from "../spec.ts";

/** Weights that are stored in more bits than were asked for, other than by name. */
export function bitsWarnings(
  { weight_bits, layers }: Pick<StaticParams, "weight_bits" | "layers">,
  plan: QuantizationPlan,
): NonNullable<Compressed["warnings"]> {
  if (weight_bits === 8) return [];
  const isNamed = (node: string) => Object.hasOwn(layers, node);
  const stored = weightFacts(plan).filter(({ bits, nodes }) => bits === 8 && !nodes.every(isNamed));
  if (stored.length === 0) return [];
  const shown = stored.slice(0, 3).map(({ name }) => `"${name}"`);
  const more = stored.length > shown.length ? `, and ${stored.length - shown.length} more` : "";
  const message = `Weights of layers that compute in float are stored in 8 bits, not in ${weight_bits}: ${shown.join(", ")}${more}. With float_where_slower false more layers compute in 8 bits.`;
  return [{ code: "more_bits_stored", message, value: stored.length }];
}
