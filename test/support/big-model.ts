/**
 * Models larger than 2 GiB, in external data that takes no room on disk: the data file is sparse, all zero but for a few marked pages in
 * every weight.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { encodeModel } from "../../src/core/onnx/save.ts";
import { lazyTensor } from "../../src/core/onnx/tensor.ts";
import type { LocalFile } from "../../src/tasks/protocol.ts";
import { GraphMaker, uniformSource } from "./graphs.ts";

export interface BigModel {
  readonly files: readonly LocalFile[];
  readonly weightBytes: number;
}

const MARK_FLOATS = 1024;

/**
 * Writes y = x · W0 · W1 … with square float32 weights of `side`, as many as make `weightBytes`, to `directory`. 12 weights of
 * 8192 x 8192 are 3 GiB. The first and the last 4 KiB of every weight are random numbers within 0.01 of zero.
 */
export function writeBigModel(directory: string, weightBytes = 3 * 2 ** 30, side = 8192): BigModel {
  const make = new GraphMaker();
  let x = make.input("x", ["n", side]);
  for (let written = 0; written < weightBytes; written += 4 * side * side) {
    const weight = lazyTensor("float32", [side, side], () => {
      throw new Error("the weights are in the file");
    });
    x = make.op("MatMul", [x, make.graph.addInitializer("w", weight)]);
  }
  make.output(x, "y", ["n", side]);

  const [model, data] = ["model.onnx", "model.onnx.data"].map((name) => ({ name, path: join(directory, name) }));
  const encoded = encodeModel(make.model, { location: data!.name, maxInlineBytes: 0 });
  writeFileSync(model!.path, Buffer.concat(encoded.model.chunks as Uint8Array[]));
  const fd = openSync(data!.path, "w");
  ftruncateSync(fd, encoded.data!.byteLength);
  for (const { offset, mark } of marksOf(make, side)) writeSync(fd, mark, 0, mark.length, offset);
  closeSync(fd);
  return { files: [model!, data!], weightBytes: encoded.data!.byteLength };
}

/** The marked pages: weights stand one after the other, because a square of 4 KiB or more ends on a page. */
function* marksOf(make: GraphMaker, side: number): Generator<{ offset: number; mark: Uint8Array }> {
  const uniform = uniformSource(side);
  const weightBytes = 4 * side * side;
  for (let i = 0; i < make.graph.initializers.size; i++) {
    for (const offset of [i * weightBytes, (i + 1) * weightBytes - 4 * MARK_FLOATS]) {
      const floats = Float32Array.from({ length: MARK_FLOATS }, () => 0.02 * uniform() - 0.01);
      yield { offset, mark: new Uint8Array(floats.buffer) };
    }
  }
}

/** Reads `length` bytes of a file at `offset`. */
export function readAt(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const fd = openSync(path, "r");
  const count = readSync(fd, bytes, 0, length, offset);
  closeSync(fd);
  return bytes.subarray(0, count);
}
