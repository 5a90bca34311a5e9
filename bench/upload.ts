import { randomBytes } from "node:crypto";
import { openAsBlob } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Gauges, readGauges } from "../scripts/demo/gauges.ts";
import { startStack } from "../scripts/demo/stack.ts";
import { encodeModel } from "../src/core/onnx/save.ts";
import { lazyTensor } from "../src/core/onnx/tensor.ts";
import { GraphMaker } from "../test/support/graphs.ts";

/** Uploads a model of 1 GiB: how fast, and what it does to the API process. */

const SIDE = 16_384; // A float32 matrix of 16384 x 16384 is 1 GiB.
const POLL_MS = 50;

/** Writes `y = x · W` with one matrix of random bits; the exponent bits are bent so that every weight is finite and small. */
async function writeModel(path: string): Promise<number> {
  const block = randomBytes(4 * 2 ** 20);
  for (let i = 3; i < block.length; i += 4) block[i] = (block[i]! & 0x80) | 0x3a;
  const maker = new GraphMaker();
  const weight = maker.graph.addInitializer(
    "W",
    lazyTensor("float32", [SIDE, SIDE], () => block),
  );
  const x = maker.input("x", ["n", SIDE]);
  const node = maker.graph.append({ opType: "MatMul", inputs: [x, weight], outputs: 1 });
  maker.output(node.outputs[0]!, "y", ["n", SIDE]);

  const { model } = encodeModel(maker.model, { location: "data" });
  const file = await open(path, "w");
  for (const chunk of model.chunks) {
    if (chunk instanceof Uint8Array) await file.write(chunk);
    else for (let at = 0; at < chunk.byteLength; at += block.length) await file.write(block);
  }
  await file.close();
  return model.byteLength;
}

const folder = await mkdtemp(join(tmpdir(), "bench-upload-"));
const stack = await startStack({ LOG_LEVEL: "warn" });
try {
  const path = join(folder, "model.onnx");
  const bytes = await writeModel(path);
  const before = await readGauges(stack.url);
  const readings: Gauges[] = [];
  const sentAt: { done?: number } = {};

  const started = performance.now();
  const blob = await openAsBlob(path);
  const watched = blob.stream().pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      flush() {
        sentAt.done = performance.now();
      },
    }),
  );
  const upload = fetch(`${stack.url}/v1/models?name=big`, {
    method: "POST",
    headers: { "content-type": "application/octet-stream" },
    body: watched,
    duplex: "half",
  } as RequestInit);
  let response: Response | undefined;
  upload.then(
    (answer) => (response = answer),
    () => (response = Response.error()),
  );
  while (response === undefined) {
    readings.push(await readGauges(stack.url));
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const ended = performance.now();
  if (response.status !== 201) throw new Error(`The upload answered ${response.status}: ${await response.text()}`);

  const mib = (value: number) => `${(value / 2 ** 20).toFixed(0)} MiB`;
  const sentSeconds = ((sentAt.done ?? ended) - started) / 1000;
  const peak = Math.max(...readings.map(({ residentBytes }) => residentBytes));
  const late = Math.max(...readings.map(({ eventLoopMaxSeconds }) => eventLoopMaxSeconds));
  console.log(`sent ${mib(bytes)} in ${sentSeconds.toFixed(1)} s, ${(bytes / 1e6 / sentSeconds).toFixed(0)} MB/s`);
  console.log(`inspected in ${((ended - started) / 1000 - sentSeconds).toFixed(1)} s more`);
  console.log(`API memory: ${mib(before.residentBytes)} before, at most ${mib(peak)} during`);
  console.log(`event loop: at most ${(1000 * late).toFixed(0)} ms late`);
} finally {
  await stack.close();
  await rm(folder, { recursive: true });
}
