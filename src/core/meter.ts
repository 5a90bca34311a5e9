/** Numbers that are gathered batch by batch: what a metric is, whether it is a mean or not. */

/** A metric of one model, from the first batch on. */
export interface Meter<Batch extends readonly unknown[]> {
  add(...batch: Batch): void;
  /** How many positions (labels, or elements of outputs) have counted. */
  readonly positions: number;
  /** The metric over all of them; NaN when there are none. */
  readonly value: number;
}

/** What a batch adds to a mean over positions. */
export interface Share {
  readonly sum: number;
  readonly positions: number;
}

/** The mean over all positions of all batches, not the mean of the batches' means; `finish` makes the metric of it (its root, say). */
export function meanMeter<Batch extends readonly unknown[]>(
  share: (...batch: Batch) => Share,
  finish: (mean: number) => number = (mean) => mean,
): Meter<Batch> {
  let [sum, positions] = [0, 0];
  return {
    add(...batch) {
      const own = share(...batch);
      sum += own.sum;
      positions += own.positions;
    },
    get positions() {
      return positions;
    },
    get value() {
      return finish(sum / positions);
    },
  };
}

/** The same meter, fed with something else, in which `read` finds what it takes. */
export function fedBy<From extends readonly unknown[], Batch extends readonly unknown[]>(
  meter: Meter<Batch>,
  read: (...from: From) => Batch,
): Meter<From> {
  return {
    add: (...from) => meter.add(...read(...from)),
    get positions() {
      return meter.positions;
    },
    get value() {
      return meter.value;
    },
  };
}
