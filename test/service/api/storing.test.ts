import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { BlobRef, BlobStore } from "../../../src/service/blobs/blob-store.ts";
import { createFileBlobStore } from "../../../src/service/blobs/fs.ts";
import { ServiceError } from "../../../src/service/errors.ts";
import { formOf } from "../../support/calls.ts";
import { createMemoryTasks, modelBytes } from "../../support/memory-workers.ts";
import { startTestServer } from "../../support/server.ts";
import { until } from "../../support/until.ts";

/** What is asked of an upload while the store still writes it. */

/** An API whose store keeps a blob until `finish` is called, and throws it away when that is given an error. */
async function startSlowStore(t: TestContext) {
  const directory = await mkdtemp(join(tmpdir(), "api-storing-"));
  const files = await createFileBlobStore(directory);
  const finished = Promise.withResolvers<Error | undefined>();
  const arrived: BlobRef[] = [];
  const blobs: BlobStore = {
    ...files,
    async put(bytes, options) {
      const ref = await files.put(bytes, {
        ...options,
        arrived(arrival) {
          arrived.push(arrival.ref);
          options.arrived?.(arrival);
        },
      });
      const failure = await finished.promise;
      if (failure === undefined) return ref;
      await files.delete(ref);
      throw failure;
    },
  };
  const tasks = createMemoryTasks();
  const api = await startTestServer({ context: { blobs, tasks } });
  t.after(async () => {
    finished.resolve(undefined);
    await api.close();
    await rm(directory, { recursive: true });
  });
  return { api, tasks, arrived, finish: finished.resolve };
}

async function claimedIn({ context }: Awaited<ReturnType<typeof startSlowStore>>["api"]) {
  return (await context.claims.page("0")).refs;
}

for (const [what, path, name] of [
  ["model", "/v1/models", "a.onnx"],
  ["dataset", "/v1/datasets", "a.npz"],
] as const) {
  test(`a ${what} is inspected while it is stored, and answered when it is`, async (t) => {
    const { api, tasks, finish } = await startSlowStore(t);
    let answered = false;
    const answer = api.call("POST", path, { body: formOf({ [name]: modelBytes(1000) }) });
    answer.then(() => (answered = true));
    await until("it is inspected", () => tasks.ran.includes(`inspect_${what}`));
    assert.equal(answered, false);
    assert.deepEqual((await api.call("GET", path)).json.data, []);
    finish(undefined);
    assert.equal((await answer).status, 201);
    assert.equal((await api.call("GET", path)).json.data.length, 1);
    assert.equal((await claimedIn(api)).length, 1);
  });

  test(`what cannot be stored is no ${what}, however it was inspected`, async (t) => {
    const { api, tasks, finish } = await startSlowStore(t);
    const answer = api.call("POST", path, { body: formOf({ [name]: modelBytes(1000) }) });
    await until("it is inspected", () => tasks.ran.includes(`inspect_${what}`));
    finish(new ServiceError("unavailable", "There is no space left to store this."));
    const { status, json } = await answer;
    assert.equal(status, 503);
    assert.equal(json.detail, "There is no space left to store this.");
    assert.deepEqual((await api.call("GET", path)).json.data, []);
    assert.deepEqual(await claimedIn(api), []);
  });
}

test("of what is refused while it is stored the claim goes when the store is done with it, and not before", async (t) => {
  const { api, tasks, arrived, finish } = await startSlowStore(t);
  const answer = api.call("POST", "/v1/models", { body: formOf({ "a.onnx": Buffer.from("no model") }) });
  await until("it is inspected", () => tasks.ran.includes("inspect_model"));
  assert.deepEqual(await claimedIn(api), arrived);
  finish(undefined);
  const { status, json } = await answer;
  assert.equal(status, 422);
  assert.equal(json.code, "invalid_model");
  assert.deepEqual(await claimedIn(api), []);
});

test("a form that is refused when its file has arrived leaves nothing", async (t) => {
  const { api, tasks, arrived, finish } = await startSlowStore(t);
  const form = formOf({ "a.onnx": modelBytes(1000) }, { nmae: "a typing error" });
  const answer = api.call("POST", "/v1/models", { body: form });
  await until("it has arrived", () => arrived.length === 1);
  finish(undefined);
  assert.equal((await answer).status, 422);
  assert.deepEqual(await claimedIn(api), []);
  assert.deepEqual(tasks.ran, []);
});
