import type { EventFeed } from "./event-feed.ts";

/** Waits for jobs to end. All who wait for one job share what is asked of Redis: one look for each thing that happens to it. */
export interface JobEnds {
  /** Resolves when the job has ended or is gone, or `signal` fires. */
  wait(id: string, signal: AbortSignal): Promise<void>;
}

/** While Redis is away it is asked again this often. */
const RETRY_MS = 1_000;

interface Wait {
  readonly waiters: Set<() => void>;
  readonly look: () => void;
  readonly unsubscribe: () => void;
}

/** `isOver` answers whether a job has ended or is gone; it rejects while Redis is away. */
export function createJobEnds(feed: EventFeed, isOver: (id: string) => Promise<boolean>): JobEnds {
  const waits = new Map<string, Wait>();

  function open(id: string): Wait {
    const waiters = new Set<() => void>();
    let isLooking = false;
    let isStale = false;
    const look = async (): Promise<void> => {
      isStale = true;
      if (isLooking) return;
      isLooking = true;
      let failed = false;
      while (isStale && !failed) {
        isStale = false;
        const over = await isOver(id).catch(() => undefined);
        failed = over === undefined;
        if (over === true) for (const done of [...waiters]) done();
      }
      isLooking = false;
      if (failed && waiters.size > 0) setTimeout(look, RETRY_MS);
    };
    const wait = { waiters, look: () => void look(), unsubscribe: feed.subscribe(id, () => void look()) };
    waits.set(id, wait);
    return wait;
  }

  return {
    wait(id, signal) {
      if (signal.aborted) return Promise.resolve();
      return new Promise((resolve) => {
        const wait = waits.get(id) ?? open(id);
        const done = () => {
          signal.removeEventListener("abort", done);
          wait.waiters.delete(done);
          if (wait.waiters.size === 0 && waits.get(id) === wait) {
            waits.delete(id);
            wait.unsubscribe();
          }
          resolve();
        };
        wait.waiters.add(done);
        signal.addEventListener("abort", done);
        // After it is among those who wait: the end is either seen now, or told.
        wait.look();
      });
    },
  };
}
