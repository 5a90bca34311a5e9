/** Which values float16 cannot hold, going by what they were on samples. */
import type { Node, Value } from "../onnx/ir.ts";
import { operatorOf } from "../operators/operators.ts";
import { MAX_HALF } from "./float16-exact.ts";
import type { KeptReason } from "./float16-policy.ts";

/** Of one value, over samples. */
export interface ValueRange {
  /** The largest magnitude. */
  readonly largest: number;
  /** The smallest magnitude that is not zero; infinity where all are. */
  readonly smallest: number;
  /** The most elements that it has had. */
  readonly elements: number;
}

/** By the names of values. */
export type ValueRanges = ReadonlyMap<string, ValueRange>;

/** Other samples have larger values, and devices that add up in float16 have larger sums on the way to a value. */
const MARGIN = 4;
export const MAX_ACTIVATION = MAX_HALF / MARGIN;
/** Below, float16 has fewer digits, and four powers of ten further down none. */
export const MIN_NORMAL = 2 ** -14;
/** Values of which the largest is no larger than this have lost digits, most of them. */
const MIN_ACTIVATION = MARGIN * MIN_NORMAL;

/**
 * Why the node must stay float32: it gives out or reads what leaves the range of float16, or adds up inside what does; or it gives out or
 * reads what is divided by, and too small. Keeping only the node that makes such a value is no help, for it would be cast behind it.
 */
export function unfitReason(node: Node, ranges: ValueRanges): KeptReason | undefined {
  const values = [...node.inputs, ...node.outputs].filter((value) => value !== undefined && !value.constant);
  for (const value of values) {
    const range = ranges.get(value!.name);
    if (!range) continue;
    if (range.largest > MAX_ACTIVATION) return tooLarge(value!, range.largest);
    if (range.largest > 0 && range.largest < MIN_ACTIVATION) return tooSmall(value!, range.largest);
    if (range.smallest < MIN_NORMAL && isDivisor(value!)) {
      const message = `"${value!.name}", which is divided by, gets as small as ${range.smallest.toPrecision(3)} on the samples.`;
      return { code: "range", message };
    }
  }
  return sumReason(node, ranges);
}

function tooLarge({ name }: Value, largest: number): KeptReason {
  const message = `"${name}" reaches ${largest.toPrecision(6)} on the samples, and float16 ends at ${MAX_HALF}.`;
  return { code: "range", message };
}

function tooSmall({ name }: Value, largest: number): KeptReason {
  const message = `"${name}" gets no larger than ${largest.toPrecision(3)} on the samples, and float16 loses digits below ${MIN_NORMAL.toPrecision(3)}.`;
  return { code: "range", message };
}

/** Whether a node's result is infinite where the value is zero. */
function isDivisor(value: Value): boolean {
  return value.uses.some(({ node, index }) => operatorOf(node)?.poles?.includes(index));
}

function sumReason(node: Node, ranges: ValueRanges): KeptReason | undefined {
  const { sums } = operatorOf(node) ?? {};
  const [input, output] = [node.inputs[0], node.outputs[0]].map((value) => value && ranges.get(value.name));
  if (!sums || !input || !output) return undefined;
  const ofMean = output.largest * (input.elements / output.elements);
  // A sum is what it gives out itself.
  const sum = { squares: input.largest ** 2, mean: ofMean, values: 0 }[sums];
  if (sum <= MAX_HALF) return undefined;
  const what = sums === "squares" ? "squares" : "a sum";
  return {
    code: "range",
    message: `It adds up inside: ${what} of ${sum.toPrecision(3)}, and float16 ends at ${MAX_HALF}.`,
  };
}

/** The value that was largest, if it passed what float16 may be given; and where it is made. */
export function largestUnfit(
  nodes: Iterable<Node>,
  ranges: ValueRanges,
): { readonly value: string; readonly node: Node; readonly largest: number; readonly count: number } | undefined {
  let found: { value: string; node: Node; largest: number } | undefined;
  let count = 0;
  for (const node of nodes) {
    for (const { name } of node.outputs) {
      const largest = ranges.get(name)?.largest ?? 0;
      if (largest <= MAX_ACTIVATION) continue;
      count++;
      if (!found || largest > found.largest) found = { value: name, node, largest };
    }
  }
  return found && { ...found, count };
}
