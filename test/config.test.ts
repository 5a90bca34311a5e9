import assert from "node:assert/strict";
import { totalmem } from "node:os";
import { test } from "node:test";
import { isLoopback, loadConfig } from "../src/config.ts";
import { ConfigError } from "../src/config-error.ts";

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    loadConfig(env);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

test("an empty environment gives the documented defaults", () => {
  const config = loadConfig({});
  assert.equal(config.host, "127.0.0.1");
  assert.equal(config.port, 8080);
  assert.ok(config.dataDir.endsWith("/data"));
  assert.equal(config.redisUrl, null);
  assert.deepEqual(config.blobStore, { kind: "file" });
  assert.equal(config.maxUploadBytes, 8 * 1024 ** 3);
  assert.equal(config.workerConcurrency, 1);
  assert.ok(config.jobThreads >= 1);
  const day = 24 * 60 * 60 * 1000;
  assert.deepEqual(config.retentionMs, { succeeded: null, failed: 30 * day });
  const kept = loadConfig({ RETENTION_DAYS: "2", RETENTION_FAILED_DAYS: "0" }).retentionMs;
  assert.deepEqual(kept, { succeeded: 2 * day, failed: null });
  assert.deepEqual([config.publicUrl, config.linkSecret], [null, null]);
  assert.equal(loadConfig({ PUBLIC_URL: "https://press.example.com/ml/" }).publicUrl, "https://press.example.com/ml");
  assert.deepEqual(problemsOf({ PUBLIC_URL: "https://a.example/?b", LINK_SECRET: "short" }), [
    "PUBLIC_URL must have neither a query nor a fragment",
    "LINK_SECRET must have at least 32 characters",
  ]);
  assert.ok(Object.isFrozen(config));
});

test("jobs and inspections together take three quarters of the machine, however many run", () => {
  const machine = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  for (const concurrency of [1, 3]) {
    const config = loadConfig({ WORKER_CONCURRENCY: String(concurrency), INSPECT_CONCURRENCY: String(concurrency) });
    const taken = concurrency * config.jobMemoryBytes + config.inspectMemoryBytes;
    assert.ok(taken <= 0.75 * machine && taken > 0.7 * machine, `${taken} of ${machine}`);
  }
  assert.equal(loadConfig({ INSPECT_MEMORY_BYTES: "100000000" }).inspectMemoryBytes, 100_000_000);
});

test("a proxy is trusted by its place or its address, never whoever it is", () => {
  const proxies = (text: string) => loadConfig({ TRUST_PROXY: text }).trustProxy;
  assert.equal(proxies("false"), false);
  assert.equal(proxies("2"), 2);
  assert.deepEqual(proxies("10.0.0.0/8, loopback,::1"), ["10.0.0.0/8", "loopback", "::1"]);
  for (const wrong of ["true", "0", "99", "10.0.0.0/99", "proxy.example", ","]) {
    assert.equal(problemsOf({ TRUST_PROXY: wrong }).length, 1, wrong);
  }
});

