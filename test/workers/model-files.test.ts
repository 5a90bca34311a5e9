import assert from "node:assert/strict";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { Model } from "../../src/core/onnx/ir.ts";
import { printModel } from "../../src/core/onnx/print.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import { lazyTensor, type Tensor } from "../../src/core/onnx/tensor.ts";
import { openSession } from "../../src/core/runtime/session.ts";
import { openModel, openWrittenModel, writeModel, writeRenamed } from "../../workers/model-files.ts";
import { readAt, writeBigModel } from "../support/big-model.ts";
import {
  branches,
  cnn,
  GraphMaker,
  loop,
  lstm,
  type MakerOptions,
  randomFeeds,
  transformer,
} from "../support/graphs.ts";
import { REAL_MODEL_NAMES, REAL_MODELS, readRealModel } from "../support/real-models.ts";

const scratch = mkdtempSync(join(tmpdir(), "model-files-"));
after(() => rmSync(scratch, { recursive: true }));

function folder(): string {
  return mkdtempSync(join(scratch, "case-"));
}

async function outputsOf(model: { path: string } | { bytes: Uint8Array }, feeds: Record<string, Tensor>) {
  const session = await openSession(model);
  const outputs = await session.run(feeds);
  await session.close();
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { dims, bytes }]) => [name, { dims, bytes: [...bytes] }]),
  );
}

for (const name of REAL_MODEL_NAMES) {
  test(`${name}: opened and written it is the same file`, async () => {
    const directory = folder();
    const [file] = await writeModel(openModel([{ name, path: REAL_MODELS[name] }]), directory, "model.onnx");
    assert.deepEqual(file, {
      name: "model.onnx",
      path: join(directory, "model.onnx"),
      media_type: "application/octet-stream",
    });
    assert.ok(readFileSync(file!.path).equals(readRealModel(name)));
  });
}

const NETWORKS: Record<string, (options?: MakerOptions) => Model> = { cnn, transformer, lstm, branches, loop };

for (const [name, build] of Object.entries(NETWORKS)) {
  for (const storage of ["initializer", "constant"] as const)
    test(`${name} in ${storage}s: onnxruntime finds the weights in the data file, in bodies too, and computes the same`, async () => {
      const model = build({ storage });
      const files = await writeModel(model, folder(), "model.onnx", { maxInlineBytes: 0 });
      assert.deepEqual(
        files.map((file) => file.name),
        ["model.onnx", "model.onnx.data"],
      );
      const feeds = randomFeeds(model);
      assert.deepEqual(
        await outputsOf({ path: files[0]!.path }, feeds),
        await outputsOf({ bytes: modelToBytes(model) }, feeds),
      );
      for (const read of [openModel(files), openWrittenModel(files[0]!.path)]) {
        assert.equal(printModel(read, { digests: true }), printModel(model, { digests: true }));
      }
    });
}

test("the file of an external tensor must be given, under the name the model uses", async () => {
  const [file, data] = await writeModel(cnn(), folder(), "model.onnx", { maxInlineBytes: 0 });
  const missing = {
    code: "invalid_model",
    subject: "model.onnx.data",
    message: /upload that file together with the model/,
  };
  assert.throws(() => openModel([file!]), missing);
  assert.throws(() => openModel([file!, { ...data!, name: "weights.bin" }]), missing);
  assert.ok(openModel([file!, { ...data!, path: data!.path }]));
});

test("a data file that is too short is refused, and one that shrinks later is an error of ours", async () => {
  const [file, data] = await writeModel(cnn(), folder(), "model.onnx", { maxInlineBytes: 0 });
  const model = openModel([file!, data!]);
  truncateSync(data!.path, 100);
  assert.throws(() => openModel([file!, data!]), { code: "invalid_model", message: /which has 100/ });
  const large = [...model.graph.initializers].find(({ constant }) => constant!.byteLength > 1024)!;
  assert.throws(() => large.constant!.bytes, { code: "internal", subject: "model.onnx.data" });
});

test("a model file of more than 2 GiB is refused before it is read", () => {
  const path = join(folder(), "model.onnx");
  writeFileSync(path, "");
  truncateSync(path, 2 ** 31);
  assert.throws(() => openModel([{ name: "model.onnx", path }]), { code: "limit_exceeded", subject: "model.onnx" });
});

