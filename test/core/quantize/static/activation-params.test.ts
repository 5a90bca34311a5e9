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

/** x → Conv → h → 2h − 3 → MaxPool → p → Conv → y: p has the codes of h. */
function pooledNetwork() {
  const make = new GraphMaker();
  const h = make.conv(make.input("x", ["n", 4, 6, 6]), [4, 4], 1);
  const sum = make.op("Add", [make.op("Mul", [h, make.floats("two", [], [2])]), make.floats("shift", [], [-3])]);
  const p = make.op("MaxPool", [sum], { kernel_shape: [2, 2] });
  make.output(make.conv(p, [4, 4], 1), "y");
  const placement = placeQuantizers(make.model);
  const ranges = new Map<string, Range>([
    ["x", { min: -1, max: 1 }],
    ...[...placement.values.values()]
      .filter(({ leaf }) => leaf)
      .map(({ value }): [string, Range] => [value.name, { min: -1, max: 1 }]),
    [h.name, { min: -2, max: 5 }],
    [p.name, { min: -9, max: 4 }],
  ]);
  return { placement, ranges, h, p };
}

test("the range of a group holds those of its members, and no more: each is taken back by its factor and shift", () => {
  const { placement, ranges, h, p } = pooledNetwork();
  const { params, inexpressible } = activationParams(placement, ranges, CODES);
  assert.equal(inexpressible.size, 0);
  const [base, pooled] = [params.get(h)!, params.get(p)!];
  assert.ok(Math.abs(pooled.scale / base.scale - 2) < 1e-6);
  // p = 2h − 3 from −9 to 4 is h from −3 to 3.5; what h itself reaches is read by nothing else.
  assert.ok(base.scale >= 6.5 / 255 && base.scale < 1.03 * (6.5 / 255), `${base.scale}`);
  assert.ok(Math.abs(-base.zeroPoint * base.scale + 3) < 2 * base.scale);
  assert.equal(base.zeroPoint - pooled.zeroPoint, Math.round(-3 / pooled.scale));
});

test("scales that are given hold for all of a group, and must not contradict each other", () => {
  const { placement, ranges, h, p } = pooledNetwork();
  const { params } = activationParams(placement, ranges, CODES, { [p.name]: { scale: 0.1, zeroPoint: 100 } });
  assert.deepEqual(params.get(p), { scale: Math.fround(0.1), zeroPoint: 100 });
  const { scale, zeroPoint } = params.get(h)!;
  assert.ok(Math.abs(scale - 0.05) < 1e-8);
  // p = 0.1 (q − 100) is 2h − 3: h = 0.05 (q − 70).
  assert.equal(zeroPoint, 70);
  const both = (own: number) => ({
    [p.name]: { scale: 0.1, zeroPoint: 100 },
    [h.name]: { scale: 0.05, zeroPoint: own },
  });
  assert.deepEqual(activationParams(placement, ranges, CODES, both(70)).params.get(h)!.zeroPoint, 70);
  assert.throws(() => activationParams(placement, ranges, CODES, both(71)), { code: "internal" });
});
