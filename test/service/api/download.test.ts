import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseRange } from "../../../src/service/api/download.ts";

test("ranges as RFC 9110 has them", () => {
  const cases: readonly (readonly [string | undefined, number, [number, number] | undefined])[] = [
    [undefined, 10, [0, 10]],
    ["bytes=0-0", 10, [0, 1]],
    ["bytes=2-4", 10, [2, 5]],
    ["bytes=5-", 10, [5, 10]],
    ["bytes=5-100", 10, [5, 10]],
    ["bytes=-3", 10, [7, 10]],
    ["bytes=-30", 10, [0, 10]],
    ["bytes=-0", 10, undefined],
    ["bytes=10-", 10, undefined],
    ["bytes=0-", 0, undefined],
    // Not understood or not valid: as if it were not there.
    ["bytes=4-2", 10, [0, 10]],
    ["bytes=0-1,4-5", 10, [0, 10]],
    ["lines=0-1", 10, [0, 10]],
    ["bytes=", 10, [0, 10]],
    ["bytes=-", 10, [0, 10]],
  ];
  for (const [header, size, expected] of cases) {
    const range = expected && { start: expected[0], end: expected[1] };
    assert.deepEqual(parseRange(header, size), range, `${header} of ${size}`);
  }
});

test("no header makes a range that leaves the file", () => {
  const number = fc.oneof(fc.nat(20), fc.maxSafeNat(), fc.constant("99999999999999999999999"));
  const header = fc.tuple(fc.option(number), fc.option(number)).map(([a, b]) => `bytes=${a ?? ""}-${b ?? ""}`);
  fc.assert(
    fc.property(header, fc.nat(20), (text, size) => {
      const range = parseRange(text, size);
      if (range === undefined) return;
      assert.ok(range.start >= 0 && range.start <= range.end && range.end <= size, JSON.stringify(range));
    }),
  );
});
