/** Numbers that are gathered batch by batch: what a metric is, whether it is a mean or not. */

/** A metric of one model, from the first batch on. */
export interface Meter<Batch extends readonly unknown[]> {
  add(...batch: Batch): void;
  /** How many positions (labels, or elements of outputs) have counted. */
  readonly positions: number;
  /** The metric over all of them; NaN when there are none. */
  readonly value: number;
}

/** What a meter may be able to do besides: take its metric again of any choice among the samples that it has seen, in their order. */
export interface Resampled {
  readonly samples: number;
  /** The metric with each sample counted so often as `weights` says; NaN when no position is counted. */
  resampled(weights: ArrayLike<number>): number;
  /** Of a share of hits: hits and positions of each sample; undefined for what is not. */
  readonly shares: readonly Share[] | undefined;
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

/** The same meter, with all that it can do, fed with something else, in which `read` finds what it takes. */
export function fedBy<From extends readonly unknown[], Batch extends readonly unknown[], M extends Meter<Batch>>(
  meter: M & Meter<Batch>,
  read: (...from: From) => Batch,
): Omit<M, "add"> & Meter<From> {
  return Object.create(meter, { add: { value: (...from: From) => meter.add(...read(...from)) } });
}
