import type { FastifyRequest } from "fastify";
import { z } from "zod";
import { canonicalJson, sha256Of } from "../identity.ts";
import type { ApiContext } from "./context.ts";

/** Requests that are safe to send twice. */

export const IDEMPOTENCY_KEY = z
  .string()
  .min(1)
  .max(200)
  .optional()
  .meta({ description: "The same key again, for a day, answers with what the first request has made." });

export const IdempotencyHeaders = z.object({ "idempotency-key": IDEMPOTENCY_KEY });

export interface Repeatable {
  readonly caller: string;
  /** Undefined: the client has not said that it may send the request again. */
  readonly key: string | undefined;
  /** What must be the same in both requests; equal values are. */
  readonly request: unknown;
  /** For what is made now. */
  readonly id: string;
}

/** Who makes a request, and the key that it may have sent. */
export function repeatableOf({ caller, headers }: FastifyRequest): Pick<Repeatable, "caller" | "key"> {
  const key = headers["idempotency-key"];
  return { caller: caller!.name, key: typeof key === "string" ? key : undefined };
}

/** What is made, and whether it was this time. */
export interface Made<R> {
  readonly record: R;
  readonly created: boolean;
}

/**
 * What the first request with the key has made, or what `make` makes. `find` answers undefined for what is gone, or not made yet: then it is
 * made again. Throws `idempotency_conflict` for a key that was used for another request.
 */
export async function madeOnce<R extends { readonly id: string }>(
  { idempotency }: Pick<ApiContext, "idempotency">,
  { caller, key, request, id }: Repeatable,
  find: (id: string) => Promise<R | undefined>,
  make: () => Promise<Made<R>>,
): Promise<Made<R>> {
  if (key === undefined) return make();
  const fingerprint = sha256Of(canonicalJson(request));
  const first = await idempotency.reserve(caller, key, fingerprint, id);
  const earlier = first === id ? undefined : await find(first);
  if (earlier !== undefined) return { record: earlier, created: false };
  try {
    const made = await make();
    await idempotency.settle(caller, key, fingerprint, made.record.id);
    return made;
  } catch (error) {
    if (first === id) await idempotency.release(caller, key).catch(() => {}); // It is for this request only, for a day.
    throw error;
  }
}
