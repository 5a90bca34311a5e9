/**
 * What outputs are, as far as names and records tell; where the classes of scores lie, and scores with their classes side by side. An axis of
 * null is the last that is not of one.
 */
import { elementCount, withoutUnitAxes } from "./tensor.ts";

/**
 * The axis of the classes in scores of which each position has one label: null; or 1 where only that fits ([n, K, h, w] with labels of
 * [n, h, w]); undefined where neither does.
 */
export function labelledAxis(scores: readonly number[], labels: readonly number[]): 1 | null | undefined {
  const [own, given] = [withoutUnitAxes(scores), withoutUnitAxes(labels)];
  if (own.length < 2) return undefined;
  if (`${own.slice(0, -1)}` === `${given}`) return null;
  return scores.length > 2 && scores[1] !== 1 && `${withoutUnitAxes(scores.toSpliced(1, 1))}` === `${given}`
    ? 1
    : undefined;
}

/** Whether an output is called what scores of classes are called. */
export function isNamedLikeScores(name: string): boolean {
  return /logit|score|prob|class/i.test(name);
}

/** What is recorded of what an output is; see `OutputMeaning`. */
interface Recorded {
  readonly meaning?: { readonly kind: string; readonly evident: boolean };
}

/** Whether each number of an output, as it is recorded, is a share by itself, so that there are no classes to choose from. */
export function areShares({ meaning }: Recorded): boolean {
  return meaning?.evident === true && meaning.kind === "shares";
}

/** The number of classes. */
export function classCount(scores: readonly number[], axis: number | null): number {
  return axis === null ? withoutUnitAxes(scores).at(-1)! : scores.at(axis)!;
}

/** Scores with their classes side by side: row for row, the rows in the order of the other axes. A copy where they do not lie so. */
export function classRows<T extends Float32Array | Float64Array>(
  values: T,
  dims: readonly number[],
  axis: number | null,
): T {
  if (axis === null) return values;
  const width = dims.at(axis)!;
  const inner = elementCount(dims.slice(axis < 0 ? axis + dims.length + 1 : axis + 1));
  if (inner === 1 || width === 1) return values;
  const rows = values.slice() as T;
  const map = inner * width;
  for (let start = 0; start < values.length; start += map) {
    for (let k = 0; k < width; k++) {
      for (let i = 0; i < inner; i++) rows[start + i * width + k] = values[start + k * inner + i]!;
    }
  }
  return rows;
}
