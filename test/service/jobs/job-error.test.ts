import assert from "node:assert/strict";
import { test } from "node:test";
import { jobError } from "../../../src/service/jobs/job.ts";

test("a job's error is as long as 4,000 characters, and says where it was cut", () => {
  const detailOf = (length: number) => jobError({ code: "internal", message: "x".repeat(length) }).detail;
  assert.equal(detailOf(4000), "x".repeat(4000));
  assert.equal(detailOf(4001), `${"x".repeat(4000)}…`);
  const { subject } = jobError({ code: "invalid_model", message: "", subject: "n".repeat(5000) });
  assert.equal(subject!.length, 4000);
});
