import { once } from "node:events";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyReply, FastifyRequest } from "fastify";
import { ServiceError } from "../errors.ts";
import { ANYBODY } from "./api-keys.ts";
import type { Asker } from "./inspection-lane.ts";

/** A JSON body is small; a client that takes longer than this for it holds the connection on purpose. */
const JSON_BODY_TIMEOUT_MS = 30_000;
/** How long a refused upload may go on before the connection is cut: time for the client to read the answer. */
const DRAIN_MS = 2_000;

/** Cuts a connection whose (not streamed) body does not arrive. */
export function limitJsonBodyTime({ raw, routeOptions }: FastifyRequest): void {
  const hasBody = raw.headers["transfer-encoding"] !== undefined || Number(raw.headers["content-length"] ?? 0) > 0;
  if (!hasBody || routeOptions.config?.streamsBody === true) return;
  const timer = setTimeout(() => raw.complete || raw.socket.destroy(), JSON_BODY_TIMEOUT_MS);
  raw.once("close", () => clearTimeout(timer));
}

/**
 * For an answer that comes before the whole request has arrived (an upload that is refused): says that the connection
 * ends, sends the answer, and throws away what still comes for a moment. Closing at once would make the kernel reset
 * the connection, and a client that is still writing would never see the answer; reading on would let it push
 * gigabytes.
 */
export function endEarly(request: FastifyRequest, reply: FastifyReply, payload: unknown): unknown {
  const { raw } = request;
  if (raw.complete || typeof payload !== "string" || request.method === "HEAD") return payload;
  const body = Buffer.from(payload);
  reply.header("connection", "close").header("content-length", body.length);
  return Readable.from(
    (async function* () {
      yield body;
      raw.resume();
      const done = new AbortController();
      await Promise.race([
        once(raw, "close", { signal: done.signal }),
        sleep(DRAIN_MS, undefined, { signal: done.signal }),
      ]);
      done.abort();
    })(),
    { objectMode: false },
  );
}

/** Who makes a request, as one whose work ends when the client goes. Of those without a key each address is one. */
export function askerOf(request: FastifyRequest, reply: FastifyReply): Asker {
  const gone = new AbortController();
  reply.raw.once("close", () => gone.abort(new ServiceError("cancelled", "The client has gone.")));
  return { key: shareOf(request), signal: gone.signal };
}

/** The signal of what goes on without its client. */
export const UNTIL_IT_ENDS = new AbortController().signal;

/** Whose share of what all have a request takes: its key's, or without keys its address's. */
export function shareOf(request: FastifyRequest): string {
  return request.caller === undefined || request.caller === ANYBODY
    ? `address ${request.ip}`
    : `key ${request.caller.name}`;
}
