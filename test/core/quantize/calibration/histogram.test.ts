import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Histogram } from "../../../../src/core/quantize/calibration/histogram.ts";

const finite = fc.float({ noNaN: true, noDefaultInfinity: true });
const batches = fc.array(fc.array(finite, { maxLength: 40 }), { minLength: 1, maxLength: 6 });

function histogramOf(...parts: readonly (readonly number[])[]): Histogram {
  const histogram = new Histogram();
  for (const part of parts) histogram.add(Float32Array.from(part));
  return histogram;
}

const stateOf = (h: Histogram) => ({ ...h.points(), zeros: h.zeros, min: h.min, max: h.max, count: h.count });

test("the state depends on the values alone, not on batches or order", () => {
  fc.assert(
    fc.property(batches, (parts) => {
      const whole = stateOf(histogramOf(parts.flat()));
      assert.deepEqual(stateOf(histogramOf(...parts)), whole);
      assert.deepEqual(stateOf(histogramOf(...[...parts].reverse())), whole);
    }),
  );
});

test("histograms of parts add up to the histogram of the whole", () => {
  fc.assert(
    fc.property(batches, (parts) => {
      const sum = new Histogram();
      for (const part of parts) sum.merge(histogramOf(part));
      assert.deepEqual(stateOf(sum), stateOf(histogramOf(parts.flat())));
    }),
  );
});

test("every non-zero value is counted in the bin that contains it", () => {
  fc.assert(
    fc.property(fc.array(finite, { minLength: 1, maxLength: 200 }), (values) => {
      const histogram = histogramOf(values);
      const { width, centres, counts } = histogram.points();
      const floats = [...Float32Array.from(values)];
      assert.equal(histogram.zeros, floats.filter((x) => x === 0).length);
      for (let i = 0; i < centres.length; i++) {
        const low = centres[i]! - width / 2;
        assert.equal(counts[i], floats.filter((x) => x !== 0 && x >= low && x < low + width).length);
        assert.ok(counts[i]! > 0);
      }
      assert.equal(
        counts.reduce((a, b) => a + b, 0),
        floats.filter((x) => x !== 0).length,
      );
    }),
  );
});

test("the largest magnitude falls into bins 2048 to 4095, whatever its scale", () => {
  for (const largest of [1e-40, 0.001, 0.9999999, 1, 1.0000001, 8191.5, 65504, 3e38]) {
    const { width, centres } = histogramOf([largest]).points();
    const bins = Math.fround(largest) / width;
    assert.ok(bins >= 2048 && bins < 4096, `${largest}: ${bins} bins`);
    assert.equal(centres[0]! / width, Math.floor(bins) + 0.5);
  }
});

test("no data is an empty histogram", () => {
  assert.deepEqual(stateOf(histogramOf([])), {
    width: 0,
    centres: new Float64Array(0),
    counts: new Float64Array(0),
    zeros: 0,
    min: Number.POSITIVE_INFINITY,
    max: Number.NEGATIVE_INFINITY,
    count: 0,
  });
});

test("NaN and infinities are counted apart and do not spoil the range", () => {
  const histogram = histogramOf([1, Number.NaN, -2], [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 4]);
  assert.equal(histogram.nonFinite, 3);
  assert.equal(histogram.count, 3);
  assert.equal(histogram.min, -2);
  assert.equal(histogram.max, 4);
});