test("when a tensor cannot be computed no file stays behind", async () => {
  const directory = folder();
  const make = new GraphMaker();
  make.output(make.op("Relu", [make.input("x", [1])]), "y");
  make.weight("w", [1000, 1000], 1);
  make.graph.addInitializer(
    "broken",
    lazyTensor("float32", [1000], () => {
      throw new Error("on purpose");
    }),
  );
  for (const options of [{}, { maxInlineBytes: 0 }]) {
    await assert.rejects(writeModel(make.model, directory, "model.onnx", options), /on purpose/);
    assert.deepEqual(readdirSync(directory), []);
  }
});

test("a tensor whose bytes are not as many as it said is never written as a model", async () => {
  const directory = folder();
  const make = new GraphMaker();
  make.output(make.op("Relu", [make.input("x", [1])]), "y");
  make.graph.addInitializer(
    "short",
    lazyTensor("float32", [1000], () => new Uint8Array(3999)),
  );
  await assert.rejects(writeModel(make.model, directory, "model.onnx"), { code: "internal" });
  assert.deepEqual(readdirSync(directory), []);
});

test("cancelling stops between two tensors and leaves nothing", async () => {
  const directory = folder();
  const abort = new AbortController();
  const make = new GraphMaker();
  make.output(make.op("Relu", [make.input("x", [1])]), "y");
  let computed = 0;
  for (let i = 0; i < 10; i++) {
    const weight = lazyTensor("float32", [10_000], () => {
      if (++computed === 3) abort.abort();
      return new Uint8Array(40_000);
    });
    make.graph.addInitializer("w", weight);
  }
  await assert.rejects(writeModel(make.model, directory, "model.onnx", { signal: abort.signal }), {
    code: "cancelled",
  });
  assert.equal(computed, 3);
  assert.deepEqual(readdirSync(directory), []);
});

const noFullDisk = existsSync("/dev/full") ? false : "this system has no device that is always full";
test("a full disk is reported and nothing stays behind", { skip: noFullDisk }, async () => {
  const directory = folder();
  // Every write to the device fails as on a full disk. The link is what gets removed.
  symlinkSync("/dev/full", join(directory, "model.onnx"));
  await assert.rejects(writeModel(cnn(), directory, "model.onnx"), { code: "ENOSPC" });
  assert.deepEqual(readdirSync(directory), []);
});

test("renamed, a model with external data loads beside its data of the new name, in one folder with the first", async () => {
  const directory = folder();
  const model = cnn();
  const files = await writeModel(model, directory, "model.onnx", { maxInlineBytes: 0 });
  assert.equal(files.length, 2);
  const renamed = await writeRenamed(files, directory, "static.model.onnx");
  assert.deepEqual(renamed, { ...files[0], name: "static.model.onnx", path: join(directory, "static.model.onnx") });
  const feeds = randomFeeds(model);
  // As it is, its data are not found.
  renameSync(files[1]!.path, join(directory, "static.model.onnx.data"));
  await assert.rejects(outputsOf({ path: files[0]!.path }, feeds), /model\.onnx\.data/);
  const expected = await outputsOf({ bytes: modelToBytes(model) }, feeds);
  assert.deepEqual(await outputsOf({ path: renamed.path }, feeds), expected);
});

test("a model of 2.5 GiB is opened and written in the memory of a few of its weights", async () => {
  const directory = folder();
  const weights = 10;
  const weightBytes = 2 ** 28;
  const big = writeBigModel(directory, weights * weightBytes);
  const before = process.memoryUsage.rss();
  const copy = await writeModel(openModel(big.files), folder(), "model.onnx");
  const peak = 1024 * process.resourceUsage().maxRSS;
  const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20);
  console.log(`resident: ${mebibytes(before)} MiB before, ${mebibytes(peak)} MiB at the most`);
  assert.ok(peak - before < 4 * weightBytes, "flat memory");

  assert.ok(readFileSync(copy[0]!.path).equals(readFileSync(big.files[0]!.path)));
  let marked = 0;
  for (let i = 0; i < weights; i++) {
    for (const offset of [i * weightBytes, i * weightBytes + weightBytes / 2, (i + 1) * weightBytes - 4096]) {
      const [expected, actual] = [big.files[1]!, copy[1]!].map(({ path }) => readAt(path, offset, 4096));
      assert.ok(actual!.equals(expected!), `bytes at ${offset}`);
      if (expected!.some((byte) => byte !== 0)) marked++;
    }
  }
  assert.equal(marked, 2 * weights);
});
