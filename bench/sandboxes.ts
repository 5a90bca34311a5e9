import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { enableCompileCache } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import type { ModelFacts } from "../src/core/contract.ts";
import { createFileBlobStore } from "../src/service/blobs/fs.ts";
import { compileCacheDirectory } from "../src/tasks/compile-cache.ts";
import { createSupervisor } from "../src/tasks/supervisor.ts";
import { sandboxesHere } from "../test/support/sandboxes.ts";

/**
 * What a child that was taken over reaches in each sandbox that this machine allows, and what the sandbox costs: the median time of a child from its
 * start to its first word, in turns.
 *
 *   node bench/sandboxes.ts [starts]
 */

const starts = Number(process.argv[2] ?? 50);
const ENTRY = new URL("../test/support/hostile-child.ts", import.meta.url);
const limits = { timeoutMs: 60_000, memoryBytes: 2 ** 31 };

const directory = await mkdtemp(join(tmpdir(), "sandboxes-"));
const secret = join(directory, "api-keys.json");
await writeFile(secret, "secret");
const blobs = await createFileBlobStore(join(directory, "blobs"));
const server = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const { port } = server.address() as { port: number };
/** Another process of the same user, with a secret in its environment. */
const other = spawn("sleep", ["3600"], { env: { A_SECRET: "1" } });

// As API and worker do: children are shown what is in it.
enableCompileCache(join(directory, "compiled"));
const runners = (await sandboxesHere(ENTRY)).map((sandbox) => ({
  level: sandbox.level,
  runner: createSupervisor({
    entry: ENTRY,
    sandbox,
    log: pino({ level: "silent" }),
    tmpDir: join(directory, sandbox.level),
  }),
  times: [] as number[],
  reached: {} as Record<string, boolean>,
}));

/** Lets the child act; rejects where it does not answer as children do. */
function act(of: (typeof runners)[number], name: string): Promise<ModelFacts> {
  return of.runner.withRoom(async (room) => {
    const bytes = Buffer.from(`innocent bytes of ${of.level}`);
    const ref = await blobs.put(chunk(bytes), { maxBytes: 100 });
    const input = join(room.directory, "input");
    await blobs.materialize(ref, input);
    const blob = join(directory, "blobs", ref.sha256.slice(0, 2), ref.sha256);
    const path = JSON.stringify({ secret, blob, input, port, seconds: "0" });
    return room.run("inspect_model", { files: [{ name, path }], dims: {} }, { limits });
  });
}

async function* chunk(bytes: Uint8Array) {
  yield bytes;
}

/** From the start of a child to its first word, which ends it. */
async function timeStart(of: (typeof runners)[number]): Promise<void> {
  const started = performance.now();
  await act(of, "null").catch(() => {});
  of.times.push(performance.now() - started);
}

try {
  for (const of of runners) of.reached = JSON.parse((await act(of, "reach")).producer);
  for (let i = 0; i < starts; i++) for (const of of runners) await timeStart(of);
  console.log(`| | ${runners.map(({ level }) => level).join(" | ")} |`);
  console.log(`|---|${runners.map(() => "---|").join("")}`);
  for (const what of Object.keys(runners[0]!.reached)) {
    console.log(`| ${what} | ${runners.map(({ reached }) => (reached[what] ? "reached" : "no")).join(" | ")} |`);
  }
  const median = (times: readonly number[]) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!;
  const last = median(runners.at(-1)!.times);
  const costs = runners.map(({ times }) => `${median(times).toFixed(0)} (${(median(times) - last).toFixed(0)} more)`);
  console.log(`| start to first word, ms, median of ${starts} | ${costs.join(" | ")} |`);
} finally {
  for (const { runner } of runners) await runner.close();
  for (const folder of [new URL("../test/support", import.meta.url).pathname, compileCacheDirectory()!]) {
    await rm(join(folder, "written-by-a-child"), { force: true });
  }
  other.kill();
  server.close();
  await rm(directory, { recursive: true, force: true });
}
