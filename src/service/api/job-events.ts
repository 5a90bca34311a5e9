import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { JobEvent } from "../jobs/job.ts";

/** A comment this often keeps proxies from closing a quiet stream. */
const HEARTBEAT_MS = 15_000;
/** How long a client waits before it connects again. */
const RETRY_MS = 2_000;

/** Whether the client likes a stream of events better than a list, by the weights of its `Accept` (RFC 9110, 12.5.1). */
export function prefersStream({ headers: { accept = "*/*" } }: FastifyRequest): boolean {
  return weightOf("text/event-stream", accept) > weightOf("application/json", accept);
}

/** The q, from 0 to 1, that the most specific range in an `Accept` header gives to a media type. */
function weightOf(type: string, accept: string): number {
  const ranges = accept.split(",").map((range) => {
    const [name = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    const q = parameters.find((parameter) => parameter.startsWith("q="))?.slice(2);
    return { name, q: q === undefined ? 1 : Number(q) || 0 };
  });
  const names = [type, `${type.split("/")[0]}/*`, "*/*"];
  return names.map((name) => ranges.find((range) => range.name === name)?.q).find((q) => q !== undefined) ?? 0;
}

/**
 * Answers with server-sent events until the source ends, the client goes, or the service stops. `follow` is given a
 * signal that fires in the latter two cases.
 */
export function sendEvents(
  reply: FastifyReply,
  stopping: AbortSignal,
  follow: (signal: AbortSignal) => AsyncIterable<JobEvent>,
): FastifyReply {
  const gone = new AbortController();
  reply.raw.once("close", () => gone.abort());
  const signal = AbortSignal.any([gone.signal, stopping]);
  return reply
    .header("content-type", "text/event-stream")
    .header("cache-control", "no-cache, no-transform")
    .header("x-accel-buffering", "no")
    .send(Readable.from(messages(follow(signal), signal), { objectMode: false }));
}

async function* messages(events: AsyncIterable<JobEvent>, signal: AbortSignal): AsyncGenerator<string> {
  yield `retry: ${RETRY_MS}\n\n`;
  const iterator = events[Symbol.asyncIterator]();
  const heartbeat = createHeartbeat();
  try {
    let next = iterator.next();
    while (!signal.aborted) {
      const news = await Promise.race([next, heartbeat.tick()]);
      if (news === undefined) {
        yield ": still here\n\n";
        continue;
      }
      if (news.done === true) return;
      next = iterator.next();
      yield messageOf(news.value);
    }
  } finally {
    heartbeat.stop();
    await iterator.return?.();
  }
}

function messageOf(event: JobEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function createHeartbeat() {
  let timer: NodeJS.Timeout | undefined;
  return {
    /** Resolves after a quiet while; a new call starts it anew. */
    tick(): Promise<undefined> {
      clearTimeout(timer);
      return new Promise((resolve) => {
        timer = setTimeout(resolve, HEARTBEAT_MS, undefined);
      });
    },
    stop() {
      clearTimeout(timer);
    },
  };
}
