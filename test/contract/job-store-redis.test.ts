import { after } from "node:test";
import { createRedisJobStore } from "../../src/service/jobs/redis-job-store.ts";
import { startTestRedis } from "../support/redis.ts";
import { testJobStore } from "./job-store.ts";

const server = await startTestRedis();
const opened: { close(): void }[] = [];
after(async () => {
  for (const store of opened) store.close();
  await server.close();
});

testJobStore("redis", async () => {
  await server.redis.flushdb();
  const store = createRedisJobStore(server.redis);
  opened.push(store);
  return store;
});
