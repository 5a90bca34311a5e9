import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { pino } from "pino";
import { closeRedis, openRedis } from "../../src/service/redis.ts";
import { startPrivateRedis } from "../../src/service/redis-server.ts";

/** A redis-server of the test's own, and a connection to it. */
export async function startTestRedis(): Promise<{ redis: Redis; url: string; close: () => Promise<void> }> {
  const log = pino({ level: "silent" });
  const dataDir = await mkdtemp(join(tmpdir(), "test-redis-"));
  const server = await startPrivateRedis({ dataDir, log });
  const redis = await openRedis(server.url, "request", log);
  return {
    redis,
    url: server.url,
    close: async () => {
      await closeRedis(redis);
      await server.close();
      await rm(dataDir, { recursive: true });
    },
  };
}
