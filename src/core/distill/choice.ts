/** How sure it is that the best of several networks is the best. */
import type { Warning } from "../facts.ts";
import { differenceOf, type Interval } from "../intervals.ts";
import type { Resampled } from "../meter.ts";
import type { TrainableModel } from "../train/trainable.ts";
import { bestOf, type DistilledNetwork } from "./distillation.ts";
import { type Judge, measureNetwork } from "./judge.ts";

/** How much better one network is than the next best, on the samples that were held out. */
export interface Choice {
  readonly metric: string;
  readonly chosen: { readonly name: string; readonly value: number };
  readonly next: { readonly name: string; readonly value: number };
  /** Of the metric of the chosen one less that of the next, at 95 %. */
  readonly interval: Interval;
  readonly samples: number;
}

type Candidate = Pick<DistilledNetwork, "name" | "run"> & { readonly trainable: TrainableModel };

/** Judges the two best networks by the samples of `judge`, which they were chosen by. Null where there are no two, no samples, or no interval is known. */
export async function choiceOf(judge: Judge, networks: readonly Candidate[]): Promise<Choice | null> {
  if (!judge.samples || networks.length < 2) return null;
  const best = bestOf(networks, judge.metric.better);
  const next = bestOf(
    networks.filter((network) => network !== best),
    judge.metric.better,
  );
  const first = await measureNetwork(judge, best.trainable, best.run.values);
  const second = await measureNetwork(judge, next.trainable, next.run.values);
  if (!canResample(first) || !canResample(second)) return null;
  const interval = differenceOf(first, second);
  if (!interval) return null;
  return {
    metric: judge.metric.name,
    chosen: { name: best.name, value: first.value },
    next: { name: next.name, value: second.value },
    interval,
    samples: judge.samples.count,
  };
}

function canResample<M extends Partial<Resampled>>(meter: M | null): meter is M & Resampled {
  return meter?.resampled !== undefined;
}

/** A choice by samples that do not tell which is better. */
export function choiceWarnings(choice: Choice | null | undefined): Warning[] {
  if (!choice) return [];
  const { metric, chosen, next, interval, samples } = choice;
  const [low, high] = interval;
  if (low > 0 || high < 0) return [];
  const value = chosen.value - next.value;
  const message =
    `${chosen.name} was chosen for its ${metric} of ${chosen.value.toPrecision(3)} on ${samples} held-out samples, and ${next.name} has ` +
    `${next.value.toPrecision(3)}: with 95 % confidence the difference is within ${low.toPrecision(2)} to ${high.toPrecision(2)}, so either may be the better one.`;
  return [{ code: "choice_within_noise", message, value }];
}
