/** A run of several trainings, one after the other: each a value, each with its own checkpoint, progress and histories. */
import { trainNetworks } from "./loop.ts";
import type { EpochRecord } from "./run-state.ts";
import type { NetworksResult, NetworksTask, TrainingHooks, TrainingSettings } from "./training-task.ts";

export interface Phase {
  /** Unique in its run: checkpoints, progress and epochs are told under it. */
  readonly name: string;
  /** How much of the work of the whole run it is, relative to the other phases. */
  readonly share: number;
  /**
   * What is trained, made when its turn comes: it may need what phases before it have made, and `progress` tells how far preparations are
   * (they count as a twentieth of the phase). Null when there is nothing to do any more.
   */
  readonly prepare: (
    done: ReadonlyMap<string, NetworksResult>,
    progress: (fraction: number, message: string) => void,
  ) => Promise<NetworksTask | null>;
  /** Those of the run, when not given. */
  readonly settings?: TrainingSettings;
}

export interface PhaseProgress {
  readonly phase: string;
  /** Of the whole run. */
  readonly fraction: number;
  readonly message: string;
}

export interface PhaseHooks extends Pick<TrainingHooks, "openSession" | "signal" | "checkpointEveryMs"> {
  readonly onProgress?: (progress: PhaseProgress) => void;
  /** `network` is the prefix of one among several, "" of one alone. */
  readonly onEpoch?: (phase: string, record: EpochRecord, network: string) => void;
  readonly saveCheckpoint?: (phase: string, bytes: Uint8Array) => Promise<void>;
  /** What was last saved of each phase: those that had ended are not trained again. */
  readonly resumeFrom?: Readonly<Record<string, Uint8Array>>;
}

const PREPARATION = 0.05;

/** Runs phases in their order; answers what each has made, by name. Throws as `trainNetworks` does. */
export async function runPhases(
  phases: readonly Phase[],
  settings: TrainingSettings,
  hooks: PhaseHooks,
): Promise<ReadonlyMap<string, NetworksResult>> {
  const total = phases.reduce((sum, { share }) => sum + share, 0);
  const done = new Map<string, NetworksResult>();
  let before = 0;
  for (const phase of phases) {
    const { name, share } = phase;
    const start = before;
    before += share;
    const tell = (fraction: number, message: string) =>
      hooks.onProgress?.({ phase: name, fraction: (start + fraction * share) / total, message });
    const task = await phase.prepare(done, (fraction, message) => tell(PREPARATION * fraction, message));
    if (!task) continue;
    const result = await trainNetworks(task, phase.settings ?? settings, {
      openSession: hooks.openSession,
      signal: hooks.signal,
      resumeFrom: hooks.resumeFrom?.[name],
      ...(hooks.checkpointEveryMs !== undefined && { checkpointEveryMs: hooks.checkpointEveryMs }),
      ...(hooks.saveCheckpoint && { saveCheckpoint: (bytes) => hooks.saveCheckpoint!(name, bytes) }),
      onProgress: (p) =>
        tell(
          PREPARATION + (1 - PREPARATION) * p.fraction,
          `epoch ${p.epoch} of ${p.epochs}, loss ${p.loss.toPrecision(4)}, ${Math.round(p.samplesPerSecond)} samples/s, ${Math.ceil(p.remainingSeconds)} s left`,
        ),
      onEpoch: (record, network) => hooks.onEpoch?.(name, record, network),
    });
    done.set(name, result);
  }
  return done;
}
