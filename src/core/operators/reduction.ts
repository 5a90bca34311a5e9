import type { Records } from "./operator-record.ts";

const INDEX = { results: ["int64"], derivative: "zero", absorbs: true } as const;
const EXTREME = {
  channels: "reduction",
  folds: "reordered",
  small: "pass",
  masks: true,
  magnitude: "largest",
} as const;

export const REDUCTION = {
  ReduceSum: { since: 1, channels: "reduction", folds: "reordered", small: "linear", sums: "values" },
  ReduceMean: {
    since: 1,
    channels: "reduction",
    folds: "reordered",
    small: "linear",
    sums: "mean",
    magnitude: "largest",
  },
  ReduceMax: { since: 1, ...EXTREME },
  ReduceMin: { since: 1, ...EXTREME },
  ReduceProd: { since: 1, folds: "reordered" },
  ReduceL1: { since: 1, small: "pass", sums: "values" },
  ReduceL2: { since: 1, channels: "reduction", small: "pass", sums: "squares" },
  ReduceLogSum: { since: 1 },
  ReduceLogSumExp: { since: 1 },
  ReduceSumSquare: { since: 1, small: "pass", sums: "squares" },
  ArgMax: { since: 1, ...INDEX },
  ArgMin: { since: 1, ...INDEX },
} as const satisfies Records;
