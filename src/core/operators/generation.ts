import type { Records } from "./operator-record.ts";
import { fromAttribute, UNKNOWN } from "./result-types.ts";

const ZERO = { derivative: "zero" } as const;
const RANDOM = { random: true, ...ZERO } as const;
const WINDOW = { since: 17, results: [fromAttribute("output_datatype", "float32")] } as const;

/** Operators that make tensors: constants, shapes, ranges, random numbers, windows. */
export const GENERATION = {
  Constant: {
    since: 1,
    results: [
      (node) => (node.float("value_float") !== undefined || node.attrs.has("value_floats") ? "float32" : undefined),
    ],
    channels: "none",
    ...ZERO,
  },
  ConstantOfShape: {
    since: 9,
    results: [(node) => node.tensor("value")?.dtype ?? "float32"],
    rankFrom: 0,
    sizedBy: [0],
    ...ZERO,
  },
  Shape: { since: 1, results: ["int64"], channels: "none", folds: "reordered", ofShape: true, ...ZERO },
  Size: { since: 1, results: ["int64"], folds: "reordered", ofShape: true, ...ZERO },
  Range: { since: 11, steering: [0, 1, 2], sizedBy: [0, 1, 2], exact: [0, 1, 2], ...ZERO },
  EyeLike: { since: 9, results: [fromAttribute("dtype")], ...ZERO },
  RandomNormal: { since: 1, results: [fromAttribute("dtype", "float32")], ...RANDOM },
  RandomUniform: { since: 1, results: [fromAttribute("dtype", "float32")], ...RANDOM },
  RandomNormalLike: { since: 1, results: [fromAttribute("dtype")], ...RANDOM },
  RandomUniformLike: { since: 1, results: [fromAttribute("dtype")], ...RANDOM },
  Bernoulli: { since: 15, results: [fromAttribute("dtype")], ...RANDOM },
  Multinomial: { since: 7, results: [fromAttribute("dtype", "int32")], ...RANDOM },
  HannWindow: WINDOW,
  HammingWindow: WINDOW,
  BlackmanWindow: WINDOW,
  MelWeightMatrix: WINDOW,
  DFT: { since: 17 },
  STFT: { since: 17 },
  ImageDecoder: { since: 20, results: ["uint8"] },
  TfIdfVectorizer: { since: 9, results: ["float32"] },
  StringNormalizer: { since: 10 },
  StringConcat: { since: 20 },
  StringSplit: { since: 20, results: [UNKNOWN], sizedBy: "all" },
  NegativeLogLikelihoodLoss: { since: 12 },
  SoftmaxCrossEntropyLoss: { since: 12 },
} as const satisfies Records;
