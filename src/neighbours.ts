import { join } from "node:path";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { Config } from "./config.ts";
import { keepFreeOfLeftovers } from "./leftovers.ts";
import { openRedis } from "./service/redis.ts";
import { openSandbox, type Sandbox } from "./tasks/sandbox.ts";

/** The other processes that the API works with. It asks for them first, and loads its own program while they answer. */
export interface Neighbours {
  readonly redis: Redis;
  readonly sandbox: Sandbox;
  /** Where children have their rooms. */
  readonly scratchDir: string;
}

export const INSPECT_ENTRY = new URL("../workers/child.ts", import.meta.url);

/** Rejects, with the reason, when one of them cannot be used. */
export async function openNeighbours(config: Config, redisUrl: string, log: Logger): Promise<Neighbours> {
  const scratchDir = join(config.dataDir, "scratch");
  await keepFreeOfLeftovers(scratchDir);
  const [redis, sandbox] = await Promise.all([
    openRedis(redisUrl, "request", log),
    openSandbox({ wanted: config.sandbox, entry: INSPECT_ENTRY, directory: scratchDir, log }),
  ]);
  return { redis, sandbox, scratchDir };
}
