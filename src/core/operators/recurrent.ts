import { recurrentMacs } from "./macs.ts";
import type { Records } from "./operator-record.ts";
import { RECURRENT } from "./weight-operands.ts";

const LAYER = {
  constants: { 1: "weight", 2: "weight", 3: "bias" },
  weights: RECURRENT,
  macs: recurrentMacs,
  estimates: true,
} as const;

export const RECURRENT_LAYERS = {
  RNN: { since: 1, ...LAYER },
  GRU: { since: 1, ...LAYER },
  LSTM: { since: 1, ...LAYER },
} as const satisfies Records;
