import assert from "node:assert/strict";
import { test } from "node:test";
import { createWebhookGates } from "../../../src/service/jobs/webhook-gates.ts";

test("a host gets two requests at a time, and others are not held up", () => {
  const gates = createWebhookGates(() => 0);
  assert.deepEqual([gates.enter("a"), gates.enter("a")], [0, 0]);
  assert.ok(gates.enter("a") > 0);
  assert.equal(gates.enter("b"), 0);
  gates.leave("a", true);
  assert.equal(gates.enter("a"), 0);
});

test("a host that fails again and again is left alone, for longer each time, until one request succeeds", () => {
  let now = 0;
  const gates = createWebhookGates(() => now);
  for (let i = 0; i < 5; i++) {
    assert.equal(gates.enter("a"), 0);
    gates.leave("a", false);
  }
  assert.equal(gates.enter("a"), 60_000);
  now += 60_000;
  assert.equal(gates.enter("a"), 0);
  assert.ok(gates.enter("a") > 0, "one tries");
  gates.leave("a", false);
  assert.equal(gates.enter("a"), 120_000);
  now += 120_000;
  assert.equal(gates.enter("a"), 0);
  gates.leave("a", true);
  assert.deepEqual([gates.enter("a"), gates.enter("a")], [0, 0]);
});
