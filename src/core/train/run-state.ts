import { CoreError } from "../errors.ts";
import { type Checkpoint, decodeCheckpoint, encodeCheckpoint } from "./checkpoint.ts";
import { type OptimizerSpec, slotCount } from "./optimizer.ts";
import type { Floats } from "./parameter-kernels.ts";
import type { Parameter } from "./parameters.ts";
import type { TrainableModel, TrainedValues } from "./trainable.ts";

/** One epoch in the history of a network; the fields go to the user as they are. */
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

/** What is known of one network of a run. */
export interface NetworkHistory {
  readonly history: EpochRecord[];
  /** The epoch whose values were kept, and its metric; null before the first validation. */
  best: { readonly epoch: number; readonly metric: number } | null;
}

/** Where a run is. Plain data: it is stored in checkpoints. */
export interface Position {
  /** Finished epochs, and finished steps of the one that goes on. */
  epoch: number;
  stepOfEpoch: number;
  /** Finished steps of all epochs. */
  step: number;
  /** Sums of each term over the steps of this epoch, for each update of a step. */
  termSums: number[][];
  /** Seconds that training steps of this epoch have taken. */
  seconds: number;
  /** By the network's prefix. */
  networks: Record<string, NetworkHistory>;
}

/** A network whose values change in the run. */
export interface RunNetwork {
  readonly prefix: string;
  readonly trainable: TrainableModel;
  /** The network with the moving averages of its parameters; undefined when none are kept. */
  readonly averages: TrainableModel | undefined;
}

/** Everything that changes while networks are trained. */
export class RunState {
  readonly position: Position;
  readonly networks: readonly RunNetwork[];
  /** With their names in checkpoints; those of the losses as well. */
  readonly #parameters: readonly (readonly [string, Parameter])[];
  readonly #slots: number;
  readonly #best = new Map<string, readonly Floats[]>();

  constructor(
    networks: readonly RunNetwork[],
    lossParameters: readonly Parameter[],
    options: { readonly optimizer: OptimizerSpec; readonly terms: readonly number[] },
  ) {
    this.networks = networks;
    this.#parameters = [
      ...networks.flatMap(({ prefix, trainable }) =>
        trainable.parameters.map((parameter) => [prefix + parameter.name, parameter] as const),
      ),
      ...lossParameters.map((parameter) => [parameter.name, parameter] as const),
    ];
    this.#slots = slotCount(options.optimizer);
    for (const [, parameter] of this.#parameters) for (const slot of this.slotsOf(parameter)) slot.fill(0);
    this.position = {
      epoch: 0,
      stepOfEpoch: 0,
      step: 0,
      termSums: options.terms.map((count) => Array(count).fill(0)),
      seconds: 0,
      networks: Object.fromEntries(networks.map(({ prefix }) => [prefix, { history: [], best: null }])),
    };
  }

  /** The optimizer's arrays for a parameter. */
  slotsOf({ slots }: Parameter): readonly Floats[] {
    return slots.slice(0, this.#slots);
  }

  /** Values that inference uses: the moving averages where there are any. */
  current({ trainable, averages }: RunNetwork): TrainedValues {
    return { statistics: trainable.statistics, parameters: (averages ?? trainable).parameters };
  }

  /** The values of a network's best epoch, or the current ones before the first validation. */
  best(network: RunNetwork): TrainedValues {
    const kept = this.#best.get(network.prefix);
    const { parameters, statistics } = this.current(network);
    if (!kept) return { parameters, statistics };
    return {
      parameters: parameters.map(({ name }, i) => ({ name, data: kept[i]! })),
      statistics: statistics.map((running, i) => ({
        ...running,
        mean: kept[parameters.length + 2 * i]!,
        variance: kept[parameters.length + 2 * i + 1]!,
      })),
    };
  }

  /** Remembers the current values of a network as its best ones. */
  keepBest(network: RunNetwork): void {
    const { parameters, statistics } = this.current(network);
    const arrays = [
      ...parameters.map(({ data }) => data),
      ...statistics.flatMap(({ mean, variance }) => [mean, variance]),
    ];
    const kept = this.#best.get(network.prefix);
    if (kept) for (const [i, array] of arrays.entries()) kept[i]!.set(array);
    else
      this.#best.set(
        network.prefix,
        arrays.map((array) => array.slice()),
      );
  }

  encode(): Uint8Array {
    return encodeCheckpoint({ state: this.position, arrays: this.#arrays() });
  }

  /** Continues from a checkpoint. Throws `invalid_params` when it was written by another run. */
  restore(bytes: Uint8Array): void {
    const { state, arrays } = decodeCheckpoint(bytes) as Checkpoint & { state: Position };
    const foreign = (name: string) =>
      new CoreError("invalid_params", `The checkpoint does not belong to this run: "${name}" differs.`, name);
    for (const network of this.networks) {
      const known = state.networks?.[network.prefix];
      if (!known) throw foreign(network.prefix);
      if (known.best) this.keepBest(network);
    }
    for (const [name, array] of Object.entries(this.#arrays())) {
      const stored = arrays[name];
      if (stored?.length !== array.length) throw foreign(name);
      array.set(stored);
    }
    Object.assign(this.position, state);
  }

  #arrays(): Record<string, Floats> {
    const arrays: Record<string, Floats> = {};
    for (const [name, parameter] of this.#parameters) {
      arrays[`parameter/${name}`] = parameter.data;
      for (const [k, slot] of this.slotsOf(parameter).entries()) arrays[`slot${k}/${name}`] = slot;
    }
    for (const { prefix, trainable, averages } of this.networks) {
      for (const { name, data } of averages?.parameters ?? []) arrays[`average/${prefix}${name}`] = data;
      for (const { meanName, varianceName, mean, variance } of trainable.statistics) {
        arrays[`statistics/${prefix}${meanName}`] = mean;
        arrays[`statistics/${prefix}${varianceName}`] = variance;
      }
      for (const [i, array] of (this.#best.get(prefix) ?? []).entries()) arrays[`best/${prefix}${i}`] = array;
    }
    return arrays;
  }
}
