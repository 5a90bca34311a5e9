import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { closeRedis, openRedis, type RedisRole } from "../../src/service/redis.ts";
import { type PrivateRedis, startPrivateRedis } from "../../src/service/redis-server.ts";

export interface TestRedis {
  readonly server: PrivateRedis;
  readonly url: string;
  /** A connection with role `request`. */
  readonly redis: Redis;
  open(role: RedisRole): Promise<Redis>;
  /** Ends every connection that was opened here, and the server. */
  close(): Promise<void>;
}

/** A redis-server of the test's own, and a connection to it. */
export async function startTestRedis(): Promise<TestRedis> {
  const log = pino({ level: "silent" });
  const dataDir = await mkdtemp(join(tmpdir(), "test-redis-"));
  const server = await startPrivateRedis({ dataDir, log });
  const opened: Redis[] = [];
  const open = async (role: RedisRole) => {
    const redis = await openRedis(server.url, role, log);
    opened.push(redis);
    return redis;
  };
  return {
    server,
    url: server.url,
    redis: await open("request"),
    open,
    close: async () => {
      await Promise.all(opened.map(closeRedis));
      await server.close();
      await rm(dataDir, { recursive: true });
    },
  };
}
