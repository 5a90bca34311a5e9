import assert from "node:assert/strict";
import { test } from "node:test";
import type { Range } from "../../../../src/core/quantize/calibration/thresholds.ts";
import { codeRange } from "../../../../src/core/quantize/params.ts";
import { activationParams } from "../../../../src/core/quantize/static/activation-params.ts";
import { AffineGroups } from "../../../../src/core/quantize/static/affine-groups.ts";
import { placeQuantizers } from "../../../../src/core/quantize/static/placement.ts";
import { GraphMaker } from "../../../support/graphs.ts";

const CODES = codeRange("uint8");

test("members of a group are in affine proportion, by whatever path", () => {
  const groups = new AffineGroups<string>();
  groups.join("a", { factor: 2, shift: 1 }, "b");
  groups.join("c", { factor: 4, shift: -3 }, "d");
  groups.join("b", { factor: 0.5, shift: 2 }, "d");
  const members = Object.fromEntries(["a", "b", "c", "d"].map((name) => [name, groups.find(name)]));
  assert.equal(new Set(Object.values(members).map(({ group }) => group)).size, 1);
  // With a = 10: b = 21, d = 12.5, c = 3.875.
  const g = (10 - members.a!.shift) / members.a!.factor;
  for (const [name, value] of Object.entries({ a: 10, b: 21, c: 3.875, d: 12.5 })) {
    assert.ok(Math.abs(members[name]!.factor * g + members[name]!.shift - value) < 1e-12, name);
  }
  assert.notEqual(groups.find("e").group, members.a!.group);
});

/** x → Conv → 2x − 3 → Conv → y, as a placement and the name of the first convolution's output. */
function shiftedNetwork(shift: number) {
  const make = new GraphMaker();
  const h = make.conv(make.input("x", ["n", 4, 6, 6]), [4, 4], 1);
  const sum = make.op("Add", [make.op("Mul", [h, make.floats("two", [], [2])]), make.floats("shift", [], [shift])]);
  make.output(make.conv(sum, [4, 4], 1), "y");
  return { placement: placeQuantizers(make.model), h, sum };
}

test("adding a number moves the zero point by a whole number of codes, and multiplying changes the scale", () => {
  const { placement, h, sum } = shiftedNetwork(-3);
  const ranges = new Map<string, Range>([
    ["x", { min: -1, max: 1 }],
    [h.name, { min: -2, max: 5 }],
    ["y", { min: -1, max: 1 }],
  ]);
  const { params, inexpressible } = activationParams(placement, ranges, CODES);
  assert.equal(inexpressible.size, 0);
  const [base, alias] = [params.get(h)!, params.get(sum)!];
  assert.ok(Math.abs(alias.scale / base.scale - 2) < 1e-6);
  for (const code of [0, 17, 255]) {
    const value = (code - base.zeroPoint) * base.scale;
    assert.ok(Math.abs((code - alias.zeroPoint) * alias.scale - (2 * value - 3)) < 1e-5);
  }
  // Both zeros are among the codes, and so is all that was observed: to within half a code at the ends.
  for (const { scale, zeroPoint } of [base, alias]) assert.ok(zeroPoint >= 0 && zeroPoint <= 255 && scale > 0);
  assert.ok(-base.zeroPoint * base.scale <= -2 + base.scale / 2);
  assert.ok((255 - base.zeroPoint) * base.scale >= 5 - base.scale / 2);
});

test("a sum that is less than a few codes has to be computed", () => {
  const { placement, h, sum } = shiftedNetwork(0.01);
  const ranges = new Map<string, Range>([
    ["x", { min: -1, max: 1 }],
    [h.name, { min: -2, max: 5 }],
    ["y", { min: -1, max: 1 }],
  ]);
  const { inexpressible } = activationParams(placement, ranges, CODES);
  assert.ok(inexpressible.has(sum.producer!.name));
});
