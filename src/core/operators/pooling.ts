import type { Records } from "./operator-record.ts";

const WINDOW = { window: { weight: undefined } } as const;

export const POOLING = {
  MaxPool: { since: 1, results: [0, "int64"], channels: "pooling", ...WINDOW },
  AveragePool: { since: 1, channels: "pooling", ...WINDOW },
  LpPool: { since: 1, ...WINDOW },
  GlobalMaxPool: { since: 1, channels: "pooling" },
  GlobalAveragePool: { since: 1, channels: "pooling" },
  GlobalLpPool: { since: 1 },
  MaxUnpool: { since: 9 },
  MaxRoiPool: { since: 1 },
  RoiAlign: { since: 10 },
} as const satisfies Records;
