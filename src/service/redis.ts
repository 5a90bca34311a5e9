import { setTimeout as sleep } from "node:timers/promises";
import { Redis, type RedisOptions } from "ioredis";
import type { Logger } from "pino";
import { ServiceError } from "./errors.ts";

/**
 * The one place that knows how to talk to Redis. Every key of the service starts with `KEY_PREFIX`; the braces are a cluster
 * hash tag: all keys share one slot, so scripts may touch several of them.
 */
export const KEY_PREFIX = "{modelpress}";

/**
 * What a connection is for decides how it fails.
 * - `request`: somebody waits for the answer. While Redis is away every command fails at once, so the API can say 503.
 * - `worker`: nobody waits. Commands are kept and sent again when Redis is back; BullMQ demands this of its workers.
 * - `subscriber`: listens to channels. Who holds it subscribes whenever it is "ready", so it knows from when on it misses nothing.
 */
export type RedisRole = "request" | "worker" | "subscriber";

const COMMAND_TIMEOUT_MS = 5_000;
const READY_TIMEOUT_MS = 10_000;
const MAX_RECONNECT_DELAY_MS = 1_000;
/** While Redis is away every attempt to reconnect is an error; one line in this many ms is enough. */
const ERROR_LOG_INTERVAL_MS = 10_000;

/** A process whose clock differs more than this from the clock of Redis does not start: what it writes would be too new or too old. */
const MAX_CLOCK_SKEW_MS = 30_000;
const REFUSED_RETRY_MS = { first: 100, most: 2_000 };

const ROLES = {
  request: { enableOfflineQueue: false, maxRetriesPerRequest: 0, commandTimeout: COMMAND_TIMEOUT_MS },
  worker: { enableOfflineQueue: true, maxRetriesPerRequest: null },
  subscriber: { enableOfflineQueue: true, maxRetriesPerRequest: null, autoResubscribe: false },
} as const satisfies Record<RedisRole, RedisOptions>;

/**
 * Connects and resolves once commands can be sent. Rejects with `unavailable` when that takes longer than `readyTimeoutMs`,
 * and with the reason when the server can be reached but cannot be used (`checkRedis`).
 */
export async function openRedis(
  url: string,
  role: RedisRole,
  log: Logger,
  readyTimeoutMs: number = READY_TIMEOUT_MS,
): Promise<Redis> {
  const redis = new Redis(url, {
    ...ROLES[role],
    connectionName: `modelpress-${role}`,
    retryStrategy: (attempt) => Math.min(25 * 2 ** Math.min(attempt, 10), MAX_RECONNECT_DELAY_MS),
  });
  let lastError: Error | undefined;
  let loggedAt = Number.NEGATIVE_INFINITY;
  redis.on("error", (error: Error) => {
    lastError = error;
    if (performance.now() - loggedAt < ERROR_LOG_INTERVAL_MS) return;
    loggedAt = performance.now();
    log.warn({ role, err: error }, "Redis connection failed; trying again");
  });
  redis.on("ready", () => {
    if (lastError !== undefined) log.info({ role }, "Redis is reachable");
    lastError = undefined;
    loggedAt = Number.NEGATIVE_INFINITY;
  });
  try {
    await becomeReady(redis, readyTimeoutMs);
    if (role !== "subscriber") {
      await checkRedis(redis, log);
      await checkClock(redis);
    }
  } catch (error) {
    redis.disconnect();
    if (error instanceof ServiceError) throw error;
    throw new ServiceError(
      "unavailable",
      `Redis at ${withoutPassword(url)} cannot be reached: ${(lastError ?? (error as Error)).message}`,
      { cause: error },
    );
  }
  return redis;
}

/** A second connection to the same server, with the failure behaviour of `role`; it connects on its own. */
export function duplicateRedis(redis: Redis, role: RedisRole): Redis {
  const twin = redis.duplicate({ commandTimeout: undefined, ...ROLES[role], connectionName: `modelpress-${role}` });
  // The first connection logs that Redis is away; without a listener ioredis would print every attempt to stderr.
  twin.on("error", () => {});
  return twin;
}

/** Ends a connection after the answers that are on their way, or at once when Redis is away. */
export async function closeRedis(redis: Redis): Promise<void> {
  if (redis.status !== "ready") return redis.disconnect();
  await redis.quit().catch(() => redis.disconnect());
}

/**
 * Refuses a server that would lose jobs: one that evicts keys when its memory is full, or that is too old.
 * Throws `ServiceError("unavailable")`.
 */
