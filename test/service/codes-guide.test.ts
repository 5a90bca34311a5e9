import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { WARNINGS } from "../../src/core/index.ts";
import { PROBLEMS } from "../../src/service/errors.ts";

/** The rows of the guide to codes, as cells. */
const guide = await readFile(new URL("../../docs/guides/codes.md", import.meta.url), "utf8");
const rows = guide.split("\n").filter((line) => line.startsWith("| `"));

test("the guide to codes has every warning and every problem, as the code has them, and no other", () => {
  assert.deepEqual(rows, [
    ...Object.entries(WARNINGS).map(
      ([code, { meaning, cause, remedy }]) => `| \`${code}\` | ${meaning} | ${cause} | ${remedy} |`,
    ),
    ...Object.entries(PROBLEMS).map(([code, { status, title }]) => `| \`${code}\` | ${status} | ${title} |`),
  ]);
});
