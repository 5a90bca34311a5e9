/** What short trainings of tests share: settings, and images of four halves to tell apart. */
import { OPTIMIZERS } from "../../src/core/train/optimizer.ts";
import { SCHEDULES } from "../../src/core/train/schedule.ts";
import type { TrainingSettings } from "../../src/core/train/training-task.ts";
import { halves } from "./networks.ts";

export const SHORT: TrainingSettings = {
  epochs: 4,
  batchSize: 32,
  optimizer: OPTIMIZERS.adamw,
  learningRate: 0.02,
  schedule: SCHEDULES.onecycle,
  warmupSteps: 0,
  weightDecay: 0,
  gradientClip: null,
  averageDecay: null,
  augmentation: null,
  patience: null,
  seed: 3,
  threads: 1,
};

export const samples = halves(480, 5);
/** Others, that are not trained on. */
export const fresh = halves(400, 77);
