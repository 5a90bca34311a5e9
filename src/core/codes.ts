/** Every code that a result can carry besides errors, with what it means and what to do: the guide to codes is made of this. */

export interface CodeFacts {
  /** What it says. */
  readonly meaning: string;
  /** The input that causes it. */
  readonly cause: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** Below this SQNR a tenth of an output's amplitude is error: answers begin to change. */
export const LOW_SQNR_DB = 20;
/** In dB: below this something has gone wrong, and a method tries what else there is without being asked. */
export const POOR_SQNR_DB = 10;

/** Warnings of plans and results: what nobody asked about and should be known. `value` of each is said in `meaning`. */
export const WARNINGS = {
  slower_than_original: {
    meaning: "The result takes longer than the original on the machine that measured it. Value: the speedup, below 1.",
    cause:
      "Small layers, depthwise convolutions, weight-only formats whose weights are turned into floats in every run.",
    remedy:
      "Another method (`static` for convolutions, `dynamic` for transformers), or `acceptance.min_speedup` to refuse it.",
  },
  larger_than_original: {
    meaning: "The files of the result are larger than the original's. Value: the ratio of sizes, above 1.",
    cause: "Small weights, whose scales and headers outweigh what is saved.",
    remedy: "Keep the original, or exclude small layers.",
  },
  shapes_differ: {
    meaning: "In some runs an output had another shape than the original's and was not compared. Value: how many runs.",
    cause: "Models that choose: boxes behind a threshold, tokens behind a comparison.",
    remedy: "Judge it by a metric of your own, or compare the outputs in front of the choice.",
  },
  nothing_quantized: {
    meaning: "No node was changed: the result computes what the original does, in the same types. Value: 0.",
    cause:
      "A model without weights that the method handles, everything excluded, or a model that is compressed already.",
    remedy: "Look at the reasons in `skipped_nodes`; choose another method or exclude less.",
  },
  already_quantized: {
    meaning: "Layers of the original are stored or computed in few bits already and stay as they are. Value: how many.",
    cause: "A model with QuantizeLinear/DequantizeLinear pairs, QLinear, ConvInteger, MatMulNBits or int8 LSTM nodes.",
    remedy: "Start from the float model to change method or bits.",
  },
  low_fidelity: {
    meaning:
      "An output differs much from the original's: its SQNR is below 20 dB or, on real data, fewer than 95 % of its answers are the same. Value: the SQNR in dB, or the share of equal answers.",
    cause:
      "Layers that few bits do not suit, too few or unlike samples for calibration, 4 bits rounded to the nearest.",
    remedy: "The message says what to try, and which layers lose most where that was measured.",
  },
  blank_output: {
    meaning:
      "An output is empty, NaN, or next to 0 and never negative in both models on all samples (below 0.00001), so that comparing it says nothing, also where it is the same. Value: the largest value of the original, 0 where there is none.",
    cause:
      "Detectors and segmenters on noise, or on pictures without anything that they look for; inputs that are out of range, as random numbers are for a limit or a rate.",
    remedy: "Judge it on samples that the model finds something in, and calibrate with such.",
  },
  few_samples: {
    meaning:
      "A dataset is too small for what it is used for: fewer than 16 samples to calibrate with, or fewer than 30 to be judged on. Value: the samples.",
    cause: "A small dataset, or a small `samples`.",
    remedy: "Give more samples: 100 to 500 calibrate well, 1000 tell accuracies apart that differ by 1 %.",
  },
  drop_within_noise: {
    meaning:
      "The metric differs by less than the samples can tell: the 95 % interval of the drop contains 0. Value: the drop, negative for a gain.",
    cause: "Few samples, or two models that are equally good.",
    remedy: "Evaluate on more samples; the interval shrinks with the square root of their number.",
  },
  more_bits_stored: {
    meaning: "`weight_bits` asked for 4 or 2 bits, and weights are stored in 8. Value: how many weights.",
    cause:
      "LSTM, whose kernel takes 8 bits; depthwise convolutions that stay in float, and layers whose inputs do not divide into blocks; layers that are kept in float for accuracy. Weights below 4096 values, which fewer bits would not make smaller, are not counted.",
    remedy:
      "Nothing, where they are a small part of the file. `layers` with `int4_weights` stores an LSTM in 4 bits, which then computes in float.",
  },
  choice_within_noise: {
    meaning:
      "Of several generations the best was chosen, and whether to go on, by held-out samples that do not tell it from the next best: the 95 % interval of their difference contains 0. Value: the difference of their metrics on those samples.",
    cause: "`born_again` with few samples, or a small `training.validation_split`.",
    remedy:
      "Hold out more samples, judge all generations (`metrics.training.networks`) by data of their own, or take `average: true`, which has nothing to choose.",
  },
  training_gained_nothing: {
    meaning:
      "No epoch of a training with rounding was better than its start on the held-out samples: the result is the start, quantized and corrected as `static` does it, and not trained. Value: the epochs that were trained.",
    cause:
      "A start that loses nothing, as often with 8 bits; held-out samples that the float model has learned from, of which the start keeps most; few held-out samples; a learning rate that is too large.",
    remedy:
      "Nothing, if the result is as good as it has to be. Else samples that the float model has not seen, a smaller `learning_rate`, or more epochs.",
  },
  differs_from_simulation: {
    meaning:
      "The model that a training with rounding made scores otherwise than the simulation that was trained: by more than 0.2 points, and by more than two samples. Value: the metric of the artifact less that of the simulation.",
    cause:
      "Values of activations so near the middle between two steps that kernels round them to the other side: with 4 bits, or with few samples, answers flip.",
    remedy: "Take `metrics.accuracy` for what the model does; train with activations of 8 bits.",
  },
  outputs_not_compared: {
    meaning: "Outputs that are not tensors of numbers were not fetched and not compared. Value: how many.",
    cause: "Maps of a ZipMap (scikit-learn, LightGBM, XGBoost), sequences, optionals, strings.",
    remedy: "Export the model without ZipMap (`zipmap: False`), or with the tensor in front of it as an output.",
  },
  unused_fields: {
    meaning: "Fields of a dataset match no input of the model and were not used. Value: how many.",
    cause: "A field whose name is misspelt, or that is meant for another model.",
    remedy: "Name fields after inputs; leave out what is not needed.",
  },
  unused_dims: {
    meaning: "Sizes in `evaluation.dims` had no effect, because the sizes of the data count. Value: how many.",
    cause: "`evaluation.dims` together with a dataset that the result is judged on.",
    remedy: "Leave `dims` out.",
  },
  labels_not_used: {
    meaning: "The dataset has labels, and no metric was computed of them. Value: how many labels.",
    cause: "Labels whose type or shape no output of the model fits.",
    remedy: "The message says what fits; without a metric the comparison with the original is all there is.",
  },
  labels_converted: {
    meaning: "The labels were read in another form than they are stored in. Value: how many labels.",
    cause: "One-hot rows, classes stored as floats, numbers stored as integers.",
    remedy: "Nothing, if the message says what was meant; else store the labels as they are meant.",
  },
  labels_ignored: {
    meaning: "Labels that are `ignore_label` count neither in losses nor in metrics. Value: how many.",
    cause: "`ignore_label` (-100, -1) in the job and in the labels.",
    remedy: "Nothing, if that was meant.",
  },
  float16_range: {
    meaning:
      "Values of the model come near the end of float16, 65504, or pass it, and stayed in float32. Value: the largest magnitude on the samples.",
    cause: "Activations that are squared, exponentiated or scaled up before they are normalized.",
    remedy: "Nothing, if the samples are like what the model will see: give an evaluation dataset that is.",
  },
  non_finite_data: {
    meaning: "Data that the result was judged on hold NaN or infinity. Value: how many values.",
    cause: "Missing values, or the result of a division by zero; `first_non_finite` of the dataset says where.",
    remedy: "Nothing, if the model masks them; else leave such samples out.",
  },
  target_not_reached: {
    meaning:
      "The result is not as good as `max_metric_drop` or `min_sqnr_db` asks for, whatever was left in float. Value: the score of the best that was found, of the metric or in dB.",
    cause:
      "A limit that few samples, `exclude_nodes` or `layers` do not allow, or more layers than `max_trials` gets to.",
    remedy: "Raise `max_trials`, ask for less, or use `weight_only` or `float16`.",
  },
  target_rules_broken: {
    meaning:
      "The result is not what its `target` wants; `metrics.deployment.rules` says where, and the result is not accepted. Value: how many rules are broken.",
    cause:
      "Operators of the model itself that the runtime does not have, or layers that could not be brought into its pattern.",
    remedy:
      "Export the model without those operators, exclude such layers (`exclude_nodes`), or choose another target.",
  },
  target_does_not_run: {
    meaning: "The runtime of `target` was tried here and did not load or run the result; it is not accepted. Value: 0.",
    cause: "An operator or a type that the runtime lacks, or too little memory: the message has its words.",
    remedy: "Exclude the operator (`exclude_ops`), or choose another method.",
  },
  target_not_measured: {
    meaning:
      "The runtime of `target` could be measured here, and its package is not installed: rules were checked, nothing was run there. Value: 0.",
    cause: "A worker that was installed without optional dependencies.",
    remedy: "Install the optional dependencies on workers: `npm install --include=optional`.",
  },
  constant_data: {
    meaning: "A field of floats in the dataset, which the model takes, has one value throughout. Value: that value.",
    cause: "Zeros or ones in the place of real samples, or a field that was left as it was made.",
    remedy:
      "Give real samples: ranges and errors from data that do not vary say nothing of others. Nothing, if it is always so.",
  },
  non_finite_weights: {
    meaning: "Weights of the model hold NaN, or weights of layers infinities. Value: how many values were found.",
    cause: "A training that diverged, or an export from a type with a smaller range.",
    remedy:
      "Export a sound model. Layers with such weights cannot be quantized or trained: leave them out (`exclude_nodes`) if their results are never used.",
  },
  layer_errors_incomplete: {
    meaning:
      "Errors were measured for some of the layers only: that takes no longer than a set share of the job. Value: how many were.",
    cause: "Models whose inference is slow.",
    remedy: "Switch them off with `evaluation.layer_errors: false`, or take what is there.",
  },
  list_shortened: {
    meaning: "A list of the result has more than 1000 entries, of which the first are here. Value: how many there are.",
    cause: "Models with thousands of nodes, of which as many were left alone.",
    remedy: "Nothing: the artifact `report.json` has all of them.",
  },
} as const satisfies Readonly<Record<string, CodeFacts>>;

/** What is strange about the values of a dataset. */
export const DATASET_WARNINGS = {
  non_finite: {
    meaning: "A field, or the labels, hold NaN or infinity; the message says how many, and the first sample.",
    cause: "Missing values, divisions by zero. No job calibrates or trains on such a field.",
  },
  all_zero: {
    meaning: "All values of a field of floats are 0.",
    cause: "A placeholder in the place of samples, or a reader that found nothing.",
  },
  constant: {
    meaning: "All values of a field of floats, or all labels, are the same.",
    cause: "A field that was left as it was made, one class only.",
  },
} as const satisfies Readonly<Record<string, Omit<CodeFacts, "remedy">>>;

export type DatasetWarningCode = keyof typeof DATASET_WARNINGS;

/** Why a search gives up a candidate. */
export const DROPPED = {
  hopeless: {
    meaning: "On few samples it is so far from a limit that more would not help.",
    cause: "A method of few bits that the model does not bear.",
  },
  unpromising: {
    meaning:
      "It was not tried: by what was measured of others it cannot be better in the objective than one that holds the limits.",
    cause: "A search that has found what was asked for.",
  },
  outranked: {
    meaning: "On few samples others are better in everything that counts.",
    cause: "Settings between which there is little to choose.",
  },
  beaten: {
    meaning: "Measured in full, another candidate is at least as good in everything and better in something.",
    cause: "The usual end of a candidate.",
  },
  same_as: {
    meaning: "It has the same bytes as another candidate.",
    cause: "Settings that make no difference to the model.",
  },
  unchanged: { meaning: "It has the same bytes as the original.", cause: "A method that finds nothing to do." },
  non_finite: {
    meaning: "It gives NaN or infinity where the original gives numbers.",
    cause: "Activations that leave the range of float16.",
  },
  target_rules_broken: {
    meaning: "It is not what the runtime of the search's target wants.",
    cause: "Operators of the model, or of the method, that the runtime does not have.",
  },
  target_does_not_run: {
    meaning: "The runtime of the search's target does not load or run it.",
    cause: "Too little memory for WebAssembly, or an operator that is not there.",
  },
  does_not_run: { meaning: "onnxruntime does not load or run it.", cause: "A fault of the runtime with such a model." },
  budget: { meaning: "The budget was used up before it was tried.", cause: "A small `budget` for the model." },
} as const satisfies Readonly<Record<string, Omit<CodeFacts, "remedy">>>;

export type DroppedCode = keyof typeof DROPPED;

/** Why entries of a plan may come out otherwise in the job. */
export const PROVISIONS = {
  ranges_from_few: {
    meaning: "The plan looked at fewer samples than the job does, and what they reach decides what becomes of nodes.",
    cause: "`static`, `qat` and `float16` with more samples than a plan has time for.",
  },
  measured_choice: {
    meaning: "The job measures whether these nodes compute in float, are stored in 8 bits, or are quantized.",
    cause:
      "`static` with `float_where_slower`, its default; and of a model with layers in front of a logarithm, root, power or denominator.",
  },
  accuracy: {
    meaning: "The job leaves more layers in float where the result would not be accurate enough.",
    cause: "`static` with `max_metric_drop` or `min_sqnr_db`; `auto`, its default, acts on results below 10 dB only.",
  },
  earlier_step: {
    meaning:
      "The model of the step before is not made yet: a model of the same structure with other values stood in for it.",
    cause: "Every step of a `pipeline` but the first.",
  },
} as const satisfies Readonly<Record<string, Omit<CodeFacts, "remedy">>>;

export type ProvisionCode = keyof typeof PROVISIONS;

export const PROVISION_CODES = Object.keys(PROVISIONS) as readonly ProvisionCode[] as readonly [
  ProvisionCode,
  ...ProvisionCode[],
];

export type WarningCode = keyof typeof WARNINGS;

export const WARNING_CODES = Object.keys(WARNINGS) as readonly WarningCode[] as readonly [
  WarningCode,
  ...WarningCode[],
];
