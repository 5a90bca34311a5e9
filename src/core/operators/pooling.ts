import type { Records } from "./operator-record.ts";

const LARGEST = { homogeneous: true, small: "pass", magnitude: "largest" } as const;
const MEAN = { homogeneous: true, small: "linear", sums: "mean", magnitude: "largest" } as const;
const WINDOW = { window: { weight: undefined } } as const;

export const POOLING = {
  MaxPool: { since: 1, results: [0, "int64"], channels: "pooling", ...WINDOW, ...LARGEST },
  AveragePool: { since: 1, channels: "pooling", ...WINDOW, ...MEAN },
  LpPool: { since: 1, ...WINDOW, homogeneous: true, sums: "squares" },
  GlobalMaxPool: { since: 1, channels: "pooling", ...LARGEST },
  GlobalAveragePool: { since: 1, channels: "pooling", ...MEAN },
  GlobalLpPool: { since: 1 },
  MaxUnpool: { since: 9 },
  MaxRoiPool: { since: 1, exact: [1] },
  RoiAlign: { since: 10, exact: [1] },
} as const satisfies Records;
