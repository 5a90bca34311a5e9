import { createHmac } from "node:crypto";
import type { Redis } from "ioredis";
import { sha256Of } from "../identity.ts";
import { fromRedis, KEY_PREFIX } from "../redis.ts";

/**
 * A secret for each receiver of webhooks, so that none can forge what another is told. They are derived from the service's own and from how often
 * they were changed: Redis holds counts, and nothing to sign with.
 */
export interface WebhookSecrets {
  /** The next secret of a caller's URL. What was signed with the one before is signed with both for a day. */
  rotate(owner: string, url: string): Promise<{ readonly secret: string; readonly previousUntil: string | null }>;
  /** What is signed with, the newest first; none before the first `rotate`. */
  of(owner: string, url: string): Promise<readonly string[]>;
}

/** A receiver has this long to learn of a new secret. */
const OVERLAP_MS = 24 * 60 * 60 * 1000;

const NOW = `local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)`;

/** KEYS: secrets of an owner. ARGV: url. Answers how often it was changed, and when it is now. */
const ROTATE = `
  ${NOW}
  local count = tonumber(string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '0 0', '^%d+')) + 1
  redis.call('HSET', KEYS[1], ARGV[1], count .. ' ' .. now)
  return { count, now }`;

/** KEYS: secrets of an owner. ARGV: url. Answers the count, and how long ago it was changed. */
const LOOK = `
  ${NOW}
  local kept = redis.call('HGET', KEYS[1], ARGV[1])
  if not kept then return false end
  local count, at = string.match(kept, '^(%d+) (%d+)$')
  return { tonumber(count), now - tonumber(at) }`;

/** `master`: the service's secret, `whsec_` and base64. */
export function createWebhookSecrets(redis: Redis, master: string): WebhookSecrets {
  const key = Buffer.from(master.slice("whsec_".length), "base64");
  const secretOf = (owner: string, url: string, count: number) =>
    `whsec_${createHmac("sha256", key)
      .update(JSON.stringify([owner, url, count]))
      .digest("base64")}`;
  const kept = (owner: string) => `${KEY_PREFIX}:webhook-secrets:${owner}`;
  return {
    async rotate(owner, url) {
      const [count, now] = (await fromRedis(redis.eval(ROTATE, 1, kept(owner), sha256Of(url)))) as [number, number];
      const previousUntil = count > 1 ? new Date(now + OVERLAP_MS).toISOString() : null;
      return { secret: secretOf(owner, url, count), previousUntil };
    },
    async of(owner, url) {
      const found = (await fromRedis(redis.eval(LOOK, 1, kept(owner), sha256Of(url)))) as [number, number] | null;
      if (found === null) return [];
      const [count, ageMs] = found;
      const counts = count > 1 && ageMs < OVERLAP_MS ? [count, count - 1] : [count];
      return counts.map((it) => secretOf(owner, url, it));
    },
  };
}
