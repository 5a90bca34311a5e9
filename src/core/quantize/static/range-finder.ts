/** Ranges of values by what calibration has seen, each found once. */
import type { Affine } from "../../operators/operator-record.ts";
import { type ActivationObserver, activationRange } from "../calibration/observers.ts";
import type { Range } from "../calibration/thresholds.ts";
import type { Calibration } from "./calibration.ts";
import type { QuantizedValue } from "./placement.ts";
import { pointwiseFunction } from "./pointwise.ts";
import type { StaticOptions } from "./quantize-static.ts";

type RangeMethod = Pick<StaticOptions, "method" | "percentile">;

const RANGE_FINDERS = new WeakMap<Calibration, Map<string, RangeFinder>>();

/** Searching for ranges takes as long as running the model a few times, so all models made from one calibration share what was found. */
export function rangesOf(calibration: Calibration, { method, percentile }: RangeMethod): RangeFinder {
  const finders = RANGE_FINDERS.get(calibration) ?? new Map<string, RangeFinder>();
  RANGE_FINDERS.set(calibration, finders);
  const key = `${method} ${percentile}`;
  const finder = finders.get(key) ?? new RangeFinder(calibration, { method, percentile });
  finders.set(key, finder);
  return finder;
}

/** Ranges of values, found once each. */
class RangeFinder {
  readonly #calibration: Calibration;
  readonly #options: RangeMethod;
  readonly #found = new Map<string, Range>();

  constructor(calibration: Calibration, options: RangeMethod) {
    this.#calibration = calibration;
    this.#options = options;
  }

  of({ value, uncut }: QuantizedValue): Range {
    const known = this.#found.get(value.name);
    if (known) return known;
    const { method, percentile } = this.#options;
    const { seen, factor, shift } = observationOf(value.name, this.#calibration)!;
    const becomes = pointwiseFunction(value);
    const { min, max } = activationRange(seen, uncut ? "minmax" : method, {
      steps: 255,
      percentile,
      ...(becomes && { seenAs: (x) => becomes(factor * x + shift) }),
    });
    const range = { min: factor * min + shift, max: factor * max + shift };
    this.#found.set(value.name, range);
    return range;
  }
}

/** What was seen of a value, or of one that it is affine in. */
export function observationOf(
  name: string,
  { activations, derived }: Calibration,
): (Affine & { readonly seen: ActivationObserver }) | undefined {
  const affine = derived.get(name) ?? { base: name, factor: 1, shift: 0 };
  const seen = activations.get(affine.base);
  return seen && { seen, factor: affine.factor, shift: affine.shift };
}
