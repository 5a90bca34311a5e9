import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { type ArrayDType, arrayOf, tensorOf } from "../../../src/core/onnx/tensor.ts";
import {
  type AffineParams,
  affineParams,
  type CodeDType,
  codeRange,
  quantizeValue,
  roundHalfEven,
} from "../../../src/core/quantize/params.ts";
import { openSession } from "../../../src/core/runtime/session.ts";
import { GraphMaker, uniformSource } from "../../support/graphs.ts";

/** The value of a code, rounded to float32 as DequantizeLinear does. */
const dequantizeValue = (q: number, { scale, zeroPoint }: AffineParams) => Math.fround((q - zeroPoint) * scale);

const DTYPES: readonly CodeDType[] = ["int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"];
const scheme = fc.record({
  dtype: fc.constantFrom(...DTYPES),
  symmetric: fc.boolean(),
  reduced: fc.boolean(),
  lo: fc.float({ min: -1e6, max: 1e6, noNaN: true }),
  hi: fc.float({ min: -1e6, max: 1e6, noNaN: true }),
});

describe("roundHalfEven", () => {
  it("rounds halves to the even neighbour", () => {
    for (const [x, rounded] of [
      [0.5, 0],
      [1.5, 2],
      [2.5, 2],
      [-0.5, 0],
      [-1.5, -2],
      [-2.5, -2],
      [0.49999999999999994, 0],
      [254.5, 254],
      [2 ** 40 + 0.5, 2 ** 40],
    ]) {
      assert.equal(roundHalfEven(x!), rounded! + 0);
    }
  });

  it("agrees with Math.round away from halves", () => {
    fc.assert(
      fc.property(fc.double({ min: -1e9, max: 1e9, noNaN: true }), (x) => {
        fc.pre(Math.abs(x - Math.trunc(x)) !== 0.5);
        assert.equal(roundHalfEven(x) + 0, Math.round(x) + 0);
      }),
    );
  });
});

