import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import type { LongTexts } from "../blobs/long-texts.ts";
import { ServiceError } from "../errors.ts";
import { matches, scanPage } from "../list-filter.ts";
import { itemsThatFit } from "../pages.ts";
import { fromRedis, isRedisOutage, KEY_PREFIX } from "../redis.ts";
import { createEventFeed } from "./event-feed.ts";
import { isTerminal, JOB_STATUSES, type JobEvent, type JobStatus, TRANSITIONS } from "./job.ts";
import { createJobEnds } from "./job-ends.ts";
import { askedFields, askedOfResult, createJobHash, LISTED_FIELDS, summaryText } from "./job-hash.ts";
import { withJobScripts } from "./job-scripts.ts";
import type { JobFilter, JobRecord, JobStore, JobSummary } from "./job-store.ts";

/** How long an idempotency key is remembered. */
const IDEMPOTENCY_TTL_S = 24 * 60 * 60;
const TERMINAL = JSON.stringify(JOB_STATUSES.filter(isTerminal));
/** While Redis is away a follower looks again this often. */
const FOLLOW_RETRY_MS = 1_000;
/** What a follower reads at once. */
const FOLLOW_BATCH = 200;

export interface JobStoreOptions {
  /** Jobs that there may be, finished ones too. */
  readonly maxRecords?: number;
  readonly prefix?: string;
}

