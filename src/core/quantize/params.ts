/**
 * The affine mapping between real values and integer codes, as ONNX QuantizeLinear and DequantizeLinear define it:
 *
 *     q = clamp(roundHalfEven(x / s) + z, qmin, qmax)        x̂ = s · (q − z)
 *
 * with s a float32 (or float16) and the division done in float32. Ranges always contain zero, so zero is represented exactly, and
 * inside the range |x − x̂| ≤ s/2. Scales are computed in float64 and rounded once, last; codes are computed with the rounded scale.
 * Everything here is pure; onnxruntime gives the same bits.
 */
import { CoreError } from "../errors.ts";

/** The integer types of quantized tensors. */
export type CodeDType = "int2" | "uint2" | "int4" | "uint4" | "int8" | "uint8" | "int16" | "uint16";

/** The codes in use, both ends included. */
export interface CodeRange {
  readonly min: number;
  readonly max: number;
}

export interface AffineParams {
  readonly scale: number;
  readonly zeroPoint: number;
}

/** The precision a scale is stored in: that of the tensor it scales. */
export type ScaleDType = "float32" | "float16";

/**
 * Codes by dtype. `symmetric` leaves out the lowest code of 8 and 16 signed bits, so that ±max|x| are both represented; narrower types cannot
 * spare one. `reduced` gives one bit up: for kernels that add pairs of 8-bit products in 16 bits and saturate.
 */
const CODES = {
  int2: { full: [-2, 1], symmetric: [-2, 1], reduced: [-1, 1] },
  uint2: { full: [0, 3], symmetric: [0, 3], reduced: [0, 1] },
  int4: { full: [-8, 7], symmetric: [-8, 7], reduced: [-4, 3] },
  uint4: { full: [0, 15], symmetric: [0, 15], reduced: [0, 7] },
  int8: { full: [-128, 127], symmetric: [-127, 127], reduced: [-64, 64] },
  uint8: { full: [0, 255], symmetric: [0, 255], reduced: [0, 127] },
  int16: { full: [-32768, 32767], symmetric: [-32767, 32767], reduced: [-16384, 16384] },
  uint16: { full: [0, 65535], symmetric: [0, 65535], reduced: [0, 32767] },
} as const satisfies { [D in CodeDType]: Record<"full" | "symmetric" | "reduced", readonly [number, number]> };

/** The codes of `dtype` that a scheme uses. */
export function codeRange(dtype: CodeDType, scheme: { symmetric?: boolean; reduced?: boolean } = {}): CodeRange {
  const table = CODES[dtype];
  const [min, max] = scheme.reduced ? table.reduced : scheme.symmetric ? table.symmetric : table.full;
  return { min, max };
}

/** 1.5 · 2^52: adding it leaves no fraction bits, so the hardware rounds to integer, half to even. */
const ROUNDING = 6755399441055744;

/** The nearest integer, halves to even. Exact for |x| < 2^51; larger values come out as some integer of the same sign and size. */
export function roundHalfEven(x: number): number {
  return x + ROUNDING - ROUNDING;
}

const ROUND_SCALE = { float32: Math.fround, float16: Math.f16round } as const satisfies {
  [D in ScaleDType]: (x: number) => number;
};

/** Smaller scales divide badly; a range that needs one holds nothing but zeros for all practical purposes. */
const MIN_SCALE = { float32: 2 ** -126, float16: 2 ** -24 } as const satisfies { [D in ScaleDType]: number };
const MAX_SCALE = { float32: (2 - 2 ** -23) * 2 ** 127, float16: 65504 } as const satisfies {
  [D in ScaleDType]: number;
};

export interface ParamsOptions {
  /** The zero point is the middle of the codes (0 for signed types) and the range is widened to ±max(|lo|, |hi|). */
  readonly symmetric?: boolean;
  /** The range is made at least this wide, upwards. */
  readonly minSpan?: number;
  readonly scaleDType?: ScaleDType;
}

/**
 * Scale and zero point that map [lo, hi] (widened to contain 0) onto `codes`. An empty range gives scale 1.
 * Throws `non_finite` when an end of the range is not finite.
 */
export function affineParams(lo: number, hi: number, codes: CodeRange, options: ParamsOptions = {}): AffineParams {
  return affineRule(codes, options)(lo, hi);
}

/** `affineParams` for many ranges: what does not depend on the range is worked out once. */
export function affineRule(codes: CodeRange, options: ParamsOptions = {}): (lo: number, hi: number) => AffineParams {
  const { symmetric = false, minSpan = 0, scaleDType = "float32" } = options;
  const steps = codes.max - codes.min;
  const roundScale = ROUND_SCALE[scaleDType];
  const minScale = MIN_SCALE[scaleDType];
  const maxScale = MAX_SCALE[scaleDType];
  const middle = roundHalfEven((codes.min + codes.max) / 2);
  const empty: AffineParams = { scale: 1, zeroPoint: symmetric ? middle : clampTo(codes, 0) };
  return (lo, hi) => {
    if (!Number.isFinite(lo) || !Number.isFinite(hi)) {
      throw new CoreError("non_finite", `A tensor with the range [${lo}, ${hi}] cannot be quantized.`);
    }
    let low = Math.min(lo, 0);
    let high = Math.max(hi, 0, low + minSpan);
    if (symmetric) {
      high = Math.max(-low, high);
      low = -high;
    }
    const step = (high - low) / steps;
    if (step < minScale) return empty;
    const zeroPoint = symmetric ? middle : clampTo(codes, roundHalfEven(codes.min - low / step));
    return { scale: Math.min(roundScale(step), maxScale), zeroPoint };
  };
}

function clampTo(codes: CodeRange, code: number): number {
  return Math.min(Math.max(code, codes.min), codes.max);
}

/** The code of one value. NaN has none: callers check for it. */
export function quantizeValue(x: number, { scale, zeroPoint }: AffineParams, codes: CodeRange): number {
  return clampTo(codes, roundHalfEven(Math.fround(Math.fround(x) / scale)) + zeroPoint);
}