describe("affineParams", () => {
  it("represents zero exactly and everything else within half a step", () => {
    fc.assert(
      fc.property(scheme, fc.double({ min: 0, max: 1, noNaN: true }), ({ dtype, symmetric, reduced, lo, hi }, at) => {
        const codes = codeRange(dtype, { symmetric, reduced });
        const params = affineParams(Math.min(lo, hi), Math.max(lo, hi), codes, { symmetric });
        assert.equal(Math.fround(params.scale), params.scale);
        assert.ok(params.zeroPoint >= codes.min && params.zeroPoint <= codes.max);
        assert.equal(Math.abs(dequantizeValue(quantizeValue(0, params, codes), params)), 0);

        // The range that the codes cover may be narrower than asked for by less than one code, where symmetric codes are not.
        const low = Math.max(Math.min(lo, hi, 0), (codes.min - 0.5 - params.zeroPoint) * params.scale);
        const high = Math.min(Math.max(lo, hi, 0), (codes.max + 0.5 - params.zeroPoint) * params.scale);
        const x = Math.fround(low + at * (high - low));
        const back = dequantizeValue(quantizeValue(x, params, codes), params);
        const slack = (Math.abs(x) + params.scale) * 2 ** -21;
        assert.ok(Math.abs(x - back) <= params.scale / 2 + slack, `${x} came back as ${back}, scale ${params.scale}`);
      }),
      { numRuns: 2000 },
    );
  });

  it("covers the whole range with one code to spare at most", () => {
    fc.assert(
      fc.property(scheme, ({ dtype, reduced, lo, hi }) => {
        const codes = codeRange(dtype, { reduced });
        const params = affineParams(Math.min(lo, hi), Math.max(lo, hi), codes);
        for (const end of [Math.min(lo, hi, 0), Math.max(lo, hi, 0)]) {
          const back = dequantizeValue(quantizeValue(end, params, codes), params);
          assert.ok(Math.abs(end - back) <= (params.scale / 2) * (1 + 2 ** -15) + Math.abs(end) * 2 ** -21);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("gives the published values", () => {
    assert.deepEqual(affineParams(-1, 3, codeRange("uint8")), { scale: Math.fround(4 / 255), zeroPoint: 64 });
    assert.deepEqual(affineParams(2, 3, codeRange("uint8")), { scale: Math.fround(3 / 255), zeroPoint: 0 });
    assert.deepEqual(affineParams(-1, 3, codeRange("int8")), { scale: Math.fround(4 / 255), zeroPoint: -64 });
    const symmetric = (dtype: CodeDType) =>
      affineParams(-1, 3, codeRange(dtype, { symmetric: true }), { symmetric: true });
    assert.deepEqual(symmetric("int8"), { scale: Math.fround(6 / 254), zeroPoint: 0 });
    assert.deepEqual(symmetric("uint8"), { scale: Math.fround(6 / 255), zeroPoint: 128 });
    assert.deepEqual(symmetric("uint16"), { scale: Math.fround(6 / 65535), zeroPoint: 32768 });
    assert.deepEqual(symmetric("int4"), { scale: Math.fround(6 / 15), zeroPoint: 0 });
    assert.deepEqual(symmetric("uint4"), { scale: Math.fround(6 / 15), zeroPoint: 8 });
  });

  it("gives an empty range scale 1, and refuses one that is not finite", () => {
    assert.deepEqual(affineParams(0, 0, codeRange("uint8")), { scale: 1, zeroPoint: 0 });
    assert.deepEqual(affineParams(0, 1e-40, codeRange("uint8"), { symmetric: true }), { scale: 1, zeroPoint: 128 });
    assert.equal(affineParams(-1e-8, 1e-8, codeRange("int8"), { scaleDType: "float16" }).scale, 1);
    assert.throws(
      () => affineParams(Number.NaN, 1, codeRange("int8")),
      (e) => e instanceof CoreError && e.code === "non_finite",
    );
    assert.throws(
      () => affineParams(0, Number.POSITIVE_INFINITY, codeRange("int8")),
      (e) => e instanceof CoreError,
    );
  });

  it("widens a range that is too narrow", () => {
    assert.deepEqual(affineParams(0, 0, codeRange("uint8"), { minSpan: 0.51 }), {
      scale: Math.fround(0.51 / 255),
      zeroPoint: 0,
    });
  });
});

describe("against onnxruntime", () => {
  const source = uniformSource(11);
  const values = new Float32Array(4096);
  for (let i = 0; i < values.length; i++) values[i] = (2 * source() - 1) * 3;

  for (const dtype of ["int8", "uint8", "int16", "uint16"] as const) {
    it(`QuantizeLinear and DequantizeLinear give the same bits (${dtype})`, async () => {
      const codes = codeRange(dtype);
      const params = affineParams(-2.1, 2.6, codes);
      // Exact halves, where the rounding mode shows, and values outside the range.
      for (let i = 0; i < 512; i++) values[i] = Math.fround((i - 256 + 0.5) * params.scale);

      const make = new GraphMaker({ opset: 21, irVersion: 10 });
      const x = make.input("x", [values.length]);
      const scale = make.floats("scale", [], [params.scale]);
      const zero = make.constant("zero", tensorOf(dtype, [], [params.zeroPoint]));
      const q = make.op("QuantizeLinear", [x, scale, zero]);
      const y = make.op("DequantizeLinear", [q, scale, zero]);
      make.output(q, "q", [values.length], dtype);
      make.output(y, "y", [values.length]);
      const session = await openSession({ bytes: modelToBytes(make.model) }, { optimization: "disabled" });
      const outputs = await session.run({ x: tensorOf("float32", [values.length], values) });
      await session.close();

      const quantized = Array.from(arrayOf(outputs.q!, dtype as ArrayDType) as ArrayLike<number>);
      assert.deepEqual(
        Array.from(values, (value) => quantizeValue(value, params, codes)),
        quantized,
      );
      const back = Array.from(quantized, (q) => dequantizeValue(q, params));
      assert.deepEqual(back, Array.from(arrayOf(outputs.y!, "float32")));
    });
  }
});
