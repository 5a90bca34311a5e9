import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pino } from "pino";
import { parse } from "yaml";
import type { BlobStore } from "../../src/service/blobs/blob-store.ts";
import { createFileBlobStore } from "../../src/service/blobs/fs.ts";
import { openObjects } from "../../src/service/blobs/open-objects.ts";
import type { ModelRecord } from "../../src/service/catalog.ts";
import { startDeliveries } from "../../src/service/jobs/deliveries.ts";
import type { JobRecord, JobStore } from "../../src/service/jobs/job-store.ts";
import { createRedisJobStore } from "../../src/service/jobs/redis-job-store.ts";
import { createMlflowClient, type MlflowClient } from "../../src/service/mlflow/client.ts";
import { emptyMetrics, factsSaying, queuedJob } from "../support/jobs.ts";
import { createMemoryTexts } from "../support/long-texts.ts";
import { type MlflowServer, startMlflowServer } from "../support/mlflow-server.ts";
import { startTestRedis, type TestRedis } from "../support/redis.ts";
import { S3_CREDENTIALS, type S3Server, startS3Server } from "../support/s3-server.ts";
import { until } from "../support/until.ts";
import { chunksOf } from "./blob-store.ts";

const MODEL = randomBytes(3_000_000);

let redis: TestRedis;
let jobs: JobStore & { close(): void };
let blobs: BlobStore;
let directory: string;
let deliveries: { close(): Promise<void> };
let receiver: Server;
let base: string;
let s3: S3Server;
let mlflow: MlflowServer;
let mlflowClient: MlflowClient;
let model: ModelRecord;
let answers: number[] = [];
const received: { method: string; path: string; headers: IncomingHttpHeaders; body: Buffer }[] = [];

before(async () => {
  redis = await startTestRedis();
  directory = await mkdtemp(join(tmpdir(), "deliveries-"));
  blobs = await createFileBlobStore(directory);
  jobs = createRedisJobStore(redis.redis, createMemoryTexts());
  receiver = createServer(async (request, response) => {
    const body = Buffer.concat(await Array.fromAsync(request));
    received.push({ method: request.method!, path: request.url!, headers: request.headers, body });
    response.writeHead(answers.shift() ?? 200, { location: "/elsewhere" }).end("<Error>secret</Error>");
  }).listen(0, "127.0.0.1");
  await once(receiver, "listening");
  base = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
  s3 = await startS3Server();
  mlflow = await startMlflowServer();
  mlflowClient = createMlflowClient({ url: mlflow.url, credentials: { username: "press", password: "pw" } });
  deliveries = startDeliveries({
    ...{ redis: await redis.open("worker"), jobs, blobs },
    models: { get: async (id) => (id === "mdl_b" ? model : undefined) },
    objects: openObjects({ endpoint: s3.endpoint, region: "us-east-1", credentials: S3_CREDENTIALS }),
    mlflow: { client: mlflowClient, experiment: "compressed" },
    lists: {
      deliverAllowHosts: [new URL(base).host],
      deliverAllowBuckets: [`${s3.bucket}/out/`],
      deliverAllowRegisteredModels: ["digits"],
    },
    log: pino({ level: "silent" }),
  });
});
after(async () => {
  await deliveries.close();
  jobs.close();
  await s3.close();
  await mlflowClient.close();
  await mlflow.close();
  receiver.close();
  receiver.closeAllConnections();
  await redis.close();
  await rm(directory, { recursive: true });
});

/** A job that has succeeded, or ended otherwise, with a model to deliver. */
async function ended(
  deliver_to: JobRecord["deliver_to"],
  status: "succeeded" | "failed" = "succeeded",
  model_id = "mdl_b",
): Promise<string> {
  const waiting = { status: "waiting", at: new Date().toISOString(), detail: null, location: null } as const;
  const { id } = (await jobs.create(queuedJob({ deliver_to: deliver_to!, delivery: waiting }))).job;
  await jobs.transition(id, ["queued"], "running", { attempt: 1 });
  const ref = await blobs.put(chunksOf(MODEL, 100_000), { maxBytes: MODEL.length });
  const artifacts = [{ ...ref, name: "model.onnx", media_type: "application/octet-stream" }];
  model = {
    ...{ id: "mdl_b", name: "digits float16", identity: "b", created_at: "", metadata: {}, derived_from: null },
    ...{
      sha256: ref.sha256,
      size_bytes: ref.size_bytes,
      files: [{ ...ref, name: "digits.onnx" }],
      facts: factsSaying("test"),
    },
  };
  const result = { model_id, accepted: true, artifacts, metrics: emptyMetrics(), steps: null };
  const patch = status === "succeeded" ? { result } : {};
  await jobs.transition(id, ["running"], status, { finished_at: new Date().toISOString(), ...patch });
  return id;
}

