import { spawn } from "node:child_process";
import { copyFile, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { startStack } from "../../scripts/demo/stack.ts";
import { encodeModel } from "../../src/core/onnx/save.ts";
import { tensorOf } from "../../src/core/onnx/tensor.ts";
import { writeNpz } from "../../test/support/dataset-writers.ts";
import { startLaterService } from "../../test/support/later-service.ts";
import { fileOf } from "../../test/support/model-file.ts";
import { mlp } from "../../test/support/networks.ts";
import { CLIENTS, type Client, STEPS } from "./clients.ts";

/**
 * Generates a client with each generator, compiles it and drives a live service with it, and prints a table.
 *
 *     node bench/clients/run.ts [--document openapi.yaml] [--work DIR] [--only NAME,…] [--no-drive]
 *
 * `setup.sh` in this folder installs the generators; what is missing is said, not skipped. Generators are not part of the product: their
 * versions are in `setup.sh`.
 */

const HERE = new URL(".", import.meta.url).pathname;
const ROOT = resolve(HERE, "../..");
const STEP_TIMEOUT_MS = 900_000;

interface Outcome {
  readonly name: string;
  readonly generates: string;
  readonly compiles: string;
  readonly steps: readonly string[];
}

const { values: options } = parseArgs({
  options: {
    document: { type: "string", default: join(ROOT, "openapi.yaml") },
    work: { type: "string", default: join(tmpdir(), "modelpress-clients") },
    only: { type: "string" },
    "no-drive": { type: "boolean", default: false },
  },
});

/** Runs a shell command; answers its output, and whether it ended well. */
function run(
  command: string,
  cwd: string,
  env: Readonly<Record<string, string>>,
): Promise<{ ok: boolean; text: string }> {
  return new Promise((done) => {
    const child = spawn("bash", ["-c", command], { cwd, env: { ...process.env, ...env }, timeout: STEP_TIMEOUT_MS });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (text += chunk));
    child.on("error", (error) => done({ ok: false, text: String(error) }));
    child.on("close", (code) => done({ ok: code === 0, text }));
  });
}

/** Two models of one network (in one file and in two), a smaller one, and a labelled dataset for all of them. */
async function writeFiles(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const put = (name: string, bytes: Uint8Array) => writeFile(join(directory, name), bytes);
  const network = mlp([784, 32, 10]);
  await put("model.onnx", fileOf(network));
  await put("student.onnx", fileOf(mlp([784, 8, 10], 1)));
  const { model, data } = encodeModel(mlp([784, 24, 10], 2), { location: "weights.bin", maxInlineBytes: 0 });
  const bytes = (chunks: typeof model.chunks) =>
    Buffer.concat(chunks.map((chunk) => (chunk instanceof Uint8Array ? chunk : chunk.bytes)));
  await put("split.onnx", bytes(model.chunks));
  await put("weights.bin", bytes(data!.chunks));
  const count = 256;
  const pixels = Float32Array.from({ length: count * 784 }, (_, i) => ((i * 2654435761) % 1000) / 1000);
  const labels = BigInt64Array.from({ length: count }, (_, i) => BigInt(i % 10));
  await put(
    "data.npz",
    writeNpz({
      x: tensorOf("float32", [count, 1, 28, 28], pixels),
      labels: tensorOf("int64", [count], labels),
    }),
  );
}

interface Urls {
  readonly now: string;
  /** Of a service of a later version. */
  readonly later: string;
}

async function tryClient(client: Client, work: string, urls: Urls | undefined): Promise<Outcome> {
  const directory = join(work, client.name);
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const env = {
    ...{ DOCUMENT: resolve(options.document), FILES: join(work, "files"), TOOLS: join(work, "tools"), ROOT },
    ...(urls !== undefined && { MODELPRESS_URL: urls.now, FUTURE_URL: urls.later }),
  };
  const outcome = { name: client.name, steps: STEPS.map(() => "") };
  const missing = await run(client.needs, directory, env);
  if (!missing.ok) return { ...outcome, generates: `not tried: ${missing.text.trim() || client.needs}`, compiles: "" };
  const failed = async (what: string, text: string) => {
    await writeFile(join(directory, `${what}.log`), text);
    return `no (${what}.log)`;
  };
  const generated = await run(client.generate, directory, env);
  if (!generated.ok) return { ...outcome, generates: await failed("generate", generated.text), compiles: "" };
  await copyFile(join(HERE, "tours", client.tour), join(directory, client.tourAs));
  const compiled = await run(client.compile, directory, env);
  if (!compiled.ok) return { ...outcome, generates: "yes", compiles: await failed("compile", compiled.text) };
  if (urls === undefined) return { ...outcome, generates: "yes", compiles: "yes" };
  const driven = await run(client.drive, directory, env);
  await writeFile(join(directory, "drive.log"), driven.text);
  const passed = new Set([...driven.text.matchAll(/^ok (\w+)$/gm)].map(([, step]) => step));
  return {
    ...outcome,
    generates: "yes",
    compiles: "yes",
    steps: STEPS.map((step) => (passed.has(step) ? "yes" : "no")),
  };
}

await mkdir(options.work, { recursive: true });
await writeFiles(join(options.work, "files"));
const names = options.only?.split(",");
const stack = options["no-drive"] ? undefined : await startStack({ LOG_LEVEL: "warn" });
const future = await startLaterService();
const urls = stack && { now: stack.url, later: future.url };
try {
  const rows: Outcome[] = [];
  for (const client of CLIENTS) {
    if (names !== undefined && !names.includes(client.name)) continue;
    rows.push(await tryClient(client, options.work, urls));
    console.error(JSON.stringify(rows.at(-1)));
  }
  console.log(`| client | generates | compiles | ${STEPS.join(" | ")} |`);
  console.log(`|${"---|".repeat(3 + STEPS.length)}`);
  for (const { name, generates, compiles, steps } of rows) {
    console.log(`| ${[name, generates, compiles, ...steps].join(" | ")} |`);
  }
} finally {
  future.close();
  await stack?.close();
}
