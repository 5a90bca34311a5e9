import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createSignedLinks } from "../../src/service/signed-links.ts";
import { startTestRedis } from "../support/redis.ts";

let server: Awaited<ReturnType<typeof startTestRedis>>;
before(async () => {
  server = await startTestRedis();
});
after(() => server.close());

const FILE = { jobId: "job_1", artifact: "model.onnx" };
const queryOf = (text: string) => Object.fromEntries(new URLSearchParams(text));

test("a link opens its own file until its time, at every process", async () => {
  const made = await Promise.all([1, 2].map(() => createSignedLinks(server.redis, null)));
  const texts = await Promise.all(made.map((links) => links.sign(FILE, new Date(Date.now() + 60_000))));
  const links = createSignedLinks(server.redis, null);
  for (const text of texts) await links.check(FILE, queryOf(text));
  const right = queryOf(texts[0]!);
  const flipped = Buffer.from(right.signature!, "base64url");
  flipped[0]! ^= 1;
  for (const [file, query] of [
    [{ ...FILE, jobId: "job_2" }, right],
    [{ ...FILE, artifact: "report.html" }, right],
    [FILE, { ...right, expires: String(Number(right.expires) + 1) }],
    [FILE, { ...right, signature: flipped.toString("base64url") }],
    [FILE, { ...right, signature: "" }],
    [FILE, { expires: right.expires }],
    [FILE, { signature: right.signature }],
    [FILE, { expires: ["1", "2"], signature: [right.signature] }],
  ] as const) {
    await assert.rejects(links.check(file, query), { code: "invalid_link", message: /signature/ });
  }
});

test("an expired link says when it expired, and another secret opens nothing", async () => {
  const links = createSignedLinks(server.redis, "a".repeat(32));
  const past = new Date(Date.now() - 5_000);
  const expired = queryOf(await links.sign(FILE, past));
  await assert.rejects(links.check(FILE, expired), { code: "invalid_link", message: /expired at 20\d\d-/ });
  const valid = queryOf(await links.sign(FILE, new Date(Date.now() + 60_000)));
  await links.check(FILE, valid);
  await assert.rejects(createSignedLinks(server.redis, "b".repeat(32)).check(FILE, valid), { code: "invalid_link" });
});