type Delivery = NonNullable<JobRecord["delivery"]>;

function deliveryOf(id: string, holds: (delivery: Delivery) => boolean): Promise<Delivery> {
  return until(`the delivery of ${id}`, async () => {
    const { delivery } = (await jobs.get(id))!;
    return holds(delivery!) && delivery!;
  });
}

const logged = async (id: string) =>
  (await jobs.events(id, 0, 1000)).data.filter(({ type }) => type === "log").map(({ data }) => data.message);

test("the artifact of a job that has succeeded is put to its address, of others nothing is", async () => {
  const failed = await ended({ url: `${base}/failed`, artifact: "model.onnx" }, "failed");
  const id = await ended({ url: `${base}/bucket/key?signature=1`, artifact: "model.onnx" });
  const delivery = await deliveryOf(id, ({ status }) => status !== "waiting");
  assert.deepEqual([delivery.status, delivery.detail], ["delivered", null]);
  const [{ method, path, headers, body }] = received.splice(0) as [(typeof received)[number]];
  assert.deepEqual([method, path], ["PUT", "/bucket/key?signature=1"]);
  assert.deepEqual([headers["content-length"], headers["content-type"]], [String(MODEL.length), undefined]);
  assert.ok(body.equals(MODEL));
  assert.deepEqual(await logged(id), ["model.onnx was delivered."]);
  assert.equal((await jobs.get(failed))!.delivery!.status, "waiting");
});

test("what may pass is tried again; what will not, is not", async () => {
  answers = [503, 200];
  const again = await ended({ url: `${base}/again`, artifact: "model.onnx" });
  const first = await deliveryOf(again, ({ status, detail }) => status !== "waiting" || detail !== null);
  assert.deepEqual(first.status, "waiting");
  assert.equal((await deliveryOf(again, ({ status }) => status !== "waiting")).status, "delivered");
  assert.ok(received.splice(0).every(({ path, body }) => path === "/again" && body.equals(MODEL)));
  assert.deepEqual(await logged(again), [
    "model.onnx was not delivered: the receiver answered 503. It will be tried again.",
    "model.onnx was delivered.",
  ]);
  for (const [to, answer, detail] of [
    [
      { url: `${base}/expired`, artifact: "model.onnx" },
      403,
      "model.onnx was not delivered: the receiver answered 403.",
    ],
    [{ url: `${base}/moved`, artifact: "model.onnx" }, 307, "model.onnx was not delivered: the receiver answered 307."],
    [{ url: base, artifact: "other.bin" }, 200, "other.bin was not delivered: the job has no artifact other.bin."],
    [
      { url: "https://example.org/", artifact: "model.onnx" },
      200,
      "model.onnx was not delivered: it is not allowed to go there any more.",
    ],
  ] as const) {
    answers = [answer];
    const id = await ended(to);
    const delivery = await deliveryOf(id, ({ status }) => status !== "waiting");
    assert.deepEqual([delivery.status, delivery.detail], ["failed", detail]);
    assert.deepEqual(await logged(id), [`${detail} That was the last attempt.`]);
  }
});

