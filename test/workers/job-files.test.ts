import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { BlobStore } from "../../src/service/blobs/blob-store.ts";
import type { BlobClaims } from "../../src/service/blobs/claims.ts";
import type { Catalog, ModelRecord } from "../../src/service/catalog.ts";
import type { JobRecord } from "../../src/service/jobs/job-store.ts";
import type { SingleSpec } from "../../src/service/kinds/pipeline/steps.ts";
import type { JobOutcome, ProducedFile } from "../../src/tasks/protocol.ts";
import { createJobFiles, originOf } from "../../workers/job-files.ts";
import { emptyMetrics, factsSaying, queuedJob } from "../support/jobs.ts";

const directory = await mkdtemp(join(tmpdir(), "job-files-"));
after(() => rm(directory, { recursive: true }));

/** Stores in memory; `claimed` lists owner and content. */
function memory(free = 2 ** 40) {
  const bytesOf = new Map<string, Buffer>();
  const claimed: string[] = [];
  const models: ModelRecord[] = [];
  const blobs: Partial<BlobStore> = {
    async put(bytes, { claim }) {
      const content = Buffer.concat(await Array.fromAsync(bytes));
      const ref = { sha256: createHash("sha256").update(content).digest("hex"), size_bytes: content.length };
      bytesOf.set(ref.sha256, content);
      await claim?.(ref);
      return ref;
    },
    async materialize(ref, path) {
      await writeFile(path, bytesOf.get(ref.sha256)!);
    },
  };
  const claims: Partial<BlobClaims> = {
    async claim(owner, ref) {
      claimed.push(`${owner.startsWith("mdl_") ? "model" : owner} ${bytesOf.get(ref.sha256)}`);
    },
    settle: async (owner) => void claimed.push(`${owner} settled`),
    abandon: async (owner) => void claimed.push(`${owner.startsWith("mdl_") ? "model" : owner} released`),
  };
  const collection = {
    get: async (id: string) => models.find((model) => model.id === id),
    add: async (record: ModelRecord) => {
      const same = models.find((model) => model.identity === record.identity);
      if (same === undefined) models.push(record);
      return { record: same ?? record, created: same === undefined };
    },
  };
  const deps = { blobs, claims, catalog: { models: collection, datasets: collection } };
  const files = createJobFiles({
    ...(deps as unknown as { blobs: BlobStore; claims: BlobClaims; catalog: Catalog }),
    freeBytes: async () => free,
  });
  return { files, claimed, models, put: (text: string) => blobs.put!(oneChunk(text), { maxBytes: 1_000 }) };
}

async function* oneChunk(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}

function outcome(model: readonly ProducedFile[], reports: readonly ProducedFile[] = []): JobOutcome {
  return { model, reports, facts: factsSaying(""), metrics: emptyMetrics(), accepted: true };
}

async function produced(folder: string, name: string, content: string): Promise<ProducedFile> {
  const path = join(folder, name);
  await writeFile(path, content);
  return { name, path, media_type: "application/octet-stream" };
}

const never = new AbortController().signal;

function single({ spec }: JobRecord): SingleSpec {
  assert.ok(spec.type === "quantize" || spec.type === "distill");
  return spec;
}

test("a job that its worker has no room for is handed back before anything is copied", async () => {
  const { files, models, put } = memory(64 * 2 ** 20);
  const parts = [{ ...(await put("graph")), name: "model.onnx" }];
  models.push({
    id: "mdl_a",
    identity: "",
    files: parts,
    size_bytes: 5,
    facts: factsSaying(""),
  } as unknown as ModelRecord);
  const to = join(directory, "no-room");
  const { spec } = queuedJob({ model_id: "mdl_a" });
  await assert.rejects(files.fetchInputs(spec, to), {
    code: "unavailable",
    message: /needs 65 MiB of disk.*has 64 MiB/,
  });
  assert.deepEqual(await readdir(to), []);
});

test("inputs keep the names that the model uses, folders included", async () => {
  const { files, models, put } = memory();
  const parts = [
    { ...(await put("graph")), name: "model.onnx" },
    { ...(await put("weights")), name: "data/w.bin" },
  ];
  models.push({ id: "mdl_a", files: parts } as unknown as ModelRecord);
  const inputs = await files.fetchInputs(queuedJob().spec, join(directory, "in"));
  assert.deepEqual(
    inputs.models.mdl_a!.files.map(({ name }) => name),
    ["model.onnx", "data/w.bin"],
  );
  assert.equal(await readFile(inputs.models.mdl_a!.files[1]!.path, "utf8"), "weights");
  await assert.rejects(files.fetchInputs(queuedJob({ model_id: "mdl_b" }).spec, directory), { code: "not_found" });
});

test("every byte is claimed by the job, the model's by the model too, before anything is recorded", async () => {
  const { files, claimed, models } = memory();
  const folder = join(directory, "out");
  await mkdir(folder);
  const job = queuedJob({ id: "job_x" });
  const made = outcome([await produced(folder, "model.onnx", "m")], [await produced(folder, "report.json", "r")]);
  const published = await files.publish(job.id, originOf(single(job)), made, folder, never);
  assert.deepEqual(claimed, ["model m", "job_x m", "job_x r", "job_x settled"]);
  assert.equal(models[0]?.id, published.modelId);
  assert.deepEqual(models[0]?.derived_from, { job_id: "job_x", model_id: "mdl_a" });
  assert.deepEqual(
    [...published.model, ...published.reports].map(({ name, size_bytes }) => [name, size_bytes]),
    [
      ["model.onnx", 1],
      ["report.json", 1],
    ],
  );
});

test("a child cannot make us publish files that are not its own", async () => {
  const { files, claimed, models } = memory();
  const folder = join(directory, "hostile");
  await mkdir(folder);
  const secret = await produced(directory, "secret.txt", "secret");
  await symlink(secret.path, join(folder, "link.onnx"));
  await mkdir(join(folder, "folder.onnx"));
  const good = await produced(folder, "model.onnx", "m");
  const hostile: readonly Partial<ProducedFile>[] = [
    { path: secret.path },
    { path: join(folder, "..", "secret.txt") },
    { path: join(folder, "link.onnx") },
    { path: join(folder, "folder.onnx") },
    { path: folder },
    { name: "../model.onnx" },
    { name: "/etc/passwd" },
    { name: "a//b" },
    { name: "a\\b" },
    { name: "a\u0000b" },
    { name: "a\u202eb" },
    { name: "" },
  ];
  for (const fields of hostile) {
    const attempt = files.publish(
      queuedJob().id,
      originOf(single(queuedJob())),
      outcome([{ ...good, ...fields }]),
      folder,
      never,
    );
    await assert.rejects(attempt, { code: "internal" }, JSON.stringify(fields));
  }
  assert.deepEqual(models, []);
  assert.deepEqual(new Set(claimed), new Set(["model released"]));
});

test("a job that is stopped while its results are stored adds no model", async () => {
  const { files, models } = memory();
  const folder = join(directory, "stopped");
  await mkdir(folder);
  const made = outcome([await produced(folder, "model.onnx", "m")]);
  await assert.rejects(
    files.publish(queuedJob().id, originOf(single(queuedJob())), made, folder, AbortSignal.abort()),
    {
      name: "AbortError",
    },
  );
  assert.deepEqual(models, []);
});
