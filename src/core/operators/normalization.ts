import type { Records, ResultType } from "./operator-record.ts";
import { fromAttribute } from "./result-types.ts";

const STATISTICS: ResultType = fromAttribute("stash_type", "float32");
const SCALE_AND_BIAS = { 1: "scale", 2: "bias" } as const;

export const NORMALIZATION = {
  BatchNormalization: {
    since: 1,
    defaults: { epsilon: 1e-5, momentum: 0.9 },
    constants: SCALE_AND_BIAS,
    channels: "channel normalization",
    small: "linear",
    estimates: true,
  },
  InstanceNormalization: {
    since: 1,
    defaults: { epsilon: 1e-5 },
    constants: SCALE_AND_BIAS,
    channels: "channel normalization",
    estimates: true,
    sums: "squares",
  },
  GroupNormalization: {
    since: 18,
    defaults: { epsilon: 1e-5 },
    constants: SCALE_AND_BIAS,
    estimates: true,
    sums: "squares",
  },
  LayerNormalization: {
    since: 17,
    defaults: { epsilon: 1e-5, axis: -1 },
    results: [0, STATISTICS],
    constants: SCALE_AND_BIAS,
    channels: "last axis normalization",
    estimates: true,
  },
  RMSNormalization: {
    since: 23,
    defaults: { epsilon: 1e-5, axis: -1 },
    constants: { 1: "scale" },
    channels: "last axis normalization",
    estimates: true,
  },
  LpNormalization: { since: 1 },
  MeanVarianceNormalization: { since: 9 },
  LRN: { since: 1, defaults: { alpha: 1e-4, beta: 0.75, bias: 1 } },
  Softmax: { since: 1, channels: "softmax", shares: true, absorbs: true, magnitude: 1 },
  LogSoftmax: { since: 1, channels: "softmax", absorbs: true },
  Hardmax: { since: 1, derivative: "zero", absorbs: true, magnitude: 1 },
} as const satisfies Records;
