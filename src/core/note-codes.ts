import { type NoteFacts, notesOfRoundings } from "./rounding-notes.ts";

const NOTES_OF_METHODS = {
  // What methods do.
  quantized: {
    kinds: ["changed", "skipped"],
    meaning: "Of `static` and `qat`: it computes in 8 bits, or its weights have few. Of `float16`: it stays as it is.",
    cause: "A layer whose operands have ranges; QuantizeLinear and DequantizeLinear in the model given to `float16`.",
  },
  dynamic_matmul: {
    kinds: ["changed"],
    meaning: "It multiplies in 8 bits; the range of its input is found in every run.",
    cause: "`dynamic` of MatMul and Gemm with constant weights.",
  },
  dynamic_lstm: {
    kinds: ["changed"],
    meaning: "It is DynamicQuantizeLSTM: weights in 8 bits, ranges found in every run.",
    cause: "`dynamic` and `static` of an LSTM.",
  },
  matmulnbits: {
    kinds: ["changed"],
    meaning: "Its weight is MatMulNBits: few bits in the file and in memory.",
    cause: "`weight_only` in its usual format of MatMul and Gemm.",
  },
  gather_block_quantized: {
    kinds: ["changed"],
    meaning: "Its table is GatherBlockQuantized: rows are looked up in few bits.",
    cause: "`weight_only` in its usual format of an embedding.",
  },
  gather_codes: {
    kinds: ["changed"],
    meaning: "Its table is looked up in 8-bit codes, which become floats afterwards.",
    cause: "`static` and `dynamic` of an embedding.",
  },
  dequantize: {
    kinds: ["changed"],
    meaning: "Its weight is stored in few bits behind a DequantizeLinear.",
    cause: "`weight_only` with `format: qdq`.",
  },
  dequantize_matmul: {
    kinds: ["changed"],
    meaning:
      "Its weight is stored in few bits behind a DequantizeLinear, which onnxruntime makes one kernel with the product.",
    cause: "`weight_only` with `format: qdq` of MatMul and Gemm.",
  },
  stored_codes: {
    kinds: ["changed"],
    meaning:
      "Its weight is stored in few bits and turned into floats when the model is loaded: smaller, as fast as float.",
    cause: "Convolutions and recurrent layers in `dynamic` and `weight_only`; what `static` computes in float.",
  },
  float16: {
    kinds: ["changed"],
    meaning: "Weights and computation are float16.",
    cause: "`float16` of a layer that nothing keeps in float32.",
  },
  fused: {
    kinds: ["changed", "simplified"],
    meaning: "It was folded into the layer before it.",
    cause: "A normalization, product or sum with constants behind a convolution or a matrix product.",
  },
  removed: {
    kinds: ["changed"],
    meaning: "It is gone: its result is a constant, or another node's.",
    cause: "`simplify` of a node that computes constants, passes on what it reads, or is read by nobody.",
  },
  rewritten: {
    kinds: ["simplified"],
    meaning: "It was written as another operator that computes the same and has an 8-bit kernel.",
    cause: "`static` of HardSwish, ReduceMean over all axes behind the channels, and BatchNormalization.",
  },
  widened: {
    kinds: ["simplified"],
    meaning: "It was taken to float32 before it was quantized.",
    cause: "A model in float16 or bfloat16 that `static`, `dynamic`, `weight_only` or `qat` is asked for.",
  },
  channels_scaled: {
    kinds: ["simplified"],
    meaning: "Its channels were scaled against each other, and the weights behind it the other way.",
    cause: "`static` of layers or normalizations whose channels are of very different size.",
  },
  rounding_lost: {
    kinds: ["simplified"],
    meaning: "Weights that were rounded for samples are rounded to the nearest after all, in some channels or in all.",
    cause:
      "`static` with a `rounding` where a bias needs a larger scale than its weights; with `per_channel: false` one such channel is enough.",
  },
  // What is left alone for what was asked.
  excluded: {
    kinds: ["skipped"],
    meaning: "The job excludes it.",
    cause: "`exclude_nodes` or `exclude_ops`.",
  },
  asked: {
    kinds: ["skipped"],
    meaning: "The job asks for it in float.",
    cause: "`layers` of `static`.",
  },
  already_quantized: {
    kinds: ["skipped"],
    meaning: "Its weights are quantized already, and stay as they are.",
    cause: "A layer with integer weights.",
  },
  already_float16: {
    kinds: ["skipped"],
    meaning: "Its weights are float16 already, and stay as they are.",
    cause: "A layer with float16 weights, of which `float16` is asked, or that a method does not handle.",
  },
  does_not_run: {
    kinds: ["skipped"],
    meaning: "The result did not run with it changed, so it is as it was.",
    cause: "A fault of onnxruntime that was found by trying the result.",
  },
  // Weights.
  unsupported_op: {
    kinds: ["skipped"],
    meaning: "The method does nothing with the weights of its operator.",
    cause: "Large constants of operators that are no layers, or layers that the method is not for.",
  },
  unsupported_weight: {
    kinds: ["skipped"],
    meaning: "There is no quantized form of it for a weight like its own.",
    cause: "Weights of a shape or type that no form holds.",
  },
  no_gain: {
    kinds: ["skipped"],
    meaning: "Its weights would not become smaller.",
    cause: "A few weights, whose scales take up more than is saved.",
  },
  shared_weight: {
    kinds: ["skipped"],
    meaning: "Its weight is also read by what keeps it as it is, and the file would hold both.",
    cause: "A weight that another node, or an output of the model, reads as it is.",
  },
  conv_needs_calibration: {
    kinds: ["changed"],
    meaning:
      "Its weight is stored in 8 bits and it computes in float: an integer convolution needs calibrated activations.",
    cause: "`dynamic` of a convolution.",
  },
  weight_not_constant: {
    kinds: ["skipped"],
    meaning: "Its weight is computed while the model runs.",
    cause: "A convolution or a Gemm of two computed operands.",
  },
  weight_not_float32: {
    kinds: ["skipped"],
    meaning: "Its weight, or that of the layer before it, is not float32.",
    cause: "Weights in float64 or in integers.",
  },
  weight_rank: {
    kinds: ["skipped"],
    meaning: "Its weight has another number of dimensions than the kernel takes.",
    cause: "A MatMul with a stack of matrices.",
  },
  empty_weight: { kinds: ["skipped"], meaning: "Its weight is empty.", cause: "A weight with an axis of 0." },
  weight_is_shared: {
    kinds: ["simplified", "skipped"],
    meaning: "It was not folded, because the weight before it is read by other nodes too.",
    cause: "A normalization behind a layer whose weight is shared.",
  },
  non_finite_weight: {
    kinds: ["skipped"],
    meaning: "Its weight holds NaN or an infinity, and has no scale.",
    cause: "`static` of a model with such a weight.",
  },
  weight_overflow: {
    kinds: ["skipped"],
    meaning: "Its weights pass the largest number of float16.",
    cause: "`float16` of weights above 65504.",
  },
  weight_underflow: {
    kinds: ["skipped"],
    meaning: "Its weights are so small that float16 loses their digits.",
    cause: "`float16` of a factor or divisor that is below 6.1e-5 everywhere.",
  },
  bias_not_constant: {
    kinds: ["skipped", "simplified"],
    meaning: "Its bias, or that of the layer before it, is not a float32 constant.",
    cause: "A bias that is computed.",
  },
  gemm_form: {
    kinds: ["skipped"],
    meaning: "The kernel does not take it in this form.",
    cause: "A Gemm with `transA`, `alpha`, `beta`, or a bias that is not one number for each column.",
  },
  not_affine: {
    kinds: ["simplified", "skipped"],
    meaning: "It was not folded: it is no product and sum with constants.",
    cause: "A normalization whose statistics are computed or not float32.",
  },
  // Static int8.
  not_finite: {
    kinds: ["simplified", "skipped"],
    meaning: "It was not folded, because the weights that come of it would not be finite.",
    cause: "A normalization with a variance of 0, or with statistics that are not finite.",
  },
  not_float32: {
    kinds: ["skipped"],
    meaning: "It does not compute in float32.",
    cause: "`static` of nodes that work on float64 or integers.",
  },
  constant: { kinds: ["skipped"], meaning: "It computes a constant.", cause: "A node that reads constants only." },
  constant_operand: {
    kinds: ["skipped"],
    meaning:
      "One of its operands is a constant that 8 bits would round too coarsely, or that the kernel does not take.",
    cause: "A sum or product with a vector, a Concat with a constant, a MatMul with a constant first factor.",
  },
  table: {
    kinds: ["skipped"],
    meaning: "It reads a constant table.",
    cause: "An embedding, in the placement of `static`.",
  },
  hard_sigmoid_slope: {
    kinds: ["skipped"],
    meaning: "Its slope is not positive.",
    cause: "A HardSigmoid with `alpha` of 0 or less.",
  },
  interpolation: {
    kinds: ["skipped"],
    meaning: "There is no 8-bit kernel that interpolates.",
    cause: "A Resize in another mode than nearest.",
  },
  indices: { kinds: ["skipped"], meaning: "It also gives out indices.", cause: "A MaxPool with a second output." },
  slower: {
    kinds: ["skipped"],
    meaning: "8 bits are measured, or predicted by a table of costs, to be slower than float where it is.",
    cause: "`float_where_slower` and small, depthwise or isolated layers; ReduceMax over the last axis.",
  },
  float_operands: {
    kinds: ["skipped"],
    meaning: "Its operands are computed in float, and 8 bits gain nothing in a product of them.",
    cause: "The products of attention.",
  },
  float_neighbours: {
    kinds: ["skipped"],
    meaning: "Nothing around it computes in 8 bits.",
    cause: "A Transpose, Reshape or Concat between nodes in float.",
  },
  float_inputs: {
    kinds: ["skipped"],
    meaning: "Its inputs are computed in float.",
    cause: "An activation or a sum behind nodes in float.",
  },
  float_outputs: {
    kinds: ["skipped"],
    meaning: "What reads its output computes in float.",
    cause: "An activation or a sum in front of nodes in float.",
  },
  float_island: {
    kinds: ["skipped"],
    meaning: "Its operator has no 8-bit kernel: its input becomes float and its output 8 bits again.",
    cause: "A normalization, Erf or Exp between quantized layers.",
  },
  not_reached: {
    kinds: ["skipped"],
    meaning: "No calibration sample reached it, so its range is not known.",
    cause: "A branch of an If that the samples do not take.",
  },
  non_finite: {
    kinds: ["skipped"],
    meaning: "It computes infinities or NaN on calibration samples, which have no code.",
    cause: "Masks with -inf, divisions by zero.",
  },
  stretched: {
    kinds: ["skipped"],
    meaning: "Its result reaches an operator that stretches small values, of which 8 bits leave little.",
    cause: "Layers in front of Log, Sqrt, Pow, Reciprocal or a denominator.",
  },
  kept_for_accuracy: {
    kinds: ["skipped"],
    meaning: "It stays in float so that the model is as accurate as it has to be.",
    cause: "`max_metric_drop`, `min_sqnr_db`, or a result that was below 10 dB without it.",
  },
  // float16.
  float32_pattern: {
    kinds: ["skipped"],
    meaning: "It belongs to nodes that onnxruntime fuses in float32.",
    cause: "`float16` of written-out normalizations and activations.",
  },
  exact: {
    kinds: ["skipped"],
    meaning: "It counts, or decides by exact values, which float16 would round.",
    cause: "`float16` of ids, positions, time steps, comparisons, and what feeds Sin, Cos and casts to integers.",
  },
  mask: {
    kinds: ["skipped"],
    meaning: "It makes or adds a mask that float16 would turn into infinities.",
    cause: "`float16` of masks of -1e5 and the like.",
  },
  range: {
    kinds: ["skipped"],
    meaning: "Its values come near the largest number of float16, or pass it.",
    cause: "`float16` of activations above some ten thousands on the samples, or of divisors too small for it.",
  },
  squares: {
    kinds: ["skipped"],
    meaning: "Sums of squares leave the range of float16.",
    cause: "`float16` of LpNormalization, ReduceL2, ReduceSumSquare, ReduceLogSumExp, and of squares that are summed.",
  },
  coordinates: {
    kinds: ["skipped"],
    meaning: "Its coordinates or scores need more digits than float16 has.",
    cause: "`float16` of GridSample, RoiAlign, MaxRoiPool, AffineGrid, TopK, Unique.",
  },
  bits: {
    kinds: ["skipped"],
    meaning: "It looks at the bits of float32 numbers.",
    cause: "`float16` of BitCast.",
  },
  no_float16: {
    kinds: ["skipped"],
    meaning: "onnxruntime has no float16 kernel for it.",
    cause: "`float16` of operators that the CPU computes in float32 only.",
  },
  does_not_load: {
    kinds: ["skipped"],
    meaning: "onnxruntime does not load it in float16.",
    cause: "`float16` of operators whose float16 form onnxruntime 1.30 refuses.",
  },
  no_float32: {
    kinds: ["skipped"],
    meaning: "Nothing in the model is float32.",
    cause: "`float16` of a model in float64, float16 or integers.",
  },
  unknown_type: {
    kinds: ["skipped"],
    meaning: "The type of a value at its border is not known, or it works on something other than tensors.",
    cause: "`float16` of sequences, optionals and bodies of unknown types.",
  },
  unknown_operator: {
    kinds: ["skipped"],
    meaning: "Operators of its domain are left as they are.",
    cause: "`float16` of com.microsoft and custom operators that no record describes.",
  },
  // The audit.
  not_audited: {
    kinds: ["island"],
    meaning: "The graph that onnxruntime makes could not be read back.",
    cause: "Models whose optimized graph is larger than 1 GB, or of a form that is not known.",
  },
  dequantized_every_run: {
    kinds: ["island"],
    meaning: "Its weight is turned into floats in every run: small, and slower than float.",
    cause: "`weight_only` with `format: qdq` of operators that have no kernel for it.",
  },
  no_integer_kernel: {
    kinds: ["island"],
    meaning: "onnxruntime has no integer kernel for it.",
    cause: "Operators between QuantizeLinear and DequantizeLinear that stay in float.",
  },
  different_scales: {
    kinds: ["island"],
    meaning: "Its inputs and outputs have different scales, and it cannot rescale.",
    cause: "Movement of values, in models that other tools quantized.",
  },
  float_input: {
    kinds: ["island"],
    meaning: "Another of its inputs is float.",
    cause: "A pair with one quantized operand.",
  },
  float_output: {
    kinds: ["island"],
    meaning: "Its output is not quantized again, so it runs in float.",
    cause: "The last node of a quantized region.",
  },
  not_fused: {
    kinds: ["island"],
    meaning: "onnxruntime did not fuse it, though nothing is known to be in the way.",
    cause: "Signed and unsigned types mixed, or a Clip that the scale does not cover.",
  },
} as const satisfies Readonly<Record<string, NoteFacts>>;

export const NOTES = { ...NOTES_OF_METHODS, ...notesOfRoundings() };

export type NoteCode = keyof typeof NOTES;

export const NOTE_CODES = Object.keys(NOTES) as readonly NoteCode[] as readonly [NoteCode, ...NoteCode[]];