async function checkRedis(redis: Redis, log: Logger): Promise<void> {
  const info = parseInfo(await redis.info());
  const version = info.redis_version ?? "0";
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major < 6 || (major === 6 && minor < 2)) {
    throw new ServiceError("unavailable", `Redis ${version} is too old: 6.2 or newer is needed.`);
  }
  const policy = info.maxmemory_policy;
  if (policy === undefined || policy === "noeviction") return;
  if (Number(info.maxmemory) > 0) {
    throw new ServiceError(
      "unavailable",
      `Redis may evict keys (maxmemory-policy is "${policy}"), so jobs could vanish: set it to "noeviction".`,
    );
  }
  log.warn(
    { policy },
    'Redis has no memory limit now, but would evict jobs with one: set maxmemory-policy to "noeviction"',
  );
}

/** The time by the clock of Redis, in ms: the one clock that decides about what expires. Those of the machines differ. */
export async function redisTime(redis: Redis): Promise<number> {
  const [seconds, microseconds] = (await fromRedis(redis.time())) as [number | string, number | string];
  return Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000);
}

/** The same in a script, as `now`. */
export const LUA_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)";

/** How far this process's clock is from that of Redis, in ms, at least: the time the question took is not held against it. */
async function clockSkewMs(redis: Redis, clock: () => number = Date.now): Promise<number> {
  const before = clock();
  const now = await redisTime(redis);
  const after = clock();
  if (now < before) return before - now;
  return now > after ? after - now : 0;
}

/** Throws `ServiceError("unavailable")` for a clock that is too far from that of Redis to work with. */
export async function checkClock(redis: Redis, clock: () => number = Date.now): Promise<void> {
  const skewMs = await clockSkewMs(redis, clock);
  if (Math.abs(skewMs) <= MAX_CLOCK_SKEW_MS) return;
  const seconds = Math.round(Math.abs(skewMs) / 1000);
  throw new ServiceError(
    "unavailable",
    `This machine's clock is ${seconds} s ${skewMs > 0 ? "ahead of" : "behind"} the clock of Redis, and may be ${MAX_CLOCK_SKEW_MS / 1000} s off: set the clocks (NTP).`,
    { retryAfterSeconds: 30 },
  );
}

/** Throws `ServiceError("unavailable")` unless Redis takes writes: one that is full, read-only or without its disk still answers PING. */
export async function checkWrites(redis: Redis): Promise<void> {
  await fromRedis(redis.set(`${KEY_PREFIX}:write-check`, "1", "EX", 60));
}

/**
 * Asks again while Redis is away or refuses, until it answers: for what must not be lost, on connections with role `worker`. Ends early,
 * with the last error, when `signal` fires.
 */
export async function untilAnswered<T>(ask: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let delayMs = REFUSED_RETRY_MS.first; ; delayMs = Math.min(2 * delayMs, REFUSED_RETRY_MS.most)) {
    try {
      return await ask();
    } catch (error) {
      if (!isRedisOutage(error) || signal?.aborted) throw error;
      await sleep(delayMs, undefined, signal && { signal }).catch(() => {});
    }
  }
}

/**
 * Replies that mean "not now": the server starts, is read-only, is full, or has lost its disk. Before Redis 7, those to a command in a
 * script come with the place in the script in front.
 */
const TRANSIENT_REPLY =
  /^(?:ERR Error running script.*: -?)?(LOADING|BUSY|READONLY|OOM|MISCONF|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS)\b/;
const CONNECTION_FAILURE =
  /Stream isn't writeable|Connection is closed|Command timed out|Command aborted due to connection close|max retries per request|ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH/;

/** Awaits Redis; a failure of the connection, or a reply that says "not now", becomes `ServiceError("unavailable")`. */
export async function fromRedis<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (!isRedisOutage(error)) throw error;
    const refusal = refusalOf(error);
    const message =
      refusal === undefined
        ? "The job store cannot be reached."
        : `The job store refuses to work now (Redis: ${refusal}).`;
    throw new ServiceError("unavailable", message, { cause: error, retryAfterSeconds: refusal === undefined ? 2 : 10 });
  }
}

/** Whether an error says that Redis is away, not that the command was wrong. */
export function isRedisOutage(error: unknown): boolean {
  if (error instanceof ServiceError) return error.code === "unavailable";
  if (!(error instanceof Error)) return false;
  return refusalOf(error) !== undefined || CONNECTION_FAILURE.test(error.message);
}

/** The name of the reply by which Redis said "not now"; undefined for other errors. */
function refusalOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const [, name] = TRANSIENT_REPLY.exec(error.message) ?? [];
  if (name !== undefined || !error.message.startsWith("EXECABORT")) return name;
  // Of a transaction: one of its commands was refused, and that is why.
  const causes = "previousErrors" in error && Array.isArray(error.previousErrors) ? error.previousErrors : [];
  return causes.map(refusalOf).find((cause) => cause !== undefined);
}

function becomeReady(redis: Redis, timeoutMs: number): Promise<void> {
  if (redis.status === "ready") return Promise.resolve();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    redis.once("ready", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function parseInfo(text: string): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1);
  }
  return fields;
}

function withoutPassword(url: string): string {
  return url.replace(/\/\/[^@/]*@/, "//***@");
}
