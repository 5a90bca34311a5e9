import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { ServiceError } from "../errors.ts";
import { fromRedis, isRedisOutage, KEY_PREFIX } from "../redis.ts";
import { createEventFeed } from "./event-feed.ts";
import { isTerminal, JOB_STATUSES, type JobEvent, type JobStatus, TRANSITIONS } from "./job.ts";
import { withJobScripts } from "./job-scripts.ts";
import type { JobFilter, JobRecord, JobStore } from "./job-store.ts";
import { resourcesOf } from "./resources.ts";
import { sourceModelId } from "./spec.ts";

/** How long an idempotency key is remembered. */
const IDEMPOTENCY_TTL_S = 24 * 60 * 60;
const TERMINAL = JSON.stringify(JOB_STATUSES.filter(isTerminal));
/** While Redis is away a follower looks again this often. */
const FOLLOW_RETRY_MS = 1_000;

/** The job store of one process. `close` ends its subscription; the connection stays the caller's. */
export function createRedisJobStore(connection: Redis, prefix: string = KEY_PREFIX): JobStore & { close(): void } {
  const redis = withJobScripts(connection);
  const feed = createEventFeed(connection, `${prefix}:events`);
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
    const set = redis.jobSet(keyOf(id), prefix, id, "running", attempt, field, JSON.stringify(value));
    return (await fromRedis(set)) === 1;
  }

  const store: JobStore = {
    async create(job, idempotency) {
      const { status, ...rest } = job;
      const { models, datasets } = resourcesOf(job.spec);
      const fields = [
        ...encode(rest),
        ...["_order", orderOf(job)],
        ...["_type", job.spec.type],
        ...["_model", sourceModelId(job.spec)],
        ...(job.webhook === null ? [] : ["_webhook", ` ${job.webhook.events.join(" ")} `]),
        ...["_resources", JSON.stringify([...models, ...datasets])],
      ];
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
      if (id === "conflict") {
        throw new ServiceError("idempotency_conflict", "This Idempotency-Key was used for a different request.");
      }
      if (id === job.id) return { job, created: true };
      const earlier = await store.get(id as string);
      if (earlier === undefined)
        throw new ServiceError("conflict", "The job of this Idempotency-Key is being deleted.");
      return { job: earlier, created: false };
    },

    async get(id) {
      return decode(await fromRedis(redis.hgetall(keyOf(id))));
    },

    async list(filter, { limit, cursor }) {
      const before = cursor === undefined ? "+" : `(${parseCursor(cursor)}`;
      const index = indexOf(prefix, filter);
      const members = await fromRedis(redis.zrange(index, before, "-", "BYLEX", "REV", "LIMIT", 0, limit + 1));
      const page = members.slice(0, limit);
      // A record that was deleted since leaves a gap, not an error.
      const records = await Promise.all(page.map((member) => store.get(idOf(member))));
      const last = page.at(-1);
      return {
        data: records.filter((record) => record !== undefined),
        next_cursor: members.length > limit && last !== undefined ? Buffer.from(last).toString("base64url") : null,
      };
    },

    async transition(id, from, to, patch = {}, guard = {}) {
      for (const status of from) {
        if (!(TRANSITIONS[status] as readonly JobStatus[]).includes(to)) {
          throw new ServiceError("internal", `A job cannot go from ${status} to ${to}.`);
        }
      }
      const { attempt, error } = patch;
      const event = { status: to, ...(attempt !== undefined && { attempt }), ...(error && { error }) };
      const reply = await fromRedis(
        redis.jobTransition(
          keyOf(id),
          ...[prefix, id, JSON.stringify(from), to, isTerminal(to) ? 1 : 0, guard.attempt ?? ""],
          ...[JSON.stringify(encode(patch)), eventText("status", event)],
        ),
      );
      const job = reply === null ? undefined : decode(pairs(reply as string[]));
      if (job !== undefined && isTerminal(to)) await countRunTime(job);
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

    async appendEvent(id, type, data) {
      await fromRedis(redis.jobLog(keyOf(id), prefix, id, "", "", "", eventText(type, data), ""));
    },

    async events(id, afterId) {
      const entries = await fromRedis(redis.xrange(`${keyOf(id)}:events`, `${afterId + 1}-0`, "+"));
      return entries.map(([streamId, fields]) => {
        const { at, type, data } = JSON.parse(fields[1] ?? "");
        return { id: Number.parseInt(streamId, 10), at, type, data };
      });
    },

    async *follow(id, afterId, signal) {
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
            const events = await store.events(id, last);
            for (const event of events) {
              yield event;
              last = event.id;
            }
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
    },

    async delete(id) {
      return (await fromRedis(redis.jobDelete(keyOf(id), prefix, id, TERMINAL))) === 1;
    },

    async activeUsers(resourceId) {
      return fromRedis(redis.smembers(`${prefix}:uses:${resourceId}`));
    },

    async totals() {
      const [succeeded, failed, cancelled, seconds] = await fromRedis(
        redis.hmget(totals, "succeeded", "failed", "cancelled", RUN_SECONDS),
      );
      return {
        succeeded: Number(succeeded),
        failed: Number(failed),
        cancelled: Number(cancelled),
        runSeconds: Number(seconds),
      };
    },

    async active(status) {
      return (await fromRedis(redis.zrange(indexOf(prefix, { status }), 0, "-1"))).map(idOf);
    },

    async finishedBefore(time, limit) {
      const found: string[] = [];
      for (const status of JOB_STATUSES.filter(isTerminal)) {
        const index = indexOf(prefix, { status });
        found.push(...(await fromRedis(redis.zrange(index, "-", `(${time}`, "BYLEX", "LIMIT", 0, limit))));
      }
      return found.sort().slice(0, limit).map(idOf);
    },
  };
  return { ...store, close: () => feed.close() };
}

const RUN_SECONDS = "run_seconds";

/** Newest first is descending text: an ISO time is as wide as any other. */
function orderOf(job: JobRecord): string {
  return `${job.created_at}/${job.id}`;
}

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

function encode(fields: Partial<JobRecord>): string[] {
  return Object.entries(fields).flatMap(([name, value]) => [name, JSON.stringify(value)]);
}

/** The record behind a hash; undefined for the empty hash of a job that does not exist. */
function decode(hash: Record<string, string>): JobRecord | undefined {
  if (hash._status === undefined) return undefined;
  const own = Object.entries(hash).filter(([name]) => !name.startsWith("_"));
  const record = Object.fromEntries(own.map(([name, text]) => [name, JSON.parse(text)]));
  // Jobs of versions before pipelines have no steps.
  return { steps: [], ...record, status: hash._status } as unknown as JobRecord;
}

function pairs(flat: readonly string[]): Record<string, string> {
  const hash: Record<string, string> = {};
  for (let i = 0; i + 1 < flat.length; i += 2) hash[flat[i]!] = flat[i + 1]!;
  return hash;
}

function eventText(type: JobEvent["type"], data: JobEvent["data"]): string {
  return JSON.stringify({ at: new Date().toISOString(), type, data });
}
