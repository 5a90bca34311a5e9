import type { Redis } from "ioredis";

/**
 * The steps on job records that must be atomic, as Lua. What Redis keeps (P is the key prefix):
 *
 *   P:job:<id>                        hash: one JSON text per field of the record; fields that start with _ are the store's own
 *   P:job:<id>:events                 stream: event n has the id n-0
 *   P:jobs:<status>:<type>:<model>    sorted set, all scores 0, of "<created_at>/<id>": each part is =value, or * for any. A job is in
 *                                     all 8 combinations, so every filter reads one index in order, and no more than a page of it
 *   P:uses:<model or dataset id>      set: the unfinished jobs that read it
 *   P:idempotency:<key>               the fingerprint and the job's id; expires
 *   P:totals                          hash: how many jobs have ended in each status, and the seconds they ran; deleted jobs count, too
 *   P:webhooks                        list: what somebody asked to be told of: the id of a job that has ended, or "<id> running <attempt>"
 *   P:deliveries                      list: jobs that have succeeded, an artifact of which is to be delivered
 *   P:events                          channel: the id of a job that has a new event
 *
 * Lua never sees inside the JSON (cjson turns [] into {}): values come and go as text.
 */
const PRELUDE = `
local key, prefix, id = KEYS[1], ARGV[1], ARGV[2]

local function indexes(statuses, apply)
  local job = redis.call("HMGET", key, "_type", "_model", "_order")
  local models = { "*" }
  if job[2] then models[2] = "=" .. job[2] end
  for _, status in ipairs(statuses) do
    for _, type in ipairs({ "*", "=" .. job[1] }) do
      for _, model in ipairs(models) do
        apply(prefix .. ":jobs:" .. status .. ":" .. type .. ":" .. model, job[3])
      end
    end
  end
end
local function add(index, member) redis.call("ZADD", index, 0, member) end
local function take(index, member) redis.call("ZREM", index, member) end

local function uses(command)
  for _, resource in ipairs(cjson.decode(redis.call("HGET", key, "_resources"))) do
    redis.call(command, prefix .. ":uses:" .. resource, id)
  end
end

-- Puts what the job has become on the list of webhooks, if somebody has asked for it; answers whether.
local function tell(status)
  local webhook = redis.call("HGET", key, "_webhook")
  if not webhook or not string.find(webhook, " job." .. status .. " ", 1, true) then return 0 end
  local what = id
  if status == "running" then what = id .. " running " .. redis.call("HGET", key, "attempt") end
  redis.call("RPUSH", prefix .. ":webhooks", what)
  return 1
end

-- A run of progress events of one step (the same, non-empty coalesce) keeps its newest only: progress is a state, not a history.
local function log(event, coalesce)
  local number = redis.call("HINCRBY", key, "_events", 1)
  if coalesce ~= "" and redis.call("HGET", key, "_tail") == coalesce then
    redis.call("XDEL", key .. ":events", (number - 1) .. "-0")
  end
  redis.call("HSET", key, "_tail", coalesce)
  redis.call("XADD", key .. ":events", "MAXLEN", "~", 10000, number .. "-0", "event", event)
  redis.call("PUBLISH", prefix .. ":events", id)
end
`;

const SCRIPTS = {
  /** prefix, id, fields (JSON list of name, text, …), status, resources (JSON list), event, idempotency key or "", fingerprint, ttl in s → id of the job that counts, or "conflict" */
  jobCreate: `
local fields, status, event, idempotency, fingerprint, ttl = cjson.decode(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if idempotency ~= "" then
  local used = prefix .. ":idempotency:" .. idempotency
  local earlier = redis.call("HMGET", used, "id", "fingerprint")
  if earlier[1] and redis.call("EXISTS", prefix .. ":job:" .. earlier[1]) == 1 then
    if earlier[2] ~= fingerprint then return "conflict" end
    return earlier[1]
  end
  redis.call("HSET", used, "id", id, "fingerprint", fingerprint)
  redis.call("EXPIRE", used, ttl)
end
redis.call("HSET", key, "_status", status, unpack(fields))
indexes({ "*", "=" .. status }, add)
uses("SADD")
log(event, "")
return id`,

  /** prefix, id, from (JSON list), to, terminal (1 or 0), attempt or "", fields (JSON list), event → the hash, or nothing */
  jobTransition: `
local from, to, terminal, attempt, fields, event = cjson.decode(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], cjson.decode(ARGV[7]), ARGV[8]
local status = redis.call("HGET", key, "_status")
local legal = false
for _, candidate in ipairs(from) do legal = legal or candidate == status end
if not legal then return false end
if attempt ~= "" and redis.call("HGET", key, "attempt") ~= attempt then return false end
redis.call("HSET", key, "_status", to, unpack(fields))
indexes({ "=" .. status }, take)
indexes({ "=" .. to }, add)
if terminal == "1" then
  uses("SREM")
  redis.call("HINCRBY", prefix .. ":totals", to, 1)
end
tell(to)
if to == "succeeded" and redis.call("HEXISTS", key, "_deliver") == 1 then redis.call("RPUSH", prefix .. ":deliveries", id) end
log(event, "")
return redis.call("HGETALL", key)`,

  /** prefix, id, status it must have or "", field or "", text, event, coalesce → 1, or 0 when there is no such job */
  jobLog: `
local status, field, text, event, coalesce = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local now = redis.call("HGET", key, "_status")
if not now or (status ~= "" and status ~= now) then return 0 end
if field ~= "" then redis.call("HSET", key, field, text) end
log(event, coalesce)
return 1`,

  /** prefix, id, status it must have, attempt it must be in, field, text → 1, or 0 when it is otherwise */
  jobSet: `
local status, attempt, field, text = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local now = redis.call("HMGET", key, "_status", "attempt")
if now[1] ~= status or now[2] ~= attempt then return 0 end
redis.call("HSET", key, field, text)
return 1`,

  /** prefix, id, terminal statuses (JSON list) → 1 when the job's end will be told again, 0 when nobody asked for it, or it has not ended */
  jobTellAgain: `
local status = redis.call("HGET", key, "_status")
for _, candidate in ipairs(cjson.decode(ARGV[3])) do
  if candidate == status then return tell(status) end
end
return 0`,

  /** prefix, id, name, metadata → 1, or 0 when there is no such job */
  jobRename: `
if redis.call("EXISTS", key) == 0 then return 0 end
redis.call("HSET", key, "name", ARGV[3], "metadata", ARGV[4])
return 1`,

  /** prefix, id, terminal statuses (JSON list) → 1 when the job is gone, 0 when it is not finished */
  jobDelete: `
local status = redis.call("HGET", key, "_status")
if not status then return 1 end
local finished = false
for _, candidate in ipairs(cjson.decode(ARGV[3])) do finished = finished or candidate == status end
if not finished then return 0 end
indexes({ "*", "=" .. status }, take)
redis.call("DEL", key, key .. ":events")
redis.call("PUBLISH", prefix .. ":events", id)
return 1`,
} as const;

/** The scripts as commands: the job's key, then the arguments listed above. */
export type JobScripts = {
  readonly [K in keyof typeof SCRIPTS]: (key: string, ...args: (string | number)[]) => Promise<unknown>;
};

/** Teaches a connection the scripts; they are sent once and then called by their hash. */
export function withJobScripts(redis: Redis): Redis & JobScripts {
  for (const [name, lua] of Object.entries(SCRIPTS)) {
    redis.defineCommand(name, { numberOfKeys: 1, lua: PRELUDE + lua });
  }
  return redis as Redis & JobScripts;
}