test("an object of a listed bucket is written; what S3 refuses is told, and no other object is touched", async () => {
  s3.refusals.set("out/denied", { status: 403, code: "AccessDenied" });
  s3.refusals.set("out/later", { status: 503, code: "SlowDown" });
  s3.refusals.set("out/proxy", { status: 404 });
  const outcome = async (key: string) => {
    const id = await ended({ url: `s3://${s3.bucket}/${key}`, artifact: "model.onnx" });
    const { status, detail } = await deliveryOf(
      id,
      (delivery) => delivery.status !== "waiting" || delivery.detail !== null,
    );
    return [status, detail, (await logged(id))[0]];
  };
  const ending = (status: string, reason: string, next: string) => {
    const detail = `model.onnx was not delivered: ${reason}.`;
    return [status, detail, `${detail} ${next}`];
  };
  const last = "That was the last attempt.";
  const forbidden = ending("failed", "it is not allowed to go there any more", last);
  assert.deepEqual(
    await Promise.all(
      ["out/a b/m.onnx", "out/denied", "elsewhere", "out/../elsewhere", "out/proxy", "out/later"].map(outcome),
    ),
    [
      ["delivered", null, `model.onnx was delivered as s3://${s3.bucket}/out/a b/m.onnx.`],
      ending("failed", "S3 answered 403 AccessDenied", last),
      forbidden,
      forbidden,
      ending("failed", "S3 answered 404", last),
      ending("waiting", "S3 answered 503 SlowDown", "It will be tried again."),
    ],
  );
  assert.deepEqual([...s3.objects.keys()], ["out/a b/m.onnx"]);
  assert.ok(s3.objects.get("out/a b/m.onnx")!.equals(MODEL));
});

test("a listed model of MLflow gets a version with the files, the numbers and where they come from, and one only", async () => {
  mlflow.refusals.set("model-versions/create", { status: 503 });
  const id = await ended({ url: "models:/digits", artifact: "model.onnx" });
  const first = await deliveryOf(id, ({ status, detail }) => status !== "waiting" || detail !== null);
  assert.deepEqual([first.status, first.detail], ["waiting", "model.onnx was not delivered: MLflow: it answered 503."]);
  const { status, location } = await deliveryOf(id, (delivery) => delivery.status !== "waiting");
  assert.deepEqual([status, location], ["delivered", "models:/digits/1"]);
  assert.deepEqual((await logged(id)).at(-1), "model.onnx was delivered as models:/digits/1.");

  assert.equal(mlflow.runs.size, 1, "the second attempt goes on with the run of the first");
  const [[run_id, run]] = [...mlflow.runs] as [
    [string, typeof mlflow.runs extends ReadonlyMap<string, infer R> ? R : never],
  ];
  const folder = `1/${run_id}/artifacts/model`;
  const [version] = mlflow.versions;
  assert.deepEqual(
    [version!.name, version!.source, version!.run_id],
    ["digits", `mlflow-artifacts:/${folder}`, run_id],
  );
  const tags = Object.fromEntries(version!.tags.map(({ key, value }) => [key, value]));
  assert.equal(tags["modelpress.job_id"], id);
  assert.equal(tags["modelpress.model_sha256"], createHash("sha256").update(MODEL).digest("hex"));
  assert.deepEqual(
    [run.status, Object.fromEntries(run.params.map(({ key, value }) => [key, value])).method],
    ["FINISHED", "float16"],
  );
  assert.ok(run.metrics.length > 0);
  for (const { key, value } of run.metrics) assert.ok(Number.isFinite(value), key);
  assert.deepEqual([...mlflow.artifacts.keys()].sort(), [`${folder}/MLmodel`, `${folder}/digits.onnx`]);
  assert.ok(mlflow.artifacts.get(`${folder}/digits.onnx`)!.equals(MODEL));
  assert.equal(parse(mlflow.artifacts.get(`${folder}/MLmodel`)!.toString()).flavors.onnx.data, "digits.onnx");
  assert.deepEqual([...new Set(mlflow.seen)], [`Basic ${Buffer.from("press:pw").toString("base64")}`]);
});

test("what MLflow refuses is told by its code alone, and a deleted model and another name are not delivered", async () => {
  mlflow.refusals.set("runs/create", { status: 403, code: "PERMISSION_DENIED" });
  const outcome = async (url: string, model_id?: string) => {
    const id = await ended({ url, artifact: "model.onnx" }, "succeeded", model_id);
    const { status, detail } = await deliveryOf(id, (delivery) => delivery.status !== "waiting");
    return [status, detail];
  };
  const failed = (reason: string) => ["failed", `model.onnx was not delivered: ${reason}.`];
  assert.deepEqual(await outcome("models:/digits"), failed("MLflow: it answered 403 PERMISSION_DENIED"));
  assert.deepEqual(await outcome("models:/digits", "mdl_c"), failed("the model that the job has made was deleted"));
  assert.deepEqual(await outcome("models:/other"), failed("it is not allowed to go there any more"));
});
