import type { ModelFacts, NonFiniteWeight, Warning } from "../facts.ts";

/** What has to be known of a model, whatever is done with it. */
export function modelWarnings({ non_finite_weights: broken = [] }: Pick<ModelFacts, "non_finite_weights">): Warning[] {
  const [first, ...others] = broken;
  if (!first) return [];
  const more =
    others.length === 0
      ? ""
      : ` So ${others.length === 1 ? "has another weight" : `have ${others.length} other weights`}.`;
  const value = broken.reduce((sum, { count }) => sum + count, 0);
  return [{ code: "non_finite_weights", message: `${nonFiniteText(first)}.${more}`, value }];
}

/** Says of a weight what is wrong with it, without a full stop. */
export function nonFiniteText({ name, layers, count, first }: NonFiniteWeight): string {
  const [layer] = layers;
  const whose = layer ? ` of ${JSON.stringify(layer.name)} (${layer.op})` : "";
  const values = count === 1 ? "a value that is" : `${count} values that are`;
  return `The weight ${JSON.stringify(name)}${whose} has ${values} NaN or infinite, the first at [${first.index.join(", ")}] (${first.value})`;
}
