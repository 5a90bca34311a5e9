import type { Redis } from "ioredis";
import { duplicateRedis } from "../redis.ts";

/** Calls `wake` whenever a job may have new events. */
export interface EventFeed {
  subscribe(jobId: string, wake: () => void): () => void;
  close(): void;
}

/**
 * One subscription to the channel of job ids for all followers of the process, opened when the first one comes. A message says only
 * that there is something to read, so none can be lost for good: whenever the subscription begins (again) every follower is woken up.
 */
export function createEventFeed(redis: Redis, channel: string): EventFeed {
  const followers = new Map<string, Set<() => void>>();
  let connection: Redis | undefined;

  function open(): Redis {
    const opened = duplicateRedis(redis, "subscriber");
    opened.on("message", (_channel: string, jobId: string) => {
      for (const wake of followers.get(jobId) ?? []) wake();
    });
    opened.on("ready", async () => {
      await opened.subscribe(channel).catch(() => {}); // Lost again before the answer: "ready" comes again, too.
      for (const wakes of followers.values()) for (const wake of wakes) wake();
    });
    return opened;
  }

  return {
    subscribe(jobId, wake) {
      connection ??= open();
      const wakes = followers.get(jobId) ?? new Set();
      followers.set(jobId, wakes.add(wake));
      return () => {
        wakes.delete(wake);
        if (wakes.size === 0 && followers.get(jobId) === wakes) followers.delete(jobId);
      };
    },
    close() {
      connection?.disconnect();
      followers.clear();
    },
  };
}
