import { type Content, html, type Markup } from "./markup.ts";
import { section, shortened } from "./parts.ts";

/** The words of the report, explained: where they stand, on hover and by a link, and together at the end of the page. */

const TERMS = {
  sqnr: {
    name: "SQNR",
    text: "Signal to quantization noise ratio, in decibels (dB): how much stronger a value is than its error. 20 dB: the error is a tenth of the value. Every 6 dB more is one bit. Higher is better.",
  },
  cosine: {
    name: "Cosine",
    text: "Whether the outputs of both models point in the same direction: 1 is the same. Higher is better.",
  },
  agreement: {
    name: "Same answer",
    text: "Share of the positions where both models have the same largest score (class), or the same integer. Higher is better.",
  },
  latency: {
    name: "Latency",
    text: "Time of one run. Both models ran in turns on one machine; the median is compared. Lower is better.",
  },
  memory: {
    name: "Peak memory",
    text: "The most memory that a process with this one model took. Lower is better.",
  },
  synthetic: {
    name: "Synthetic input",
    text: "Random numbers in the model's shapes. They show that nothing broke, not whether answers stay right.",
  },
  calibration: {
    name: "Calibration",
    text: "Running the float model on samples to find the range of each activation.",
  },
  gain: {
    name: "Gain over labels",
    text: "How much better the student is than the same student, from the same start, trained on labels alone. It is what the teacher adds.",
  },
  top1: { name: "top1", text: "Share of the samples whose largest score is that of the label. Higher is better." },
  top5: { name: "top5", text: "Share of the samples whose label is among the five largest scores. Higher is better." },
  f1_macro: {
    name: "f1_macro",
    text: "Mean of the F1 scores of all classes, each with the same weight. Higher is better.",
  },
  binary_accuracy: {
    name: "binary_accuracy",
    text: "Share of the answers, yes above a half and no otherwise, that are those of the labels. Higher is better.",
  },
  binary_f1: {
    name: "binary_f1",
    text: "F1 of the yes answers: of those given and those that should be, how many are both. Higher is better.",
  },
  mse: { name: "mse", text: "Mean squared error against the labels. Lower is better." },
  rmse: { name: "rmse", text: "Root of the mean squared error, in the unit of the labels. Lower is better." },
  mae: { name: "mae", text: "Mean absolute error, in the unit of the labels. Lower is better." },
  coverage: {
    name: "Compressed nodes",
    text: "Operations of the model that the method has changed. The others stayed as they were, each for a reason.",
  },
  sensitivity: {
    name: "Sensitivity",
    text: "How much better the outputs become when some nodes stay in float and everything else is quantized.",
  },
  macs: { name: "Multiply-accumulates", text: "Multiplications with an addition in one run: what the layers compute." },
  epoch: { name: "Epoch", text: "One pass over the training samples." },
  sha256: { name: "sha256", text: "A fingerprint of the file: what sha256sum prints." },
} as const;

export type TermName = keyof typeof TERMS;

/** A word with its explanation: on hover, and a link to it for fingers and screen readers. */
export function term(name: TermName, text: string = TERMS[name].name): Markup {
  return html`<a class="term" href="#term-${name}" title="${TERMS[name].text}">${text}</a>`;
}

/** The name of a metric, explained where it is one of those that are known. */
export function metricTerm(metric: string): Content {
  return Object.hasOwn(TERMS, metric) ? term(metric as TermName, metric) : metric;
}

/** All of them. */
export function termSection(): Markup {
  return section(
    "Words",
    html`<dl>${Object.entries(TERMS).map(
      ([id, { name, text }]) => html`<dt id="term-${id}">${name}</dt><dd>${text}</dd>`,
    )}</dl>`,
  );
}

/** Codes whose own words say too little. */
const CODES: Readonly<Record<string, string>> = {
  exact: "must stay exact",
  mask: "a mask that float16 cannot hold",
  range: "leaves the range of float16",
  slower: "slower in 8 bits",
  quantized: "computes in 8 bits",
  matmulnbits: "weights in few bits, own operator",
  dequantize: "weights in few bits",
  dequantized_every_run: "weights in few bits, unpacked in every run",
  dynamic_matmul: "dynamic 8-bit product",
  dynamic_lstm: "dynamic 8-bit LSTM",
  gather_block_quantized: "table in few bits",
  gather_codes: "table in 8 bits",
  stored_codes: "stored in few bits, computed in float",
  no_integer_kernel: "no 8-bit kernel",
  excluded: "excluded by the job",
  accuracy: "kept in float for accuracy",
  kept_for_accuracy: "kept in float for accuracy",
  not_fused: "not fused, runs in float",
  conv_needs_calibration: "convolution, needs calibration",
  already_quantized: "quantized before",
  already_float16: "float16 before",
  bits: "in more bits than asked for",
  stretched: "range stretched",
  squares: "squares of activations",
  float_input: "a float input",
  float_output: "a float output",
  max_metric_drop: "Loss of accuracy, at most",
  min_sqnr_db: "SQNR in dB, at least",
  max_size_ratio: "Size, as a share of the original, at most",
  min_speedup: "Times as fast, at least",
  max_non_finite: "Values that are NaN or infinite, at most",
};

/** Characters of a code: operators of other domains bring their own. */
const MAX_CODE = 60;

/** A code in words; the code itself on hover. */
export function inWords(code: string): Markup {
  const words = Object.hasOwn(CODES, code) ? CODES[code]! : code.replaceAll(/[_.]/g, " ");
  return html`<span title="${shortened(code, MAX_CODE)}">${shortened(words, MAX_CODE)}</span>`;
}
