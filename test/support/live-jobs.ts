import assert from "node:assert/strict";
import { Client, type Job, type JobEvent } from "../../scripts/demo/client.ts";
import type { Stack } from "../../scripts/demo/stack.ts";
import { hungryModel, slowModel } from "./elastic-models.ts";
import { mnistFile } from "./mnist.ts";
import { descendants } from "./processes.ts";
import { until } from "./until.ts";

/** Jobs on a running stack that take as long as a test needs, over HTTP. */
export interface LiveJobs {
  readonly client: Client;
  readonly modelId: string;
  /** Submits a job whose model turns its loop `turns` times in every run, about 1.5 us each. */
  submit(turns: number): Promise<Job>;
  /** Submits a job whose model takes this many bytes for one of its values. */
  submitHungry(bytes: number): Promise<Job>;
  /** The pid of the child that runs a job, when it is at work there. */
  child(id: string): Promise<number>;
  statuses(id: string): Promise<unknown[]>;
  cancel(id: string): Promise<Job>;
  /** The job once it has ended. Throws when that takes too long. */
  ended(id: string, withinMs?: number): Promise<Job>;
  /** The job once it has succeeded. */
  succeeded(job: { readonly id: string }): Promise<Job>;
  /** Uploads the first images of a part of MNIST, and answers the id of the dataset. */
  uploadDigits(...digits: Parameters<typeof mnistFile>): Promise<string>;
}

export async function openLiveJobs(stack: Stack): Promise<LiveJobs> {
  const client = new Client(stack.url);
  const { id: modelId } = await client.uploadModel(slowModel(), "slow");

  const events = async (id: string) =>
    ((await (await client.request(`/v1/jobs/${id}/events?limit=1000`)).json()) as { data: JobEvent[] }).data;

  const submit = (model_id: string, dims: Record<string, number>) =>
    client.createJob({
      type: "quantize",
      model_id,
      params: { method: "weight_only", bits: 8, format: "qdq" },
      evaluation: { samples: 1, dims, latency: { runs: 1 } },
    });

  const ended = (id: string, withinMs = 180_000) =>
    until(
      `the job ${id} has ended`,
      async () => {
        const job = await client.job(id).catch(() => undefined); // 503 while Redis is away, no answer while the API is.
        return job !== undefined && job.finished_at !== null && job;
      },
      withinMs,
    );

  return {
    client,
    modelId,
    submit: (turns) => submit(modelId, { t: Math.ceil(turns / 1_000), u: 1_000 }),
    async submitHungry(bytes) {
      const hungry = await client.uploadModel(hungryModel(), "hungry");
      return submit(hungry.id, { t: Math.ceil(Math.sqrt(bytes / 4)) });
    },
    async child(id) {
      await until(`the job ${id} is at work`, async () => (await client.job(id)).progress !== null);
      return until("its process is there", async () => {
        const [worker] = await descendants(stack.pid, "workers/main.ts");
        return worker !== undefined && (await descendants(worker, "workers/child.ts"))[0];
      });
    },
    statuses: async (id) => (await events(id)).filter(({ type }) => type === "status").map(({ data }) => data.status),
    cancel: async (id) => (await (await client.request(`/v1/jobs/${id}/cancel`, { method: "POST" })).json()) as Job,
    ended,
    async succeeded({ id }) {
      const job = await ended(id, 180_000);
      assert.equal(job.status, "succeeded", JSON.stringify(job.error));
      return job;
    },
    async uploadDigits(...digits) {
      const [part] = digits;
      return (await client.uploadDataset(mnistFile(...digits), `${part}.npz`, part)).id;
    },
  };
}