/** The job store of one process. `close` ends its subscription; the connection stays the caller's. */
export function createRedisJobStore(
  connection: Redis,
  /** Where long fields of records go. */
  texts: LongTexts,
  { maxRecords = Number.MAX_SAFE_INTEGER, prefix = KEY_PREFIX }: JobStoreOptions = {},
): JobStore & { close(): void } {
  const redis = withJobScripts(connection);
  const hash = createJobHash(texts);
  const feed = createEventFeed(connection, `${prefix}:events`);
  const ends = createJobEnds(feed, async (id) => {
    const status = await fromRedis(redis.hget(keyOf(id), "_status"));
    return status === null || isTerminal(status as JobStatus);
  });
  const totals = `${prefix}:totals`;
  const keyOf = (id: string) => `${prefix}:job:${id}`;

  async function countRunTime({ started_at, finished_at }: JobRecord): Promise<void> {
    if (started_at === null || finished_at === null) return;
    const seconds = (Date.parse(finished_at) - Date.parse(started_at)) / 1000;
    // Only a number to look at: the job has ended whether it is counted or not.
    await redis.hincrbyfloat(totals, RUN_SECONDS, seconds).catch(() => {});
  }

  async function setWhileRunning(
    id: string,
    attempt: number,
    field: keyof JobRecord,
    value: unknown,
  ): Promise<boolean> {
    const [, text] = await hash.encode(id, { [field]: value });
    const set = redis.jobSet(keyOf(id), prefix, id, "running", attempt, field, text!);
    const isSet = (await fromRedis(set)) === 1;
    await hash.settle(id, [text!]);
    return isSet;
  }

  /** The text of what lists tell of a job; undefined when it is gone. */
  async function summaryOf(id: string): Promise<string | undefined> {
    const values = await fromRedis(redis.hmget(keyOf(id), ...LISTED_FIELDS));
    return summaryText(values, () => store.get(id));
  }

  /** See `JobStore.follow`. */
  async function* follow(id: string, afterId: number, signal: AbortSignal): AsyncGenerator<JobEvent> {
    let news = Promise.withResolvers<void>();
    const wake = () => news.resolve();
    signal.addEventListener("abort", wake);
    // Before the first read: an event is either read, or wakes the loop up, or both.
    const unsubscribe = feed.subscribe(id, wake);
    try {
      let last = afterId;
      for (let reads = 0; !signal.aborted; reads++) {
        news = Promise.withResolvers();
        try {
          // In this order: the log of a job that is finished now is complete.
          const status = await fromRedis(redis.hget(keyOf(id), "_status"));
          const { data: events, more } = await store.events(id, last, FOLLOW_BATCH);
          for (const event of events) {
            yield event;
            last = event.id;
          }
          if (more) continue;
          if (status === null || isTerminal(status as JobStatus)) return;
        } catch (error) {
          if (reads === 0 || !isRedisOutage(error)) throw error;
          await sleep(FOLLOW_RETRY_MS, undefined, { signal }).catch(() => {});
          continue;
        }
        if (!signal.aborted) await news.promise;
      }
    } finally {
      signal.removeEventListener("abort", wake);
      unsubscribe();
    }
  }

  const store: JobStore = {
    async create(job, idempotency) {
      const { status, ...rest } = job;
      // A few more that come at the same moment do no harm.
      if ((await fromRedis(redis.zcard(indexOf(prefix, {})))) >= maxRecords) {
        throw new ServiceError("quota_exceeded", `There are ${maxRecords} jobs already: delete some.`);
      }
      const fields = [...(await hash.encode(job.id, rest)), ...askedFields(job)];
      const id = await fromRedis(
        redis.jobCreate(
          keyOf(job.id),
          ...[prefix, job.id, JSON.stringify(fields), status],
          ...[
            eventText("status", { status }),
            idempotency?.key ?? "",
            idempotency?.fingerprint ?? "",
            IDEMPOTENCY_TTL_S,
          ],
        ),
      );
      if (id === job.id) {
        await hash.settle(id, fields);
        return { job, created: true };
      }
      await hash.release(job.id);
      if (id === "conflict") {
        throw new ServiceError("idempotency_conflict", "This Idempotency-Key was used for a different request.");
      }
      const earlier = await store.get(id as string);
      if (earlier === undefined)
        throw new ServiceError("conflict", "The job of this Idempotency-Key is being deleted.");
      return { job: earlier, created: false };
    },

    async get(id) {
      return hash.decode(await fromRedis(redis.hgetall(keyOf(id))));
    },

    async rename(id, { name, metadata }) {
      const texts = [JSON.stringify(name), JSON.stringify(metadata)];
      return (await fromRedis(redis.jobRename(keyOf(id), prefix, id, ...texts))) === 1 ? store.get(id) : undefined;
    },

    async list(filter, { limit, cursor }) {
      const index = indexOf(prefix, filter);
      const { data, last } = await scanPage<JobSummary>({
        limit,
        start: cursor === undefined ? "+" : `(${parseCursor(cursor)}`,
        read: (from, count) => fromRedis(redis.zrange(index, from, "-", "BYLEX", "REV", "LIMIT", 0, count)),
        // A record that was deleted since leaves a gap, not an error.
        summariesOf: (members) => Promise.all(members.map((member) => summaryOf(idOf(member)))),
        isWanted: (summary) => matches(filter, summary),
      });
      return { data, next_cursor: last === null ? null : Buffer.from(last).toString("base64url") };
    },

    async transition(id, from, to, patch = {}, guard = {}) {
      for (const status of from) {
        if (!(TRANSITIONS[status] as readonly JobStatus[]).includes(to)) {
          throw new ServiceError("internal", `A job cannot go from ${status} to ${to}.`);
        }
      }
      const { attempt, error, result } = patch;
      const event = { status: to, ...(attempt !== undefined && { attempt }), ...(error && { error }) };
      const fields = await hash.encode(id, patch);
      if (result) fields.push(...askedOfResult(result));
      const reply = await fromRedis(
        redis.jobTransition(
          keyOf(id),
          ...[prefix, id, JSON.stringify(from), to, isTerminal(to) ? 1 : 0, guard.attempt ?? ""],
          ...[JSON.stringify(fields), eventText("status", event)],
        ),
      );
      await hash.settle(id, fields);
      const job = reply === null ? undefined : await hash.decode(pairs(reply as string[]));
      if (job !== undefined && isTerminal(to)) await countRunTime(job);
      if (job !== undefined && patch.handed_back !== undefined)
        await redis.hincrby(totals, HANDED_BACK, 1).catch(() => {});
      return job;
    },

    async setProgress(id, progress) {
      const event = eventText("progress", { ...progress });
      const text = JSON.stringify(progress);
      await fromRedis(
        redis.jobLog(keyOf(id), prefix, id, "running", "progress", text, event, `progress ${progress.step}`),
      );
    },

    setCheckpoints: (id, attempt, checkpoints) => setWhileRunning(id, attempt, "checkpoints", checkpoints),
    setSteps: (id, attempt, steps) => setWhileRunning(id, attempt, "steps", steps),

    async setDelivery(id, delivery, log) {
      const [text, event] = [JSON.stringify(delivery), eventText("log", log)];
      await fromRedis(redis.jobLog(keyOf(id), prefix, id, "", "delivery", text, event, ""));
    },

    async appendEvent(id, type, data) {
      await fromRedis(redis.jobLog(keyOf(id), prefix, id, "", "", "", eventText(type, data), ""));
    },

    async events(id, afterId, limit) {
      const stream = `${keyOf(id)}:events`;
      const entries = await fromRedis(redis.xrange(stream, `${afterId + 1}-0`, "+", "COUNT", limit + 1));
      const count = itemsThatFit(entries.slice(0, limit).map(([, fields]) => Buffer.byteLength(fields[1] ?? "")));
      const data = entries.slice(0, count).map(([streamId, fields]) => {
        const { at, type, data } = JSON.parse(fields[1] ?? "");
        return { id: Number.parseInt(streamId, 10), at, type, data };
      });
      return { data, more: entries.length > count };
    },

    follow,

    async tellAgain(id) {
      return (await fromRedis(redis.jobTellAgain(keyOf(id), prefix, id, TERMINAL))) === 1;
    },

    ended: (id, signal) => ends.wait(id, signal),

    async delete(id) {
      const isGone = (await fromRedis(redis.jobDelete(keyOf(id), prefix, id, TERMINAL))) === 1;
      if (isGone) await hash.release(id);
      return isGone;
    },

    async activeUsers(resourceId) {
      return fromRedis(redis.smembers(`${prefix}:uses:${resourceId}`));
    },

    async totals() {
      const [succeeded, failed, cancelled, seconds, handedBack] = await fromRedis(
        redis.hmget(totals, "succeeded", "failed", "cancelled", RUN_SECONDS, HANDED_BACK),
      );
      return {
        succeeded: Number(succeeded),
        failed: Number(failed),
        cancelled: Number(cancelled),
        runSeconds: Number(seconds),
        handedBack: Number(handedBack),
      };
    },

    async active(status) {
      return (await fromRedis(redis.zrange(indexOf(prefix, { status }), 0, "-1"))).map(idOf);
    },

    async finishedBefore(statuses, time, limit) {
      const found: string[] = [];
      for (const status of statuses) {
        const index = indexOf(prefix, { status });
        found.push(...(await fromRedis(redis.zrange(index, "-", `(${time}`, "BYLEX", "LIMIT", 0, limit))));
      }
      return found.sort().slice(0, limit).map(idOf);
    },
  };
  return { ...store, close: () => feed.close() };
}

const RUN_SECONDS = "run_seconds";
const HANDED_BACK = "handed_back";

function idOf(member: string): string {
  return member.slice(member.indexOf("/") + 1);
}

function indexOf(prefix: string, filter: JobFilter): string {
  const part = (value: string | undefined) => (value === undefined ? "*" : `=${value}`);
  return `${prefix}:jobs:${part(filter.status)}:${part(filter.type)}:${part(filter.model_id)}`;
}

function parseCursor(cursor: string): string {
  const member = Buffer.from(cursor, "base64url").toString();
  if (!/^\d{4}-\d\d-\d\dT[\d:.]+Z\/[\w-]+$/.test(member)) {
    throw new ServiceError("invalid_request", "The cursor is not one that this list has returned.");
  }
  return member;
}

function pairs(flat: readonly string[]): Record<string, string> {
  const hash: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) hash[flat[i]!] = flat[i + 1]!;
  return hash;
}

function eventText(type: JobEvent["type"], data: JobEvent["data"]): string {
  return JSON.stringify({ at: new Date().toISOString(), type, data });
}
