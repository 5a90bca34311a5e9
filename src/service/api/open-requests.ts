import type { FastifyReply } from "fastify";
import { ServiceError } from "../errors.ts";

/** How many requests of one kind each caller may have open at the same time: each holds a connection, and memory of ours. */
export interface OpenRequests {
  /** Counts a request until its connection is done with it. Throws `rate_limited` when its caller has `max` open. */
  enter(share: string, reply: FastifyReply): void;
}

/** What usually ends within this time ends soon. */
const RETRY_AFTER_S = 5;

/** `what` is what there are too many of, for the message. */
export function createOpenRequests(max: number, what: string): OpenRequests {
  const open = new Map<string, number>();
  return {
    enter(share, { raw }) {
      const count = open.get(share) ?? 0;
      if (count >= max) {
        throw new ServiceError("rate_limited", `At most ${max} ${what} may be open at the same time.`, {
          retryAfterSeconds: RETRY_AFTER_S,
        });
      }
      open.set(share, count + 1);
      raw.once("close", () => {
        const left = open.get(share)! - 1;
        if (left > 0) open.set(share, left);
        else open.delete(share);
      });
    },
  };
}
