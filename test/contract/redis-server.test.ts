import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pino } from "pino";
import { ServiceError } from "../../src/service/errors.ts";
import { checkClock, closeRedis, fromRedis, openRedis } from "../../src/service/redis.ts";
import { startPrivateRedis } from "../../src/service/redis-server.ts";

const log = pino({ level: "silent" });
const dataDir = await mkdtemp(join(tmpdir(), "modelpress-redis-"));
after(() => rm(dataDir, { recursive: true, force: true }));

test("a killed redis-server is started again with what it had, and callers hear unavailable meanwhile", async () => {
  const server = await startPrivateRedis({ dataDir, log });
  const redis = await openRedis(server.url, "request", log);
  await redis.set("kept", "yes");
  const firstPid = server.pid;

  process.kill(firstPid, "SIGKILL");
  await new Promise((resolve) => redis.once("close", resolve));
  const asked = performance.now();
  await assert.rejects(
    fromRedis(redis.get("kept")),
    (error) => error instanceof ServiceError && error.code === "unavailable",
  );
  assert.ok(performance.now() - asked < 50, "a request connection fails at once, it does not wait for Redis");

  await new Promise((resolve) => redis.once("ready", resolve));
  assert.equal(await redis.get("kept"), "yes");
  assert.notEqual(server.pid, firstPid);
  await closeRedis(redis);
  await server.close();
  await assert.rejects(openRedis(server.url, "request", log, 300), {
    code: "unavailable",
    message: /127\.0\.0\.1:\d+ cannot be reached/,
  });
});

test("what was written is there after an orderly restart", async () => {
  const again = await startPrivateRedis({ dataDir, log });
  const redis = await openRedis(again.url, "request", log);
  assert.equal(await redis.get("kept"), "yes");
  await closeRedis(redis);
  await again.close();
});

test("a second owner of the same directory is refused", async () => {
  const first = await startPrivateRedis({ dataDir, log });
  await assert.rejects(startPrivateRedis({ dataDir, log }), { code: "unavailable", message: /Another modelpress/ });
  await first.close();
});

test("who does not know the password is refused", async () => {
  const server = await startPrivateRedis({ dataDir, log });
  const stranger = new URL(server.url);
  stranger.password = "";
  await assert.rejects(openRedis(stranger.href, "request", log, 500), { code: "unavailable" });
  await server.close();
});

test("a directory that cannot be used is a clear error", async () => {
  const file = join(dataDir, "file");
  await writeFile(file, "");
  await assert.rejects(startPrivateRedis({ dataDir: join(file, "below"), log }));
});

test("an evicting redis with a memory limit is refused", async () => {
  const server = await startPrivateRedis({ dataDir, log });
  const redis = await openRedis(server.url, "request", log);
  await redis.config("SET", "maxmemory-policy", "allkeys-lru");
  await closeRedis(await openRedis(server.url, "request", log)); // no limit: only a warning
  await redis.config("SET", "maxmemory", "100mb");
  await assert.rejects(openRedis(server.url, "worker", log), { code: "unavailable", message: /noeviction/ });
  await closeRedis(redis);
  await server.close();
});

test("a server with a damaged file is started again a few times, slower and slower, and then given up with its last words", async () => {
  const own = await mkdtemp(join(tmpdir(), "modelpress-redis-damaged-"));
  const logged: { level: number; msg: string; printed?: string }[] = [];
  const lines = pino({ level: "error" }, { write: (line) => void logged.push(JSON.parse(line)) });
  const gone = Promise.withResolvers<string>();
  const server = await startPrivateRedis({ dataDir: own, log: lines, onGone: gone.resolve });
  const redis = await openRedis(server.url, "request", log);
  for (let i = 0; i < 100; i++) await redis.set(`key ${i}`, "x".repeat(100));
  await redis.config("SET", "appendfsync", "always");
  await redis.set("last", "one");
  const folder = join(own, "redis", "appendonlydir");
  const name = (await readdir(folder)).find((file) => file.endsWith(".incr.aof"))!;
  const bytes = await readFile(join(folder, name));
  bytes.fill("?", 500, 1_000);
  process.kill(server.pid, "SIGKILL");
  await writeFile(join(folder, name), bytes);
  redis.disconnect();

  assert.match(await gone.promise, /Bad file format/);
  const deaths = logged.filter(({ msg }) => /does not start/.test(msg));
  assert.equal(deaths.length, 6);
  assert.match(logged.at(-1)!.msg, /given up/);
  assert.match(logged.at(-1)!.printed!, /Bad file format/);
  await server.close();
  await rm(own, { recursive: true });
});

test("a clock that is far from that of Redis is refused; one that is near is not", async () => {
  const server = await startPrivateRedis({ dataDir, log });
  const redis = await openRedis(server.url, "request", log);
  await checkClock(redis);
  await checkClock(redis, () => Date.now() + 20_000);
  await assert.rejects(
    checkClock(redis, () => Date.now() + 90_000_000),
    { code: "unavailable", message: /90000 s ahead/ },
  );
  await assert.rejects(
    checkClock(redis, () => Date.now() - 90_000_000),
    { code: "unavailable", message: /behind/ },
  );
  await closeRedis(redis);
  await server.close();
});
