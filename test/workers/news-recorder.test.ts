import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { pino } from "pino";
import type { JobStore } from "../../src/service/jobs/job-store.ts";
import { createNewsRecorder } from "../../workers/news-recorder.ts";

const log = pino({ level: "silent" });

/** A store that writes later and remembers in which order. */
function slowStore(): { store: JobStore; written: string[] } {
  const written: string[] = [];
  const write = async (text: string) => {
    await new Promise((resolve) => setImmediate(resolve));
    written.push(text);
  };
  const store: Partial<JobStore> = {
    setProgress: (_id, { step, fraction }) => write(`${step} ${fraction}`),
    appendEvent: (_id, type, data) => write(`${type} ${data.message ?? data.loss}`),
  };
  return { store: store as JobStore, written };
}

const progress = (step: string, fraction: number) =>
  ({ kind: "progress", progress: { step, fraction, message: "" } }) as const;

test("what a child says is recorded in its order, progress at most once in 250 ms", async (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const { store, written } = slowStore();
  const recorder = createNewsRecorder(store, "job_x", log);
  recorder.record(progress("load", 0.1));
  recorder.record({ kind: "log", level: "info", message: "hello" });
  recorder.record(progress("load", 0.2));
  recorder.record(progress("load", 0.3));
  recorder.record({ kind: "metric", data: { loss: 1 } });
  mock.timers.tick(249);
  recorder.record({ kind: "log", level: "info", message: "not yet" });
  mock.timers.tick(1);
  recorder.record(progress("load", 0.4));
  await recorder.finish();
  assert.deepEqual(written, ["load 0.1", "log hello", "metric 1", "log not yet", "load 0.3", "load 0.4"]);
});

test("a new step is told at once, and does not swallow the last progress of the one before", async (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const { store, written } = slowStore();
  const recorder = createNewsRecorder(store, "job_x", log);
  for (const [step, fraction] of [
    ["a", 0.1],
    ["a", 0.2],
    ["b", 0.3],
    ["b", 0.4],
  ] as const)
    recorder.record(progress(step, fraction));
  while (written.length < 3) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(written, ["a 0.1", "a 0.2", "b 0.3"]);
  await recorder.finish();
  assert.deepEqual(written, ["a 0.1", "a 0.2", "b 0.3", "b 0.4"]);
});

test("nothing is recorded after the end, and no more than a limit before", async () => {
  const { store, written } = slowStore();
  store.appendEvent = async (_id, type) => void written.push(type);
  const recorder = createNewsRecorder(store, "job_x", log);
  for (let i = 0; i < 5_000; i++) recorder.record({ kind: "log", level: "info", message: `${i}` });
  await recorder.finish();
  recorder.record({ kind: "log", level: "info", message: "late" });
  recorder.record(progress("late", 1));
  await recorder.finish();
  assert.equal(written.length, 2_000);
});

test("a write that fails loses that entry only", async () => {
  const { store, written } = slowStore();
  const { appendEvent } = store;
  store.appendEvent = async (id, type, data) => {
    if (data.message === "bad") throw new Error("refused");
    return appendEvent(id, type, data);
  };
  const recorder = createNewsRecorder(store, "job_x", log);
  for (const message of ["a", "bad", "b"]) recorder.record({ kind: "log", level: "warn", message });
  await recorder.finish();
  assert.deepEqual(written, ["log a", "log b"]);
});
