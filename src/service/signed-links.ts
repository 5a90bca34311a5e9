import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Redis } from "ioredis";
import { ServiceError } from "./errors.ts";
import { fromRedis, KEY_PREFIX } from "./redis.ts";

/**
 * Links that open one file of one job without a key, until a time: who may read the file can hand it on to a browser, a chat, or somebody who
 * has no key. What they open is signed with them, so that a link for one file opens no other one.
 */
export interface SignedLinks {
  /** The query that opens an artifact until then, to the second. */
  sign(file: LinkedFile, until: Date): Promise<string>;
  /** Throws `invalid_link` for a query that does not open this file, or not any more. */
  check(file: LinkedFile, query: Readonly<Record<string, unknown>>): Promise<void>;
}

export interface LinkedFile {
  readonly jobId: string;
  readonly artifact: string;
}

const SECRET = `${KEY_PREFIX}:link-secret`;

/** Whether somebody comes by a link. */
export function isLink(query: unknown): query is Readonly<Record<string, unknown>> {
  return typeof query === "object" && query !== null && ("signature" in query || "expires" in query);
}

/** `configured`: what to sign with; null makes a secret that all processes find in Redis, which knows every job anyway. */
export function createSignedLinks(redis: Redis, configured: string | null): SignedLinks {
  let secret = configured;

  async function signatureOf({ jobId, artifact }: LinkedFile, expires: string): Promise<Buffer> {
    if (secret === null) {
      await fromRedis(redis.set(SECRET, randomBytes(32).toString("base64"), "NX"));
      secret = await fromRedis(redis.get(SECRET));
    }
    return createHmac("sha256", secret!)
      .update(JSON.stringify(["job file", jobId, artifact, expires]))
      .digest();
  }

  return {
    async sign(file, until) {
      const expires = String(Math.floor(until.getTime() / 1000));
      const signature = (await signatureOf(file, expires)).toString("base64url");
      return `expires=${expires}&signature=${signature}`;
    },
    async check(file, { expires, signature }) {
      const given = Buffer.from(typeof signature === "string" ? signature : "", "base64url");
      const right = await signatureOf(file, String(expires));
      if (given.length !== right.length || !timingSafeEqual(given, right)) {
        throw new ServiceError("invalid_link", "The signature of this link is not for this file and this time.");
      }
      if (Number(expires) * 1000 <= Date.now()) {
        const then = new Date(Number(expires) * 1000).toISOString();
        throw new ServiceError("invalid_link", `The link has expired at ${then}.`);
      }
    },
  };
}
