/** What a training was like. */

/** One epoch of a training run. */
export interface EpochFacts {
  /** Counts from 1. */
  readonly epoch: number;
  /** Mean over the steps, and that of each term before its weight. */
  readonly loss: number;
  readonly losses: Readonly<Record<string, number>>;
  /** On the samples that were held out; null when there are none. */
  readonly validation_metric: number | null;
  readonly learning_rate: number;
  readonly samples_per_second: number;
}

export interface TrainingMetrics {
  readonly history: readonly EpochFacts[];
  /** The epoch that the student's weights are from. */
  readonly best_epoch: number;
  /** What the four numbers below are: a metric of `evaluation.metric` against labels; without labels `teacher_agreement` or `teacher_mse`. */
  readonly metric: string | null;
  readonly metric_samples: number;
  readonly teacher_metric: number | null;
  /** Before training. */
  readonly student_before_metric: number | null;
  readonly student_metric: number | null;
  /** Of the same student from the same start, trained on the labels alone. */
  readonly baseline_metric: number | null;
  readonly baseline_history: readonly EpochFacts[] | null;
  /** While training, validation left out. */
  readonly samples_per_second: number;
  /** All that were trained, baselines left out: the student alone, or peers, or a teacher beside its student, or generations. */
  readonly networks: readonly TrainedNetworkFacts[];
  /** The name of the network that is the result; `average` is all of them together. */
  readonly chosen: string;
  /** Of the mean of all networks' (or exits') answers; null where there is one. */
  readonly ensemble_metric: number | null;
}

export interface TrainedNetworkFacts {
  /** `student`, `teacher`, `peer_1`, `generation_1`, … */
  readonly name: string;
  readonly parameters: number;
  readonly history: readonly EpochFacts[];
  readonly best_epoch: number;
  /** Of the best epoch, on the samples that were held out. */
  readonly validation_metric: number | null;
  /** On the samples that the student is judged by, before and after training. */
  readonly before_metric: number | null;
  readonly metric: number | null;
  readonly artifact: string;
}

/** An answer that a network can give before its last layer. The last one is the network's own. */
export interface ExitFacts {
  readonly name: string;
  /** What it reads. */
  readonly value: string;
  readonly metric: number | null;
  /** Multiply-accumulates, and median latency, up to this answer, over those of the whole network. */
  readonly macs_share: number;
  readonly latency_share: number;
  /** A model that stops here; null where exits are not kept. */
  readonly artifact: string | null;
}
