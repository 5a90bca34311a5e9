import { CoreError } from "../errors.ts";
import type { Floats } from "./adam-kernel.ts";
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from "./checkpoint.ts";
import { moveAverage, type OptimizerSpec, slotCount } from "./optimizer.ts";
import type { Parameter } from "./parameters.ts";
import type { RunningStatistics, TrainedValues } from "./trainable.ts";

/** One epoch in the history of a run; the fields go to the user as they are. */
export interface EpochRecord {
  /** Counts from 1. */
  readonly epoch: number;
  /** Mean over the steps. */
  readonly loss: number;
  readonly losses: Readonly<Record<string, number>>;
  readonly validation_metric: number | null;
  readonly learning_rate: number;
  readonly samples_per_second: number;
}

/** Where a run is. Plain data: it is stored in checkpoints. */
export interface Position {
  /** Finished epochs, and finished steps of the one that goes on. */
  epoch: number;
  stepOfEpoch: number;
  /** Finished steps of all epochs. */
  step: number;
  /** Sums of the total loss and of each term over the steps of this epoch. */
  lossSums: number[];
  /** Seconds that training steps of this epoch have taken. */
  seconds: number;
  history: EpochRecord[];
  /** The epoch whose values were kept, and its metric; null before the first validation. */
  best: { epoch: number; metric: number } | null;
}

/** Everything that changes while a model is trained. */
export class RunState {
  readonly position: Position;
  readonly parameters: readonly Parameter[];
  readonly statistics: readonly RunningStatistics[];
  /** The optimizer's arrays for each parameter. */
  readonly slots: readonly (readonly Floats[])[];
  /** Moving averages of the parameters; undefined when none are kept. */
  readonly averages: readonly Floats[] | undefined;
  #best: readonly Floats[] | undefined;

  constructor(
    parameters: readonly Parameter[],
    statistics: readonly RunningStatistics[],
    options: { readonly optimizer: OptimizerSpec; readonly losses: number; readonly averaged: boolean },
  ) {
    this.parameters = parameters;
    this.statistics = statistics;
    this.slots = parameters.map(({ slots }) => slots.slice(0, slotCount(options.optimizer)));
    for (const slot of this.slots.flat()) slot.fill(0);
    this.averages = options.averaged ? parameters.map(({ data }) => data.slice()) : undefined;
    this.position = {
      epoch: 0,
      stepOfEpoch: 0,
      step: 0,
      lossSums: Array(options.losses).fill(0),
      seconds: 0,
      history: [],
      best: null,
    };
  }

  /** Values that inference uses: the moving averages where there are any. */
  get current(): TrainedValues {
    const { averages } = this;
    return {
      statistics: this.statistics,
      parameters: averages ? this.parameters.map(({ name }, i) => ({ name, data: averages[i]! })) : this.parameters,
    };
  }

  /** The values of the best epoch, or the current ones before the first validation. */
  get best(): TrainedValues {
    const kept = this.#best;
    if (!kept) return this.current;
    const first = this.parameters.length;
    return {
      parameters: this.parameters.map(({ name }, i) => ({ name, data: kept[i]! })),
      statistics: this.statistics.map((running, i) => ({
        ...running,
        mean: kept[first + 2 * i]!,
        variance: kept[first + 2 * i + 1]!,
      })),
    };
  }

  /** Remembers the current values as the best ones. */
  keepBest(): void {
    const { parameters, statistics } = this.current;
    const arrays = [
      ...parameters.map(({ data }) => data),
      ...statistics.flatMap(({ mean, variance }) => [mean, variance]),
    ];
    if (!this.#best) this.#best = arrays.map((array) => array.slice());
    else for (const [i, array] of arrays.entries()) this.#best[i]!.set(array);
  }

  /** Moves the averages towards the parameters. Early steps weigh more, as decay is at most (1 + t)/(10 + t). */
  average(decay: number): void {
    const limit = (1 + this.position.step) / (10 + this.position.step);
    for (const [i, average] of (this.averages ?? []).entries()) {
      moveAverage(average, this.parameters[i]!.data, Math.min(decay, limit));
    }
  }

  encode(): Uint8Array {
    return encodeCheckpoint({ state: this.position, arrays: this.#arrays(true) });
  }

  /** Continues from a checkpoint. Throws `invalid_params` when it was written by another run. */
  restore(bytes: Uint8Array): void {
    const { state, arrays } = decodeCheckpoint(bytes) as Checkpoint & { state: Position };
    if (state.best && !this.#best) this.keepBest();
    const own = this.#arrays(state.best !== null);
    for (const [name, array] of Object.entries(own)) {
      const stored = arrays[name];
      if (stored?.length !== array.length) {
        throw new CoreError("invalid_params", `The checkpoint does not belong to this run: "${name}" differs.`, name);
      }
      array.set(stored);
    }
    Object.assign(this.position, state);
  }

  #arrays(withBest: boolean): Record<string, Floats> {
    const arrays: Record<string, Floats> = {};
    for (const [i, { name, data }] of this.parameters.entries()) {
      arrays[`parameter/${name}`] = data;
      for (const [k, slot] of this.slots[i]!.entries()) arrays[`slot${k}/${name}`] = slot;
      if (this.averages) arrays[`average/${name}`] = this.averages[i]!;
    }
    for (const { meanName, varianceName, mean, variance } of this.statistics) {
      arrays[`statistics/${meanName}`] = mean;
      arrays[`statistics/${varianceName}`] = variance;
    }
    if (withBest) for (const [i, array] of (this.#best ?? []).entries()) arrays[`best/${i}`] = array;
    return arrays;
  }
}
