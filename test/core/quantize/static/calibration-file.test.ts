import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../../src/core/errors.ts";
import { modelToBytes } from "../../../../src/core/onnx/save.ts";
import type { Tensor } from "../../../../src/core/onnx/tensor.ts";
import { CALIBRATION_METHODS } from "../../../../src/core/quantize/calibration/calibration-methods.ts";
import { ActivationObserver, ChannelObserver } from "../../../../src/core/quantize/calibration/observers.ts";
import { type Calibration, calibrate } from "../../../../src/core/quantize/static/calibration.ts";
import { calibrationFromBytes, calibrationToBytes } from "../../../../src/core/quantize/static/calibration-file.ts";
import { prepareStatic, quantizeStatic } from "../../../../src/core/quantize/static/quantize-static.ts";
import { mobilenet, randomFeeds } from "../../../support/graphs.ts";
import { openModel } from "../../../support/open-model.ts";

const names = fc.string({ unit: "grapheme", maxLength: 8 });
const batches = fc.array(fc.float32Array({ maxLength: 30 }), { maxLength: 4 });

/** Of any values at all, infinities and NaN among them. */
const calibrations: fc.Arbitrary<Calibration> = fc
  .record({
    activations: fc.dictionary(names, batches, { maxKeys: 5 }),
    channels: fc.dictionary(names, fc.tuple(fc.integer({ min: -4, max: 4 }), batches), { maxKeys: 3 }),
    derived: fc.dictionary(
      names,
      fc.record({ factor: fc.double({ noNaN: true, noDefaultInfinity: true }), shift: fc.integer() }),
    ),
    batches: fc.nat(),
  })
  .map(({ activations, channels, derived, batches }) => {
    const observed = Object.entries(activations).map(([name, parts]) => {
      const observer = new ActivationObserver();
      for (const part of parts) observer.observe(part);
      return [name, observer] as const;
    });
    const inChannels = Object.entries(channels).map(([name, [axis, parts]]) => {
      const observer = new ChannelObserver(axis);
      for (const part of parts) observer.observe(part, [part.length, 1]);
      return [name, observer] as const;
    });
    const base = observed[0]?.[0];
    return {
      activations: new Map(observed),
      channels: new Map(inChannels),
      derived: new Map(
        base === undefined ? [] : Object.entries(derived).map(([name, affine]) => [name, { base, ...affine }] as const),
      ),
      batches,
    };
  });

const stateOf = (calibration: Calibration) => ({
  activations: [...calibration.activations].map(([name, observer]) => [name, observer.state]),
  channels: [...calibration.channels].map(([name, observer]) => [name, observer.axis, observer.state]),
  derived: [...calibration.derived],
  batches: calibration.batches,
});

test("what was seen comes back exactly, and goes on from there as if it had never left", () => {
  fc.assert(
    fc.property(calibrations, fc.float32Array({ maxLength: 30 }), (calibration, more) => {
      const restored = calibrationFromBytes(calibrationToBytes(calibration));
      assert.deepEqual(stateOf(restored), stateOf(calibration));
      for (const { activations } of [calibration, restored]) {
        for (const observer of activations.values()) observer.observe(more);
      }
      assert.deepEqual(stateOf(restored), stateOf(calibration));
    }),
  );
});

async function* streamOf(feeds: readonly Record<string, Tensor>[]): AsyncGenerator<Record<string, Tensor>> {
  yield* feeds;
}

test("the same quantized model comes from it, whatever the method; and it is small", async () => {
  const network = mobilenet();
  const feeds = [1, 2, 3].map((seed) => randomFeeds(network, { seed, dims: { n: 2 } }));
  const { model } = await prepareStatic(network, feeds[0]!, { openModel });
  const calibration = await calibrate(model, streamOf(feeds), { openModel });
  const bytes = calibrationToBytes(calibration);
  const restored = calibrationFromBytes(bytes);
  for (const method of CALIBRATION_METHODS) {
    const quantized = (from: Calibration) =>
      modelToBytes(
        quantizeStatic(model, from, {
          method,
          percentile: 99.9,
          activationDType: "uint8",
          perChannel: true,
          reduceRange: true,
        }).model,
      );
    assert.deepEqual(quantized(restored), quantized(calibration));
  }
  const perActivation = bytes.length / calibration.activations.size;
  assert.ok(perActivation < 8192, `${perActivation} bytes for an activation`);
});

test("bytes that are cut off or altered are refused, or are another calibration", () => {
  const isRefusal = (error: unknown) => error instanceof CoreError && error.code === "invalid_params";
  fc.assert(
    fc.property(calibrations, fc.nat(), fc.integer({ min: 1, max: 255 }), (calibration, position, change) => {
      const bytes = calibrationToBytes(calibration);
      assert.throws(() => calibrationFromBytes(bytes.subarray(0, position % bytes.length)), isRefusal);
      assert.throws(() => calibrationFromBytes(Uint8Array.of(...bytes, 0)), isRefusal);
      const altered = Uint8Array.from(bytes);
      altered[position % bytes.length]! ^= change;
      try {
        // What is taken in is a calibration: it can be written and read again.
        const other = calibrationFromBytes(altered);
        assert.deepEqual(stateOf(calibrationFromBytes(calibrationToBytes(other))), stateOf(other));
      } catch (error) {
        assert.ok(isRefusal(error), `${error}`);
      }
    }),
    { numRuns: 500 },
  );
});

test("another version, and lengths that promise more than there is, are refused before anything is made of them", () => {
  const empty = [
    ...calibrationToBytes({ activations: new Map(), channels: new Map(), derived: new Map(), batches: 0 }),
  ];
  for (const [bytes, message] of [
    [[...empty.slice(0, 5), 1, ...empty.slice(6)], /version 1, not 3/],
    [[...Buffer.from("onnx"), ...empty], /does not begin/],
    // A name of 2^40 bytes; and more channels than bytes.
    [[...empty.slice(0, 7), 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20], /cut off/],
    [[...empty.slice(0, 9), 1, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x20], /cut off/],
    [[...empty.slice(0, 6), ...Array(12).fill(0xff)], /too large/],
  ] as const) {
    assert.throws(() => calibrationFromBytes(Uint8Array.from(bytes)), { code: "invalid_params", message });
  }
});
