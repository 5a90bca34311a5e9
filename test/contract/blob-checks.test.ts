import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { after, before, test } from "node:test";
import { pino } from "pino";
import { countDamagedBlobs, startBlobChecks } from "../../src/service/blobs/blob-checks.ts";
import type { BlobRef, BlobStore } from "../../src/service/blobs/blob-store.ts";
import { type BlobClaims, createBlobClaims } from "../../src/service/blobs/claims.ts";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/until.ts";
import { chunksOf } from "./blob-store.ts";

const QUICK = { bytesPerSecond: 1e9, intervalMs: 20, againMs: 50 };

let redis: TestRedis;
let directory: string;
let blobs: BlobStore;
let claims: BlobClaims;
const logged: string[] = [];
const log = pino(
  { level: "info" },
  new Writable({
    write(line, _encoding, done) {
      logged.push(String(line));
      done();
    },
  }),
);

before(async () => {
  redis = await startTestRedis();
  directory = await mkdtemp(join(tmpdir(), "blob-checks-"));
  blobs = await createFileBlobStore(directory);
  claims = createBlobClaims(redis.redis, blobs);
});
after(async () => {
  await redis.close();
  await rm(directory, { recursive: true });
});

async function stored(owner: string, bytes: Buffer): Promise<BlobRef> {
  const ref = await blobs.put(chunksOf(bytes, 1000), { maxBytes: 1e6, claim: (it) => claims.claim(owner, it) });
  await claims.settle(owner);
  return ref;
}

const pathOf = ({ sha256 }: BlobRef) => join(directory, sha256.slice(0, 2), sha256);
const damagedAre = (count: number) =>
  until(`${count} damaged files`, async () => (await countDamagedBlobs(redis.redis)) === count);

test("a stored file that has lost bytes, or is gone, is found; sending it again, or deleting it, ends that", async () => {
  const bytes = randomBytes(5000);
  const whole = await stored("mdl_whole", randomBytes(3000));
  const ref = await stored("mdl_a", bytes);
  const gone = await stored("mdl_b", randomBytes(2000));
  await chmod(pathOf(ref), 0o600);
  const other = await readFile(pathOf(ref));
  other.writeUInt8(other.readUInt8(2500) ^ 1, 2500);
  await writeFile(pathOf(ref), other);
  await rm(pathOf(gone));

  // Two workers: they take turns.
  const [first, second] = [1, 2].map(() => startBlobChecks({ redis: redis.redis, blobs, claims, log, ...QUICK }));
  try {
    await damagedAre(2);
    const said = (of: BlobRef) => logged.map((line) => JSON.parse(line)).find(({ sha256 }) => sha256 === of.sha256);
    assert.match(said(ref)!.damage, /^it has 5000 of 5000 bytes and the sha256 [0-9a-f]{64}$/);
    assert.equal(said(gone)!.damage, "it is gone");
    assert.equal(said(whole), undefined);

    await stored("mdl_c", bytes);
    await damagedAre(1);
    await claims.release("mdl_b");
    await damagedAre(0);
  } finally {
    await first!.close();
    await second!.close();
  }
});

test("files are read no faster than they may be, and closing does not wait for them", async () => {
  await stored("mdl_slow", randomBytes(200_000));
  let read = 0;
  const watched: BlobStore = {
    ...blobs,
    async get(ref, range) {
      const chunks = await blobs.get(ref, range);
      return (async function* () {
        for await (const chunk of chunks) {
          read += chunk.byteLength;
          yield chunk;
        }
      })();
    },
  };
  const slow = startBlobChecks({ redis: redis.redis, blobs: watched, claims, log, ...QUICK, bytesPerSecond: 10_000 });
  await until("the first bytes", async () => read > 0);
  await slow.close();
  assert.ok(read < 200_000, `${read} bytes`);
});
