import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { targetsDocument } from "../../../../scripts/targets.ts";

test("docs/targets.md is what the records say (npm run targets)", () => {
  assert.equal(readFileSync(new URL("../../../../docs/targets.md", import.meta.url), "utf8"), targetsDocument());
});
