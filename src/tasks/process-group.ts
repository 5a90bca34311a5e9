import { type Descendant, descendantsOf, isThere, processesWith, residentBytes } from "./process-memory.ts";
import type { Reaper } from "./reaper.ts";

/** A child with everything that it has started: its process group, and what has left that. */
export interface ProcessGroup {
  /** Resident bytes of all. Where nothing else ends what the child has started, also remembers who that is, before they can leave the group. */
  look(): number;
  /** Kills the group; no error when nobody is left in it. */
  kill(): void;
  /** To be called when the child is gone: what it has started may not be. */
  end(): void;
}

export interface ProcessGroupOptions {
  /** Kills the group when we are gone. */
  readonly reaper: Reaper;
  /** What of their environment tells processes of this child from others. */
  readonly mark: string;
  /** Whether they can leave the group, and live: where no namespace ends them with the child. */
  readonly mayLeave: boolean;
}

/** The group that the child `pid` leads; undefined for one that was not started. */
export function createProcessGroup(pid: number | undefined, options: ProcessGroupOptions): ProcessGroup {
  const { reaper, mark, mayLeave } = options;
  const seen = new Map<number, Descendant>();
  if (pid !== undefined) reaper.watch(pid);

  function kill(): void {
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // Nobody is left in the group.
    }
  }

  return {
    look() {
      if (pid === undefined) return 0;
      if (mayLeave) for (const it of descendantsOf(pid)) seen.set(it.pid, it);
      return residentBytes(pid);
    },
    kill,
    end() {
      kill();
      if (mayLeave) killEscaped(mark, seen.values());
      if (pid !== undefined) reaper.forget(pid);
    },
  };
}

/** Kills processes that left the group of their child: those that were seen below it, and those that still have its environment. */
function killEscaped(mark: string, seen: Iterable<Descendant>): void {
  let escaped = [...seen].filter(isThere);
  // Again until nothing is found: what is found may be starting more.
  for (let round = 0; round < 5; round++) {
    escaped = [...escaped, ...processesWith(mark)].filter(isThere);
    if (escaped.length === 0) return;
    for (const { pid } of escaped.flatMap((it) => [it, ...descendantsOf(it.pid)])) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It is gone.
      }
    }
    escaped = [];
  }
}
