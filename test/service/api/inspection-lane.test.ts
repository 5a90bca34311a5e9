import assert from "node:assert/strict";
import { test } from "node:test";
import { createInspectionLane } from "../../../src/service/api/inspection-lane.ts";
import { createKeptAnswers } from "../../../src/service/api/kept-answers.ts";

const GIB = 2 ** 30;
const of = (key: string, signal = new AbortController().signal) => ({ key, signal });
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A lane whose tasks run until they are ended, by name. */
function lane(options: { slots: number; slotsPerKey: number; memoryBytes?: number }) {
  const started: string[] = [];
  const ends = new Map<string, () => void>();
  const it = createInspectionLane({ what: "things are looked at", memoryBytes: 8 * GIB, ...options });
  return {
    started,
    ends,
    run: (key: string, name: string, bytes = 0, signal?: AbortSignal) =>
      it.run(of(key, signal), bytes, async (memoryBytes) => {
        started.push(name);
        await new Promise<void>((resolve) => ends.set(name, resolve));
        return memoryBytes;
      }),
    async end(name: string) {
      ends.get(name)!();
      await settled();
    },
  };
}

test("askers take turns, and one slot is left to others", async () => {
  const { run, started, end } = lane({ slots: 2, slotsPerKey: 1 });
  const all = [run("a", "a1"), run("a", "a2"), run("a", "a3"), run("b", "b1"), run("c", "c1")];
  await settled();
  assert.deepEqual(started, ["a1", "b1"]);
  await end("b1");
  assert.deepEqual(started, ["a1", "b1", "c1"]);
  await end("a1");
  await end("c1");
  await end("a2");
  assert.deepEqual(started, ["a1", "b1", "c1", "a2", "a3"]);
  await end("a3");
  await Promise.all(all);
});

test("what is large waits for memory, is not passed over, and gets more of it", async () => {
  const { run, started, end } = lane({ slots: 3, slotsPerKey: 3, memoryBytes: 6 * GIB });
  const small = run("a", "small");
  const large = run("a", "large", 1.2 * GIB);
  const after = run("b", "after");
  await settled();
  assert.deepEqual(started, ["small"]);
  await end("small");
  assert.deepEqual(started, ["small", "large"]);
  await end("large");
  await end("after");
  assert.equal(await small, 2 * GIB);
  assert.equal(await large, Math.min(6 * GIB, GIB / 2 + 4 * 1.2 * GIB));
  assert.equal(await after, 2 * GIB);
});

test("who goes while waiting makes room, and one asker cannot fill the queue", async () => {
  const { run, started, end } = lane({ slots: 1, slotsPerKey: 1 });
  const first = run("a", "first");
  const gone = new AbortController();
  const leaving = run("b", "leaving", 0, gone.signal);
  const next = run("c", "next");
  gone.abort(new Error("gone"));
  await assert.rejects(leaving, /gone/);
  const many = Array.from({ length: 20 }, (_, i) => run("d", `d${i}`).catch((error) => error));
  await settled();
  const refused = (await Promise.all(many.slice(16))) as { code: string; retryAfterSeconds: number }[];
  for (const { code, retryAfterSeconds } of refused) {
    assert.deepEqual([code, retryAfterSeconds], ["unavailable", 2 * 18]);
  }
  const other = run("e", "other");
  await end("first");
  assert.deepEqual(started, ["first", "next"]);
  await end("next");
  await end("d0");
  assert.deepEqual(started, ["first", "next", "d0", "other"]);
  await end("other");
  for (let i = 1; i < 16; i++) await end(`d${i}`);
  await Promise.all([first, next, other, ...many]);
});

test("a question is asked once for all who ask it, as long as one of them is there", async () => {
  const kept = createKeptAnswers(1000);
  const searches: { stop: AbortSignal; answer: (value: string) => void }[] = [];
  const find = ({ signal }: { signal: AbortSignal }) =>
    new Promise<string>((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      searches.push({ stop: signal, answer: resolve });
    });
  const [a, b] = [new AbortController(), new AbortController()];
  const [first, second] = [kept.ask("q", of("a", a.signal), find), kept.ask("q", of("b", b.signal), find)];
  a.abort(new Error("a has gone"));
  await assert.rejects(first, /a has gone/);
  assert.equal(searches.length, 1);
  assert.equal(searches[0]!.stop.aborted, false);
  b.abort(new Error("b has gone"));
  await assert.rejects(second, /b has gone/);
  assert.equal(searches[0]!.stop.aborted, true);
  const again = kept.ask("q", of("c"), find);
  searches[1]!.answer("found");
  assert.equal(await again, "found");
  assert.equal(await kept.ask("q", of("d"), find), "found");
  assert.equal(searches.length, 2);
});

test("answers are kept in a bounded room, those used last longest", async () => {
  const kept = createKeptAnswers(100);
  let found = 0;
  const ask = (question: string, length = 8) =>
    kept.ask(question, of("a"), async () => {
      found++;
      return "x".repeat(length);
    });
  for (const question of ["a", "b", "c", "d", "e"]) await ask(question);
  await ask("a");
  assert.equal(found, 5);
  await ask("f");
  await ask("a");
  await ask("b");
  assert.equal(found, 7);
  await ask("long", 50);
  await ask("long", 50);
  assert.equal(found, 9);
});
