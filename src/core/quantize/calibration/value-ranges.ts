/** How large and how small the values of a float model get on samples: what decides which of them a narrower float type can hold. */
import { CoreError } from "../../errors.ts";
import type { Model } from "../../onnx/ir.ts";
import type { ValueRange } from "../../passes/float16-range.ts";
import { inferDTypes } from "../../passes/value-dtypes.ts";
import { type CalibrateOptions, type Feeds, observe } from "./calibrate.ts";
import type { Observer } from "./observers.ts";

/** Of finite elements: what is infinite in the float model may be so in any other. */
class RangeObserver implements Observer, ValueRange {
  largest = 0;
  smallest = Number.POSITIVE_INFINITY;
  elements = 0;

  observe(values: Float32Array): void {
    let { largest, smallest } = this;
    for (let i = 0; i < values.length; i++) {
      const magnitude = Math.abs(values[i]!);
      if (magnitude > largest && magnitude < Number.POSITIVE_INFINITY) largest = magnitude;
      if (magnitude < smallest && magnitude > 0) smallest = magnitude;
    }
    this.largest = largest;
    this.smallest = smallest;
    this.elements = Math.max(this.elements, values.length);
  }
}

/**
 * The ranges of all float32 values that the nodes of a model give out or its bodies take in, by name, over `batches`. Values that cannot be
 * given out (in a branch that is not taken) are not among them; none are when onnxruntime does not take a model that gives out its values.
 */
export async function observeRanges(
  model: Model,
  batches: AsyncIterable<Feeds>,
  options: CalibrateOptions,
): Promise<ReadonlyMap<string, ValueRange>> {
  const observers = new Map<string, RangeObserver>();
  for (const [{ name, constant }, dtype] of inferDTypes(model)) {
    if (dtype === "float32" && !constant && name !== "") observers.set(name, new RangeObserver());
  }
  try {
    await observe(model, observers, batches, options);
  } catch (error) {
    if (!(error instanceof CoreError) || error.code !== "invalid_model") throw error;
    return new Map();
  }
  return new Map([...observers].filter(([, { elements }]) => elements > 0));
}
