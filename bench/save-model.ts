import { readFileSync } from "node:fs";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "onnx-buf";
import { loadModel } from "../src/core/onnx/load.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { GraphMaker } from "../test/support/graphs.ts";
import { openModel, writeModel } from "../workers/model-files.ts";

/**
 * How fast a model is written: inside one file, and in external data; against the writer of the protobuf library, and against the
 * same bytes written by one call. The target is 1 GB/s.
 */

const TENSOR_BYTES = 64 * 2 ** 20;
const TENSORS = 16;
/** The library moves about 55 MB/s: it gets a smaller model. */
const LIBRARY_TENSORS = 2;
const RUNS = 5;

/** `tensors` weights of 64 MiB, the same random bytes in each. */
function modelOf(tensors: number) {
  const make = new GraphMaker();
  const side = Math.sqrt(TENSOR_BYTES / 4);
  const { dtype, dims, bytes } = make.random([side, side], 0.01);
  let x = make.input("x", ["n", side]);
  for (let i = 0; i < tensors; i++) {
    // A tensor object of its own, or external data would hold one for all.
    const weight = make.graph.addInitializer("w", { dtype, dims, byteLength: bytes.byteLength, bytes });
    x = make.op("MatMul", [x, weight]);
  }
  make.output(x, "y", ["n", side]);
  return make.model;
}

async function fastest(work: () => Promise<unknown> | unknown): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < RUNS; i++) {
    const started = performance.now();
    await work();
    best = Math.min(best, performance.now() - started);
  }
  return best;
}

function report(what: string, bytes: number, ms: number): number {
  const rate = bytes / 1e6 / (ms / 1e3);
  console.log(
    `${what.padEnd(52)} ${(bytes / 1e6).toFixed(0).padStart(6)} MB ${ms.toFixed(0).padStart(7)} ms ${rate.toFixed(0).padStart(6)} MB/s`,
  );
  return rate;
}

const folder = await mkdtemp(join(tmpdir(), "bench-save-"));
try {
  const model = modelOf(TENSORS);
  const total = TENSORS * TENSOR_BYTES;
  const path = join(folder, "model.onnx");

  const raw = Buffer.alloc(total, 1);
  report("the same number of bytes by one writeFile", total, await fastest(() => writeFile(path, raw)));
  const ours = report(
    "writeModel, weights inside",
    total,
    await fastest(() => writeModel(model, folder, "model.onnx")),
  );
  report(
    "writeModel, weights in external data",
    total,
    await fastest(() => writeModel(model, folder, "model.onnx", { maxInlineBytes: 0 })),
  );

  const files = [
    { name: "model.onnx", path },
    { name: "model.onnx.data", path: `${path}.data` },
  ];
  const copy = openModel(files);
  report("read external data and write it again", total, await fastest(() => writeModel(copy, folder, "copy.onnx")));

  const small = modelToBytes(modelOf(LIBRARY_TENSORS));
  const proto = fromBinary(ModelProtoSchema, small);
  const theirs = report(
    "protobuf-es toBinary, then writeFile",
    small.byteLength,
    await fastest(() => writeFile(join(folder, "library.onnx"), toBinary(ModelProtoSchema, proto))),
  );
  console.log(`writeModel is ${(ours / theirs).toFixed(0)} times as fast as the protobuf library's writer.`);

  await writeModel(model, folder, "inside.onnx");
  const inside = join(folder, "inside.onnx");
  const { size } = await stat(inside);
  const bytes = readFileSync(inside);
  report("loadModel of bytes in memory", size, await fastest(() => loadModel(bytes)));
  report("openModel of a file", size, await fastest(() => openModel([{ name: "inside.onnx", path: inside }])));
} finally {
  await rm(folder, { recursive: true });
}
