import { spawnSync } from "node:child_process";
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
 * same bytes written by one call. The target is 1 GB/s. CPU time is beside wall time, because the disk decides the latter.
 *
 * Runs itself again with the allocator settings of job children: without them every large allocation is paid for in page faults.
 */

const ALLOCATOR = { MALLOC_MMAP_THRESHOLD_: "1073741824", MALLOC_TRIM_THRESHOLD_: "4294967296" };
if (process.env.MALLOC_MMAP_THRESHOLD_ === undefined) {
  const { status } = spawnSync(process.execPath, process.argv.slice(1), {
    stdio: "inherit",
    env: { ...process.env, ...ALLOCATOR },
  });
  process.exit(status ?? 1);
}

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

interface Measured {
  readonly ms: number;
  readonly cpuMs: number;
}

/** The fastest of several runs. */
async function fastest(work: () => Promise<unknown> | unknown): Promise<Measured> {
  let best: Measured = { ms: Number.POSITIVE_INFINITY, cpuMs: 0 };
  for (let i = 0; i < RUNS; i++) {
    const [started, cpu] = [performance.now(), process.cpuUsage()];
    await work();
    const ms = performance.now() - started;
    const { user, system } = process.cpuUsage(cpu);
    if (ms < best.ms) best = { ms, cpuMs: (user + system) / 1000 };
  }
  return best;
}

function report(what: string, bytes: number, { ms, cpuMs }: Measured): number {
  const rate = bytes / 1e6 / (ms / 1e3);
  const columns = [
    `${(bytes / 1e6).toFixed(0)} MB`,
    `${ms.toFixed(0)} ms`,
    `${cpuMs.toFixed(0)} ms CPU`,
    `${rate.toFixed(0)} MB/s`,
  ];
  console.log(what.padEnd(44) + columns.map((text) => text.padStart(12)).join(""));
  return cpuMs / bytes;
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
  console.log(
    `writeModel takes ${(theirs / ours).toFixed(1)} times less CPU per byte than the protobuf library's writer.`,
  );

  await writeModel(model, folder, "inside.onnx");
  const inside = join(folder, "inside.onnx");
  const { size } = await stat(inside);
  const bytes = readFileSync(inside);
  report("loadModel of bytes in memory", size, await fastest(() => loadModel(bytes)));
  report("openModel of a file", size, await fastest(() => openModel([{ name: "inside.onnx", path: inside }])));
} finally {
  await rm(folder, { recursive: true });
}
