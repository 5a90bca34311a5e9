/** Round to nearest: each weight by itself. */
import { blockSizeOf, type WeightScheme } from "../scheme.ts";
import { quantizeBlocks, type RoundedWeight } from "./blocks.ts";
import type { Rounding, RowMatrix } from "./rounding.ts";

export const nearest: Rounding = {
  name: "nearest",
  title: "rounding to nearest",
  sees: "weights",
  round: async (weight, scheme) => nearestRound(weight, scheme),
};

/** Rows [rows, depth] and their parameters [rows, blocks], each weight at its nearest value. */
export function nearestRound({ values, rows, depth, grid, limit }: RowMatrix, scheme: WeightScheme): RoundedWeight {
  const block = Math.min(blockSizeOf(scheme, depth), depth);
  // Blocks of the same length lie one after the other, as shorter rows would: they need not be a multiple of 16.
  const isCut = block < depth && depth % block === 0;
  const cut = isCut ? { rows: (rows * depth) / block, depth: block } : { rows, depth };
  const rounded = quantizeBlocks(
    { values, batches: 1, layout: "row-major", ...cut },
    isCut || block >= depth
      ? { ...scheme, granularity: scheme.granularity === "tensor" ? "tensor" : "channel" }
      : scheme,
    { layout: "row-major" },
    grid ? { grid } : {},
  );
  limit?.(new Int8Array(rounded.q.buffer));
  return rounded;
}
