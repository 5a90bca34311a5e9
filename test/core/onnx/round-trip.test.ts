import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { TensorProto_DataType as DataType, type ModelProto, ModelProtoSchema } from "onnx-buf";
import type { ExternalData } from "../../../src/core/onnx/external-data.ts";
import type { Model } from "../../../src/core/onnx/ir.ts";
import { loadModel } from "../../../src/core/onnx/load.ts";
import { printModel } from "../../../src/core/onnx/print.ts";
import { encodeModel, modelToBytes } from "../../../src/core/onnx/save.ts";
import type { EncodedFile } from "../../../src/core/onnx/streamed-encoding.ts";
import { deriveTensors, lazyTensor, tensorOf } from "../../../src/core/onnx/tensor.ts";
import { checkInvariants } from "../../../src/core/passes/pass.ts";
import { branches, cnn, GraphMaker, loop, lstm, type MakerOptions, mlp, transformer } from "../../support/graphs.ts";
import { model as protoOf, type TensorInit, W } from "../../support/protos.ts";
import { REAL_MODEL_NAMES, readRealModel } from "../../support/real-models.ts";

const DIGESTS = { digests: true };

const NETWORKS: Record<string, (options?: MakerOptions) => Model> = { mlp, cnn, transformer, lstm, branches, loop };

function bytesOf(file: EncodedFile): Uint8Array {
  const bytes = Buffer.concat(file.chunks.map((chunk) => (chunk instanceof Uint8Array ? chunk : chunk.bytes)));
  assert.equal(bytes.byteLength, file.byteLength, "the announced length");
  return bytes;
}

function inMemory(files: Record<string, Uint8Array>): ExternalData {
  return {
    size: (location) => files[location]?.byteLength,
    read: (location, offset, length) => files[location]!.slice(offset, offset + length),
  };
}

for (const name of REAL_MODEL_NAMES) {
  test(`${name}: untouched, and cloned, it is written back byte for byte`, () => {
    const bytes = readRealModel(name);
    const model = loadModel(bytes);
    checkInvariants(model, "load");
    assert.ok(Buffer.from(bytes).equals(modelToBytes(model)));
    const copy = model.clone();
    checkInvariants(copy, "clone");
    assert.ok(Buffer.from(bytes).equals(modelToBytes(copy)));
  });
}

for (const [name, build] of Object.entries(NETWORKS)) {
  for (const storage of ["initializer", "constant"] as const) {
    test(`${name} in ${storage}s: what is saved is loaded as it was`, () => {
      const model = build({ storage });
      const text = printModel(model, DIGESTS);
      const bytes = modelToBytes(model);
      const loaded = loadModel(bytes);
      checkInvariants(loaded, "load");
      assert.equal(printModel(loaded, DIGESTS), text);
      assert.equal(printModel(model.clone(), DIGESTS), text);
      assert.ok(Buffer.from(bytes).equals(modelToBytes(loaded)), "the second time nothing changes");
    });
  }
}

test("the file is what the protobuf library itself would write", () => {
  const bytes = modelToBytes(transformer());
  const again = toBinary(ModelProtoSchema, fromBinary(ModelProtoSchema, bytes));
  assert.ok(Buffer.from(bytes).equals(again));
});

test("loading does not copy weights", () => {
  const bytes = modelToBytes(mlp());
  for (const { constant } of loadModel(bytes).graph.initializers) {
    assert.equal(constant!.bytes.buffer, bytes.buffer);
  }
});

test("fields that the schema does not know are kept in every message", () => {
  const proto = fromBinary(ModelProtoSchema, modelToBytes(branches()));
  const graph = proto.graph!;
  const unknown = [{ no: 9999, wireType: 2, data: Uint8Array.of(3, 97, 98, 99) }];
  const body = graph.node[0]!.attribute[0]!;
  for (const message of [proto, graph, graph.node[0]!, graph.initializer[0]!, body, body.g!, graph.input[0]!]) {
    message.$unknown = unknown;
  }
  const bytes = toBinary(ModelProtoSchema, proto);
  assert.equal(Buffer.from(bytes).toString("latin1").split("abc").length, 8);
  assert.ok(Buffer.from(bytes).equals(modelToBytes(loadModel(bytes))));
});

test("attribute names that are special to JavaScript are ordinary names", () => {
  const proto = fromBinary(ModelProtoSchema, modelToBytes(mlp()));
  const [attribute] = proto.graph!.node[0]!.attribute;
  proto.graph!.node[0]!.attribute = ["__proto__", "constructor", "z", "transB"].map((name) => ({
    ...attribute!,
    name,
  }));
  const bytes = toBinary(ModelProtoSchema, proto);
  const model = loadModel(bytes);
  assert.deepEqual([...model.graph.nodes[0]!.attrs.keys()], ["__proto__", "constructor", "z", "transB"]);
  assert.equal(model.graph.nodes[0]!.int("__proto__"), 1);
  assert.ok(Buffer.from(bytes).equals(modelToBytes(model.clone())));
});

