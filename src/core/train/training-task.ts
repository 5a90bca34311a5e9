/** What is trained, how, and what comes of it. */

import type { Tensor } from "../onnx/tensor.ts";
import type { OpenSession } from "../runtime/session.ts";
import type { AugmentationSpec } from "./augment.ts";
import type { OptimizerSpec } from "./optimizer.ts";
import type { Rewrite } from "./rewrites.ts";
import type { EpochRecord } from "./run-state.ts";
import type { Samples } from "./samples.ts";
import type { ScheduleSpec } from "./schedule.ts";
import type { Objective } from "./step-graph.ts";
import type { TrainableModel, TrainedValues } from "./trainable.ts";
import type { UpdateRounding } from "./update-roundings.ts";
import type { ValidationMetric } from "./validate.ts";

/** Tensors by name. */
export type Named = Readonly<Record<string, Tensor>>;

export interface TrainingSettings {
  readonly epochs: number;
  readonly batchSize: number;
  readonly optimizer: OptimizerSpec;
  readonly learningRate: number;
  readonly schedule: ScheduleSpec;
  readonly warmupSteps: number;
  readonly weightDecay: number;
  /** The gradients of a network are scaled down to this norm, taken over all of its parameters; null never. */
  readonly gradientClip: number | null;
  /** Decay of the moving average of the weights, which is then what is validated and exported; null for none. */
  readonly averageDecay: number | null;
  /** Keeps weights in bfloat16, and says how an update is rounded to it; float32 when not given. */
  readonly updateRounding?: UpdateRounding;
  /** Random changes of the images of one input. */
  readonly augmentation: (AugmentationSpec & { readonly input: string }) | null;
  /** Stop after so many epochs without a better metric of any network; null never. */
  readonly patience: number | null;
  readonly seed: number;
  readonly threads: number;
}

/** A network of a run. */
export interface TaskNetwork {
  /** What its values are called by in objectives, in front of their own names: "" for a network alone, `teacher/` beside others. */
  readonly prefix: string;
  readonly trainable: TrainableModel;
  /** How each epoch is judged on the validation samples; the values of the best one are the result. */
  readonly metric?: ValidationMetric | undefined;
}

/** Part of a step: some networks learn, the others compute with the values that they have by then. */
export interface UpdateSpec {
  /** The prefixes of the networks that learn. */
  readonly trains: readonly string[];
  readonly objective: Objective;
}

export interface NetworksTask {
  /** Those that learn. */
  readonly networks: readonly TaskNetwork[];
  /** The updates of one step, on the same batch, one after the other. */
  readonly updates: readonly UpdateSpec[];
  /**
   * The moving average of a network's weights as one more network of every update, with data and noise of its own. It needs `averageDecay`.
   */
  readonly follower?: { readonly prefix: string; readonly of: string } | undefined;
  readonly training: Samples;
  /** Samples to judge each epoch by. Without them the last epoch's values are the result. */
  readonly validation?: Samples | undefined;
  /** Targets that are computed from a batch as it is fed, after augmentation: a teacher's outputs. */
  readonly moreTargets?: ((feeds: Named) => Promise<Named>) | undefined;
  /** What training does to the networks; that of `step-graph.ts` when not given. */
  readonly rewrites?: readonly Rewrite[];
}

/** A network that is trained alone. */
export interface TrainingTask extends Pick<NetworksTask, "training" | "validation" | "moreTargets" | "rewrites"> {
  readonly trainable: TrainableModel;
  readonly objective: Objective;
  readonly metric?: ValidationMetric | undefined;
}

export interface TrainingProgress {
  /** Epochs count from 1, steps from 1 within the epoch. */
  readonly epoch: number;
  readonly epochs: number;
  readonly step: number;
  readonly steps: number;
  /** Of the last step, summed over its updates. */
  readonly loss: number;
  readonly learningRate: number;
  readonly samplesPerSecond: number;
  /** Part of the whole run that is done. */
  readonly fraction: number;
  readonly remainingSeconds: number;
}

export interface TrainingHooks {
  readonly openSession: OpenSession;
  readonly signal?: AbortSignal | undefined;
  /** Called several times a second at most. */
  readonly onProgress?: (progress: TrainingProgress) => void;
  readonly onEpoch?: (record: EpochRecord, prefix: string) => void;
  /** Stores the state of the run: after every epoch, and every `checkpointEveryMs` within one. */
  readonly saveCheckpoint?: (bytes: Uint8Array) => Promise<void>;
  readonly checkpointEveryMs?: number;
  /** What `saveCheckpoint` was last given: the run goes on from there, to the same result. */
  readonly resumeFrom?: Uint8Array | undefined;
}

/** What became of one network. */
export interface NetworkResult {
  readonly history: readonly EpochRecord[];
  /** The epoch whose values these are, counted from 1. */
  readonly bestEpoch: number;
  readonly bestMetric: number | null;
  readonly values: TrainedValues;
}

export interface NetworksResult {
  /** By prefix. */
  readonly networks: Readonly<Record<string, NetworkResult>>;
  /** Over all training steps, validation left out. */
  readonly samplesPerSecond: number;
}

export type TrainingResult = NetworkResult & Pick<NetworksResult, "samplesPerSecond">;
