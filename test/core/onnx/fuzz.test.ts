import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CoreError } from "../../../src/core/errors.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { checkInvariants } from "../../../src/core/passes/pass.ts";
import { branches, loop, mlp, uniformSource } from "../../support/graphs.ts";
import { readRealModel } from "../../support/real-models.ts";

/**
 * Damaged files give a CoreError that a user can read, or a model that is sound: invariants hold, and it survives saving and loading.
 * Answers whether it was accepted.
 */
function survives(bytes: Uint8Array): boolean {
  let text: string;
  let saved: Uint8Array;
  try {
    const model = loadModel(bytes);
    checkInvariants(model, "load");
    text = printModel(model);
    saved = modelToBytes(model);
  } catch (error) {
    assert.ok(error instanceof CoreError, `${(error as Error).stack}`);
    assert.ok(error.code === "invalid_model" || error.code === "limit_exceeded", `${error.code}: ${error.message}`);
    assert.match(error.message, /^[A-Z].*\.$/s);
    assert.ok(error.message.length < 1500);
    return false;
  }
  assert.equal(printModel(loadModel(saved)), text);
  return true;
}

test("a small model with every bit of every byte flipped", () => {
  const bytes = modelToBytes(mlp({ sizes: [2, 2] }));
  let accepted = 0;
  for (let at = 0; at < bytes.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const copy = bytes.slice();
      copy[at]! ^= 1 << bit;
      if (survives(copy)) accepted++;
    }
  }
  assert.ok(accepted > 0 && accepted < 8 * bytes.length);
});

test("a small model cut off at every byte", () => {
  for (const build of [branches, loop]) {
    const bytes = modelToBytes(build({ features: 2 }));
    for (let length = 0; length < bytes.length; length++) survives(bytes.subarray(0, length));
  }
});

test("random damage: bytes overwritten, taken out, put in, moved", () => {
  const damage = fc.array(fc.tuple(fc.nat(3), fc.nat(), fc.nat(40), fc.uint8Array({ maxLength: 12 })), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(fc.constantFrom(branches, loop, mlp), damage, (build, edits) => {
      let bytes = Buffer.from(modelToBytes(build()));
      for (const [kind, position, length, content] of edits) {
        const at = position % bytes.length;
        const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)];
        const cut = after.subarray(length);
        if (kind === 0) bytes = Buffer.concat([before, content, after.subarray(content.length)]);
        else if (kind === 1) bytes = Buffer.concat([before, cut]);
        else if (kind === 2) bytes = Buffer.concat([before, content, after]);
        else bytes = Buffer.concat([cut, before, after.subarray(0, length)]);
        if (bytes.length === 0) return;
      }
      survives(bytes);
    }),
    { numRuns: 1500, seed: 2 },
  );
});

test("random bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      survives(bytes);
    }),
    { numRuns: 2000, seed: 3 },
  );
});

test("a real model with damage in its structure", () => {
  const bytes = readRealModel("silero-16k");
  const uniform = uniformSource(4);
  let accepted = 0;
  for (let i = 0; i < 300; i++) {
    const copy = bytes.slice();
    // The first and last bytes hold nodes and names; what lies between is mostly weights.
    const at = Math.floor(uniform() * 20_000);
    copy[i % 2 === 0 ? at : bytes.length - 1 - at] = Math.floor(uniform() * 256);
    if (survives(copy)) accepted++;
  }
  assert.ok(accepted > 0, "some damage does not matter");
});