// ---- tensors in every form ---------------------------------------------------------------------------------------------

const FORMS: { dataType: DataType; dims: bigint[]; typed: TensorInit; raw: readonly number[] }[] = [
  { dataType: DataType.FLOAT, dims: [2n], typed: { floatData: [1, -2] }, raw: [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0] },
  { dataType: DataType.DOUBLE, dims: [1n], typed: { doubleData: [1] }, raw: [0, 0, 0, 0, 0, 0, 0xf0, 0x3f] },
  { dataType: DataType.INT32, dims: [1n], typed: { int32Data: [-2] }, raw: [0xfe, 0xff, 0xff, 0xff] },
  { dataType: DataType.INT16, dims: [2n], typed: { int32Data: [-2, 258] }, raw: [0xfe, 0xff, 2, 1] },
  { dataType: DataType.UINT16, dims: [1n], typed: { int32Data: [65535] }, raw: [0xff, 0xff] },
  { dataType: DataType.INT8, dims: [2n], typed: { int32Data: [-2, 127] }, raw: [0xfe, 0x7f] },
  { dataType: DataType.UINT8, dims: [2n], typed: { int32Data: [255, 0] }, raw: [255, 0] },
  { dataType: DataType.BOOL, dims: [2n], typed: { int32Data: [1, 0] }, raw: [1, 0] },
  { dataType: DataType.FLOAT16, dims: [1n], typed: { int32Data: [0x3c00] }, raw: [0, 0x3c] },
  { dataType: DataType.BFLOAT16, dims: [1n], typed: { int32Data: [0x3f80] }, raw: [0x80, 0x3f] },
  { dataType: DataType.FLOAT8E4M3FN, dims: [1n], typed: { int32Data: [0x38] }, raw: [0x38] },
  { dataType: DataType.INT64, dims: [1n], typed: { int64Data: [-2n] }, raw: [0xfe, ...Array(7).fill(0xff)] },
  { dataType: DataType.UINT64, dims: [1n], typed: { uint64Data: [2n ** 64n - 1n] }, raw: Array(8).fill(0xff) },
  { dataType: DataType.UINT32, dims: [1n], typed: { uint64Data: [2n ** 32n - 1n] }, raw: Array(4).fill(0xff) },
  { dataType: DataType.COMPLEX64, dims: [1n], typed: { floatData: [1, -2] }, raw: [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0] },
  { dataType: DataType.INT4, dims: [3n], typed: { int32Data: [0x21, 0x0f] }, raw: [0x21, 0x0f] },
  { dataType: DataType.UINT2, dims: [5n], typed: { int32Data: [0xe4, 0x01] }, raw: [0xe4, 0x01] },
];

for (const { dataType, dims, typed, raw } of FORMS) {
  test(`${DataType[dataType]}: the typed field and raw_data hold the same bytes, and each is written back as it was`, () => {
    for (const form of [typed, { rawData: Uint8Array.from(raw) }]) {
      const bytes = protoOf({ initializer: [W, { name: "t", dataType, dims, ...form }] });
      const model = loadModel(bytes);
      const value = [...model.graph.initializers].find(({ name }) => name === "t")!;
      assert.deepEqual([...value.constant!.bytes], raw);
      assert.ok(Buffer.from(bytes).equals(modelToBytes(model)));
    }
  });
}

test("long lists of numbers are written as raw_data, with the same values", () => {
  const floatData = Array.from({ length: 1000 }, (_, i) => Math.fround(i / 7));
  const bytes = protoOf({ initializer: [W, { name: "t", dataType: DataType.FLOAT, dims: [1000n], floatData }] });
  const loaded = loadModel(modelToBytes(loadModel(bytes)));
  const { constant } = [...loaded.graph.initializers].find(({ name }) => name === "t")!;
  assert.deepEqual([...new Float32Array(constant!.bytes.slice().buffer)], floatData);
  const again: ModelProto = fromBinary(ModelProtoSchema, modelToBytes(loaded));
  assert.equal(again.graph!.initializer[1]!.floatData.length, 0);
  assert.equal(again.graph!.initializer[1]!.rawData.length, 4000);
});

// ---- external data ---------------------------------------------------------------------------------------------------

