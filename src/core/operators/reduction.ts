import type { Records } from "./operator-record.ts";

const INDEX = { results: ["int64"], derivative: "zero" } as const;

export const REDUCTION = {
  ReduceSum: { since: 1, channels: "reduction", folds: "reordered" },
  ReduceMean: { since: 1, channels: "reduction", folds: "reordered" },
  ReduceMax: { since: 1, channels: "reduction", folds: "reordered" },
  ReduceMin: { since: 1, channels: "reduction", folds: "reordered" },
  ReduceProd: { since: 1, folds: "reordered" },
  ReduceL1: { since: 1 },
  ReduceL2: { since: 1, channels: "reduction" },
  ReduceLogSum: { since: 1 },
  ReduceLogSumExp: { since: 1 },
  ReduceSumSquare: { since: 1 },
  ArgMax: { since: 1, ...INDEX },
  ArgMin: { since: 1, ...INDEX },
} as const satisfies Records;