test("buckets are listed as they are written, and none lets jobs write over the stored blobs", () => {
  const config = loadConfig({ SOURCE_ALLOW_BUCKETS: "models, Data/In/ ,", S3_ENDPOINT: "http://minio:9000" });
  assert.deepEqual([config.sourceAllowBuckets, config.deliverAllowBuckets], [["models/", "Data/In/"], []]);
  assert.deepEqual(config.s3, { endpoint: "http://minio:9000", region: "us-east-1" });
  for (const wrong of [
    "s3://models",
    "models/released",
    "*",
    "models/../",
    "models/./a/",
    "/a/",
    "models//",
    "mo",
    "a b/",
  ]) {
    assert.match(problemsOf({ DELIVER_ALLOW_BUCKETS: wrong })[0]!, /^DELIVER_ALLOW_BUCKETS must be a list/, wrong);
  }
  const own = { BLOB_STORE: "s3", S3_BUCKET: "press" };
  for (const entry of ["press", "press/", "press/blobs/", "press/blobs/ab/"]) {
    assert.match(problemsOf({ ...own, DELIVER_ALLOW_BUCKETS: entry })[0]!, /must not reach press\/blobs\//);
  }
  assert.deepEqual(
    problemsOf({ ...own, DELIVER_ALLOW_BUCKETS: "press/out/,press/blobs2/,press2", SOURCE_ALLOW_BUCKETS: "press" }),
    [],
  );
});

test("MLflow and the hub are said by the variables of their own clients, and lists need a server", () => {
  const none = loadConfig({});
  assert.deepEqual([none.mlflow, none.sourceAllowRepositories], [null, []]);
  assert.deepEqual(none.huggingFace, { url: "https://huggingface.co", token: null });
  const MLFLOW_TRACKING_URI = "http://mlflow:5000/";
  const server = { url: "http://mlflow:5000", experiment: "modelpress" };
  const of = (more: Record<string, string>) => loadConfig({ MLFLOW_TRACKING_URI, ...more }).mlflow;
  assert.deepEqual(of({}), { ...server, credentials: null });
  assert.deepEqual(of({ MLFLOW_TRACKING_TOKEN: "t" }), { ...server, credentials: { token: "t" } });
  const user = { MLFLOW_TRACKING_USERNAME: "u", MLFLOW_TRACKING_PASSWORD: "p" };
  assert.deepEqual(of({ ...user, MLFLOW_TRACKING_TOKEN: "t", MLFLOW_EXPERIMENT_NAME: "small" }), {
    ...{ url: server.url, experiment: "small" },
    credentials: { username: "u", password: "p" },
  });
  assert.deepEqual(loadConfig({ SOURCE_ALLOW_REPOSITORIES: "Org/*, a/b" }).sourceAllowRepositories, ["Org/*", "a/b"]);
  assert.match(problemsOf({ MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME: "u" })[0]!, /must be set together/);
  for (const list of ["SOURCE_ALLOW_REGISTERED_MODELS", "DELIVER_ALLOW_REGISTERED_MODELS"]) {
    assert.match(problemsOf({ [list]: "digits" })[0]!, new RegExp(`MLFLOW_TRACKING_URI must be set when ${list} is`));
    assert.match(
      problemsOf({ MLFLOW_TRACKING_URI, [list]: "a*b" })[0]!,
      new RegExp(`^${list} must be a list of names`),
    );
  }
});

test("empty variables count as unset", () => {
  assert.equal(loadConfig({ PORT: "", REDIS_URL: "", API_KEYS_FILE: "" }).port, 8080);
});

test("every problem is reported at once, with the variable's name", () => {
  const problems = problemsOf({
    PORT: "eighty",
    MAX_UPLOAD_BYTES: "-1",
    LOG_LEVEL: "loud",
    BLOB_STORE: "s3",
    REDIS_URL: "localhost:6379",
    HOST: "0.0.0.0",
  });
  for (const name of ["PORT", "MAX_UPLOAD_BYTES", "LOG_LEVEL", "S3_BUCKET", "REDIS_URL", "API_KEYS_FILE"]) {
    assert.equal(problems.filter((problem) => problem.startsWith(`${name} `)).length, 1, `${name} in ${problems}`);
  }
  assert.equal(problems.length, 6);
});

test("numbers outside their range are refused, not clamped", () => {
  assert.equal(problemsOf({ PORT: "70000" }).length, 1);
  assert.equal(problemsOf({ WORKER_CONCURRENCY: "0" }).length, 1);
  assert.equal(problemsOf({ JOB_TIMEOUT_MS: "1e3" }).length, 1);
});

test("without keys only loopback may be listened on", () => {
  for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) assert.ok(isLoopback(host), host);
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.example.org"]) assert.ok(!isLoopback(host), host);
  assert.deepEqual(problemsOf({ HOST: "0.0.0.0", API_KEYS_FILE: "keys.json" }), []);
});
