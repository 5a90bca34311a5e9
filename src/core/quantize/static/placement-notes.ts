/** What is said of a placement, node by node. */
import { EXCLUDED, type Note, noteOn } from "../../passes/pass.ts";
import { type Placement, RECONSIDERED } from "./placement.ts";
import type { StaticOptions } from "./quantize-static.ts";
import type { Unit } from "./units.ts";

/** The code of what is said of nodes that compute in 8 bits. */
export const QUANTIZED = "quantized";

/** Reasons that are no news: what follows from neighbours, and what no node of the model as it was uploaded stands behind. */
const SILENT: ReadonlySet<string> = new Set([...RECONSIDERED, "channels_scaled"]);

/** What became of the nodes of a placement, before weights that stay in float are stored. */
export function notesOf(
  { units, islands }: Placement,
  { isExcluded = () => false, weightBits = 8 }: Pick<StaticOptions, "isExcluded" | "weightBits">,
): Note[] {
  const computes = ({ rule, node }: Unit) =>
    weightBits < 8 && rule.weight?.(node)
      ? `It computes in 8 bits, with weights of ${weightBits}.`
      : "It computes in 8 bits.";
  const notes = units
    .filter(({ rule, quantized, reason }) => quantized || rule.kind === "compute" || !SILENT.has(reason!.code))
    .map((unit) =>
      unit.quantized
        ? noteOn(unit.node, "changed", QUANTIZED, computes(unit))
        : noteOn(unit.node, "skipped", unit.reason!.code, unit.reason!.message),
    );
  return [
    ...notes,
    ...islands.map((node) =>
      isExcluded(node)
        ? noteOn(node, "skipped", EXCLUDED.code, EXCLUDED.message)
        : noteOn(
            node,
            "skipped",
            "float_island",
            `There is no 8-bit kernel for ${node.opType}: its input is turned into floats and its output back.`,
          ),
    ),
  ];
}
