import type { Records } from "./operator-record.ts";
import { TABLE } from "./weight-operands.ts";

const RESHAPE = { moves: "first", channels: "reshape", folds: "reordered" } as const;

const INTERPOLATION = { channels: "resize", homogeneous: true, small: "pass", magnitude: "largest" } as const;

/** Operators that put elements elsewhere, select or repeat them. */
export const MOVEMENT = {
  Identity: {
    since: 1,
    moves: "first",
    channels: "unary",
    folds: "unchanged",
    homogeneous: true,
    pointwise: () => (x: number) => x,
  },
  Reshape: { since: 1, ...RESHAPE, rankFrom: 1, sizedBy: [1] },
  Flatten: { since: 1, defaults: { axis: 1 }, ...RESHAPE },
  Squeeze: { since: 1, ...RESHAPE, sizedBy: [1] },
  Unsqueeze: { since: 1, ...RESHAPE, rankFrom: 1, sizedBy: [1] },
  Transpose: { since: 1, moves: "first", channels: "transpose", folds: "reordered" },
  Concat: { since: 1, moves: "all", channels: "concatenation", folds: "joined" },
  Split: { since: 1, moves: "first", channels: "split", folds: "reordered", sizedBy: [1] },
  Slice: { since: 1, moves: "first", folds: "reordered", sizedBy: [1, 2, 3, 4] },
  Expand: { since: 8, moves: "first", rankFrom: 1, sizedBy: [1] },
  Tile: { since: 1, moves: "first", rankFrom: 1, sizedBy: [1] },
  DepthToSpace: { since: 1, moves: "first" },
  SpaceToDepth: { since: 1, moves: "first" },
  Pad: { since: 1, steering: [2], sizedBy: [1], chooses: true, small: "linear" },
  /** X, region of interest, scales, sizes; before version 11 X and scales. */
  Resize: { since: 10, steering: [1, 2], sizedBy: [2, 3], float32: [1, 2], exact: [1, 2], ...INTERPOLATION },
  Upsample: { since: 7, steering: [1], sizedBy: [1], float32: [1], exact: [1], ...INTERPOLATION },
  CenterCropPad: { since: 18, sizedBy: [1] },
  Col2Im: { since: 18 },
  ReverseSequence: { since: 10, moves: "first" },
  Trilu: { since: 14, chooses: true },
  Gather: {
    since: 1,
    moves: "first",
    indexes: true,
    constants: { 0: "embedding" },
    weights: TABLE,
    channels: "selection along an axis",
    folds: "selected",
  },
  GatherElements: { since: 11, moves: "first", indexes: true },
  GatherND: { since: 11, moves: "first", indexes: true },
  Compress: { since: 9, moves: "first", sizedBy: "all" },
  Scatter: { since: 9 },
  ScatterElements: { since: 11 },
  ScatterND: { since: 11 },
  TensorScatter: { since: 24 },
  TopK: { since: 1, results: [0, "int64"], sizedBy: [1], absorbs: true },
  Unique: { since: 11, results: [0, "int64"], derivative: "zero", sizedBy: "all", exact: [0] },
  NonZero: { since: 9, results: ["int64"], derivative: "zero", sizedBy: "all" },
  OneHot: { since: 9, results: [2], steering: [2], derivative: "zero", sizedBy: [1], exact: [0, 1] },
  NonMaxSuppression: {
    since: 10,
    results: ["int64"],
    steering: [3, 4],
    derivative: "zero",
    sizedBy: "all",
    exact: [0, 1, 2, 3, 4],
  },
  GridSample: { since: 16, exact: [1] },
  AffineGrid: { since: 20, exact: [0] },
  RotaryEmbedding: { since: 23 },
} as const satisfies Records;
