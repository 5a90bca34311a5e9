import type { JobMetrics } from "../../src/core/index.ts";
import { finishedJob } from "../../src/service/api/job-examples.ts";
import type { Artifact } from "../../src/service/jobs/job.ts";
import type { TestServer } from "./server.ts";

/** What a worker does to a job's record, step by step. */

export async function startJob({ context }: TestServer, id: string): Promise<void> {
  await context.queue.remove(id);
  await context.jobs.transition(id, ["queued"], "running", { started_at: new Date().toISOString(), attempt: 1 });
}

export async function finishJob(
  server: TestServer,
  id: string,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<void> {
  const { jobs, blobs, claims } = server.context;
  const artifacts: Artifact[] = [];
  for (const [name, bytes] of Object.entries(files)) {
    const chunks = (async function* () {
      yield bytes;
    })();
    const ref = await blobs.put(chunks, { maxBytes: bytes.length, claim: (it) => claims.claim(id, it) });
    artifacts.push({ ...ref, name, media_type: mediaTypeOf(name) });
  }
  if (artifacts.length > 0) await claims.settle(id);
  const metrics = finishedJob.result.metrics as JobMetrics;
  const result = { model_id: "mdl_made", accepted: true, artifacts, metrics, steps: null };
  await jobs.transition(id, ["running"], "succeeded", { finished_at: new Date().toISOString(), result });
}

function mediaTypeOf(name: string): string {
  if (name.endsWith(".html")) return "text/html";
  return name.endsWith(".json") ? "application/json" : "application/octet-stream";
}
