import assert from "node:assert/strict";
import { test } from "node:test";
import { sharedFor } from "../../../src/service/api/shared-check.ts";

test("all who ask within the time share one look, a failure too", async () => {
  let now = 0;
  let looks = 0;
  const look = sharedFor(
    1000,
    async () => {
      if (++looks === 2) throw new Error("down");
      return looks;
    },
    () => now,
  );
  assert.deepEqual(await Promise.all([look(), look(), look()]), [1, 1, 1]);
  now = 999;
  assert.equal(await look(), 1);
  now = 1000;
  await assert.rejects(look(), /down/);
  await assert.rejects(look(), /down/);
  now = 2000;
  assert.equal(await look(), 3);
});
