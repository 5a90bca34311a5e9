import assert from "node:assert/strict";
import { test } from "node:test";
import { createJobSteps } from "../../../../src/service/kinds/run/job-steps.ts";
import type { TaskNews } from "../../../../src/tasks/protocol.ts";

/** Steps of a job whose clock says what the test wants. */
function stepsOf(t: { readonly mock: typeof import("node:test").mock }, signal = new AbortController().signal) {
  const told: string[] = [];
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const news = (it: TaskNews) => {
    if (it.kind !== "progress") return;
    const { step, fraction, message } = it.progress;
    told.push(`${step} ${Number(fraction.toFixed(6))} ${message}`);
  };
  const steps = createJobSteps({ load: 0, work: 0.2, tell: 0.8 }, { signal, news });
  return { steps, told, wait: (ms: number) => (now += ms) };
}

test("a step tells that it begins, and how far it is between its start and that of the next", async (t) => {
  const { steps, told } = stepsOf(t);
  assert.equal(await steps.run("load", "Loading", () => 7), 7);
  await steps.run("work", "Working", async () => {
    steps.progress("work", 0.5, "half of it");
    steps.progress("work", 1, "all of it");
  });
  steps.progress("tell", 0.25, "a part of the last one");
  assert.deepEqual(told, [
    ...["load 0 Loading", "work 0.2 Working", "work 0.5 half of it", "work 0.8 all of it"],
    "tell 0.85 a part of the last one",
  ]);
});

test("a step takes its own time: what it tells of begins another, and what passes between two is of neither", async (t) => {
  const { steps, wait } = stepsOf(t);
  await steps.run("load", "Loading", () => wait(10));
  wait(1000);
  await steps.run("work", "Working", () => {
    wait(20);
    steps.progress("tell", 0, "early");
    wait(5);
    steps.progress("work", 0.9, "again");
    wait(40);
  });
  assert.deepEqual(steps.timingsMs, { load: 10, work: 60, tell: 5 });
  await steps.run("load", "Loading once more", () => wait(3));
  assert.deepEqual(steps.timingsMs, { load: 13, work: 60, tell: 5 });
});

test("a job that was stopped begins no step", async (t) => {
  const stop = new AbortController();
  const { steps, told } = stepsOf(t, stop.signal);
  await steps.run("load", "Loading", () => stop.abort());
  await assert.rejects(
    steps.run("work", "Working", () => assert.fail("it has begun")),
    { code: "cancelled" },
  );
  assert.deepEqual(told, ["load 0 Loading"]);
});
