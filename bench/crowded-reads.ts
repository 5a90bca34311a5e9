import { startStack } from "../scripts/demo/stack.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { mlp } from "../test/support/graphs.ts";

/**
 * How long reads and /healthz take while others ask for too much: with full lists of jobs that exclude thousands of nodes, while clients ask about
 * models and hang up, and while many follow a job. Prints p50, p99 and the longest, for each.
 */

const JOBS = Number(process.env.JOBS ?? 100);
const STREAMS = Number(process.env.STREAMS ?? 200);
const ABANDONING = 20;
const READS = Number(process.env.READS ?? 200);

const JSON_BODY = { "content-type": "application/json" };
const stack = await startStack({
  LOG_LEVEL: "error",
  RATE_LIMIT_PER_MINUTE: "0",
  MAX_QUEUED_JOBS_PER_KEY: "1000",
  MAX_REQUESTS_PER_KEY: "1000",
  MAX_STREAMS_PER_KEY: "1000",
});

async function send(method: string, path: string, body?: object): Promise<{ readonly id: string }> {
  const init = body === undefined ? {} : { body: JSON.stringify(body), headers: JSON_BODY };
  const answer = await fetch(stack.url + path, { method, ...init });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text.slice(0, 300)}`);
  return JSON.parse(text);
}

async function measure(title: string, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const times: number[] = [];
    let failed = 0;
    for (let i = 0; i < READS; i++) {
      const started = performance.now();
      const answer = await fetch(stack.url + path);
      await answer.arrayBuffer();
      times.push(performance.now() - started);
      if (!answer.ok) failed++;
    }
    times.sort((a, b) => a - b);
    const at = (share: number) =>
      `${times[Math.min(times.length - 1, Math.floor(share * times.length))]!.toFixed(1)} ms`;
    console.log(
      `${title.padEnd(28)} ${path.replace(/[0-9a-f-]{36}/, "…").padEnd(24)} p50 ${at(0.5)}  p99 ${at(0.99)}  max ${at(1)}  ${failed} failed`,
    );
    if (failed > 0) process.exitCode = 1;
  }
}

try {
  const bytes = Buffer.from(modelToBytes(mlp()));
  const upload = await fetch(`${stack.url}/v1/models?name=m`, {
    method: "POST",
    body: bytes,
    headers: { "content-type": "application/octet-stream" },
  });
  const model = (await upload.json()) as { readonly id: string; readonly inputs: { readonly shape: unknown[] }[] };
  const waiting = { type: "quantize", model_id: model.id, params: { method: "float16" }, priority: 10 };
  const reads = ["/healthz", "/v1/models", `/v1/models/${model.id}`, "/v1/jobs?limit=100"];
  await measure("alone", reads);

  const metadata = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`key ${i}`, "x".repeat(512)]));
  for (let i = 0; i < JOBS; i++) await send("POST", "/v1/jobs", { ...waiting, metadata });
  await measure(`${JOBS} jobs, 8 KiB of metadata`, reads);

  const stop = new AbortController();
  const dim = model.inputs.flatMap(({ shape }) => shape).find((it) => typeof it === "string") as string | undefined;
  const abandon = async (client: number) => {
    for (let i = 1; !stop.signal.aborted; i++) {
      const path = dim === undefined ? "/layers" : `?dims=${encodeURIComponent(dim)}:${client * 100_000 + i}`;
      await fetch(`${stack.url}/v1/models/${model.id}${path}`, { signal: AbortSignal.timeout(300) }).catch(() => {});
    }
  };
  const abandoning = Array.from({ length: ABANDONING }, (_, client) => abandon(client + 1));
  await measure(`${ABANDONING} abandon inspections`, reads);
  stop.abort();
  await Promise.all(abandoning);

  const followed = await send("POST", "/v1/jobs", waiting);
  const streams = new AbortController();
  const open = Array.from({ length: STREAMS }, () =>
    fetch(`${stack.url}/v1/jobs/${followed.id}/events/stream`, { signal: streams.signal }),
  );
  await Promise.all(open);
  await measure(`${STREAMS} streams`, reads);
  streams.abort();
} finally {
  await stack.close();
}