for (const [name, build] of Object.entries(NETWORKS)) {
  for (const storage of ["initializer", "constant"] as const)
    test(`${name} in ${storage}s: weights moved into a data file and read from there are the same`, () => {
      const model = build({ storage });
      const text = printModel(model, DIGESTS);
      const encoded = encodeModel(model, { location: "w.data", maxInlineBytes: 0 });
      assert.ok(encoded.data, "there is a data file");
      assert.equal(encoded.data.location, "w.data");
      const files = inMemory({ "w.data": bytesOf(encoded.data) });
      const loaded = loadModel(bytesOf(encoded.model), files);
      assert.equal(printModel(loaded, DIGESTS), text);
      // And back inside again.
      assert.equal(printModel(loadModel(modelToBytes(loaded)), DIGESTS), text);
    });
}

test("data files are aligned to pages, keep small and integer tensors inside, and hold a shared tensor once", () => {
  const make = new GraphMaker();
  const shared = make.random([300]);
  for (const name of ["a", "b"]) make.graph.addInitializer(name, shared);
  make.graph.addInitializer("c", make.random([500]));
  make.graph.addInitializer("small", make.random([10]));
  make.graph.addInitializer("shape", tensorOf("int64", [200], new BigInt64Array(200)));
  const x = make.input("x", [1]);
  make.output(make.op("Relu", [x]), "y");
  const encoded = encodeModel(make.model, { location: "w.data", maxInlineBytes: 0 });
  const proto = fromBinary(ModelProtoSchema, bytesOf(encoded.model));
  const offsets = proto.graph!.initializer.map(({ name, externalData }) => [
    name,
    externalData.find(({ key }) => key === "offset")?.value,
  ]);
  assert.deepEqual(offsets, [
    ["a", "0"],
    ["b", "0"],
    ["c", "4096"],
    ["small", undefined],
    ["shape", undefined],
  ]);
  assert.equal(encoded.data!.byteLength, 4096 + 2000);
});

test("encoding asks no tensor for its bytes; writing asks each once, in order", () => {
  const asked: string[] = [];
  const make = new GraphMaker();
  const x = make.input("x", [1]);
  make.output(make.op("Relu", [x]), "y");
  for (const [name, count] of Object.entries({ large: 1000, small: 2, scalar: 1 })) {
    const read = () => {
      asked.push(name);
      return new Uint8Array(4 * count);
    };
    make.graph.addInitializer(name, lazyTensor("float32", [count], read));
  }
  const { codes, scales } = deriveTensors(
    { codes: { dtype: "int8", dims: [64] }, scales: { dtype: "float32", dims: [2] } },
    () => {
      asked.push("derived");
      return { codes: new Uint8Array(64), scales: new Uint8Array(8) };
    },
  );
  make.graph.addInitializer("codes", codes);
  make.graph.addInitializer("scales", scales);
  const encoded = encodeModel(make.model, { location: "data" });
  assert.deepEqual(asked, []);
  bytesOf(encoded.model);
  assert.deepEqual(asked, ["large", "small", "scalar", "derived"]);
});

test("what passes change is written, and what they leave alone is not", () => {
  const model = loadModel(modelToBytes(mlp()));
  const { graph } = model;
  const [gemm] = graph.nodes;
  gemm!.setAttr("alpha", { type: "float", value: 0.5 });
  gemm!.setAttr("transB", undefined);
  gemm!.setAttr("large", { type: "int", value: 2 ** 63 });
  model.requireOpset("com.microsoft", 1);
  model.irVersion = 9;
  const added = graph.addInitializer("fc_w", tensorOf("float32", [2], [1, 2]));
  assert.equal(added.name, "fc_w_2", "names stay unique");
  const proto = fromBinary(ModelProtoSchema, modelToBytes(model));
  const attributes = new Map(proto.graph!.node[0]!.attribute.map((attribute) => [attribute.name, attribute]));
  assert.deepEqual([...attributes.keys()], ["alpha", "large"]);
  assert.equal(attributes.get("alpha")!.f, 0.5);
  assert.equal(attributes.get("large")!.i, 2n ** 63n - 1n, "the largest int64, not an overflow");
  assert.deepEqual(
    proto.opsetImport.map(({ domain, version }) => [domain, version]),
    [
      ["", 17n],
      ["com.microsoft", 1n],
    ],
  );
  assert.equal(proto.irVersion, 9n);
});

test("a model past the limit of one file moves its weights out by itself", () => {
  const make = new GraphMaker();
  const x = make.input("x", [1]);
  make.output(make.op("Relu", [x]), "y");
  // 2.5 GiB that nobody ever asks for.
  const never = () => assert.fail("bytes were asked for");
  for (let i = 0; i < 5; i++) make.graph.addInitializer(`w${i}`, lazyTensor("float32", [2 ** 27], never));
  const encoded = encodeModel(make.model, { location: "w.data" });
  assert.equal(encoded.data!.byteLength, 5 * 2 ** 29);
  assert.ok(encoded.model.byteLength < 2000);
});
