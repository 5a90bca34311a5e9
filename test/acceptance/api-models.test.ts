import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdir, readlink } from "node:fs/promises";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { extract } from "tar-stream";
import { formOf } from "../support/calls.ts";
import { createMemoryTasks, modelBytes } from "../support/memory-workers.ts";
import { connectRaw } from "../support/raw-http.ts";
import { apiKeys, startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const NO_LIMITS = { limits: { timeoutMs: 1, memoryBytes: 1 } };
const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");

let api: TestServer;
before(async () => {
  api = await startTestServer();
});
after(() => api.close());

const upload = (files: Readonly<Record<string, Uint8Array>>, fields?: Readonly<Record<string, string>>) =>
  api.call("POST", "/v1/models", { body: formOf(files, fields) });

test("a model is uploaded, found, listed, downloaded and deleted", async () => {
  const bytes = modelBytes();
  const created = await upload({ "rec.onnx": bytes }, { name: "recognition", metadata: '{"team":"ocr"}' });
  assert.equal(created.status, 201);
  const { id } = created.json;
  assert.match(id, /^mdl_/);
  assert.equal(created.headers.get("location"), `/v1/models/${id}`);
  assert.equal(created.json.name, "recognition");
  assert.deepEqual(created.json.metadata, { team: "ocr" });
  assert.equal(created.json.sha256, sha256(bytes));
  assert.deepEqual(created.json.files, [{ name: "rec.onnx", size_bytes: bytes.length, sha256: sha256(bytes) }]);

  assert.deepEqual((await api.call("GET", `/v1/models/${id}`)).json, created.json);
  const { files: _files, ...rest } = created.json;
  const [listed] = (await api.call("GET", "/v1/models?limit=1")).json.data;
  assert.deepEqual(
    Object.keys(listed).sort(),
    "created_at derived_from id metadata name nodes object parameters sha256 size_bytes weight_bytes".split(" "),
  );
  for (const [name, value] of Object.entries(listed)) assert.deepEqual(value, rest[name], name);
  const content = await api.call("GET", `/v1/models/${id}/content`);
  assert.ok(content.body.equals(bytes));
  assert.equal((await api.call("GET", `/v1/models/${id}/layers`)).json.data[0].op, "MatMul");

  assert.equal((await api.call("DELETE", `/v1/models/${id}`)).status, 204);
  for (const path of ["", "/content", "/layers"]) {
    assert.equal((await api.call("GET", `/v1/models/${id}${path}`)).json.code, "not_found");
  }
  assert.equal((await api.call("DELETE", `/v1/models/${id}`)).status, 404);
  assert.deepEqual(await api.files(), []);
});

test("raw bytes are a model too, and the same bytes are the same model however they come", async () => {
  const bytes = modelBytes();
  const headers = { "content-type": "application/octet-stream" };
  const first = await api.call("POST", "/v1/models?name=raw", { body: bytes, headers });
  assert.equal(first.status, 201);
  assert.equal(first.json.name, "raw");
  assert.equal(first.json.files[0].name, "model.onnx");
  const again = await api.call("POST", "/v1/models", { body: bytes, headers });
  assert.equal(again.status, 200);
  assert.deepEqual(again.json, first.json);
  const form = await upload({ "other-name.onnx": bytes });
  assert.equal(form.status, 200);
  assert.equal(form.json.id, first.json.id);
  assert.deepEqual(await api.files(), [`blobs/${sha256(bytes).slice(0, 2)}/${sha256(bytes)}`]);
  await api.call("DELETE", `/v1/models/${first.json.id}`);
  for (const [file, name] of [
    ["v1.onnx.final.ONNX", "v1.onnx.final"],
    [`${"long".repeat(60)}.onnx`, "long".repeat(50)],
  ] as const) {
    const { json } = await upload({ [file]: bytes });
    assert.equal(json.name, name);
    await api.call("DELETE", `/v1/models/${json.id}`);
  }
});

test("the same bytes under another name are a model of its own on the same blob", async () => {
  const bytes = modelBytes();
  const inspected = createMemoryTasks();
  let inspections = 0;
  const keys = apiKeys([
    { name: "ocr", key: "ocr-key" },
    { name: "asr", key: "asr-key" },
  ]);
  const tasks = createMemoryTasks({
    inspect_model: (request) => {
      inspections++;
      return inspected.withRoom(({ run }) => run("inspect_model", request, NO_LIMITS));
    },
  });
  const shared = await startTestServer({ context: { keys, tasks } });
  const as = (team: string) => ({ authorization: `Bearer ${team}-key` });
  const send = (team: string, fields: Readonly<Record<string, string>> = {}) =>
    shared.call("POST", "/v1/models", { body: formOf({ "m.onnx": bytes }, fields), headers: as(team) });
  const call = (method: string, path: string, team = "ocr", body?: object) =>
    shared.call(method, path, {
      headers: { ...as(team), ...(body && { "content-type": "application/json" }) },
      ...(body && { body: JSON.stringify(body) }),
    });
  try {
    const first = await send("ocr", { name: "reader", metadata: '{"stage":"test"}' });
    const second = await send("ocr", { name: "recognizer" });
    const third = await send("ocr", { name: "reader", metadata: '{"stage":"production"}' });
    const other = await send("asr", { name: "reader", metadata: '{"stage":"test"}' });
    const made = [first, second, third, other];
    assert.deepEqual(
      made.map(({ status, json }) => [status, json.name, json.metadata.stage, json.sha256]),
      [
        [201, "reader", "test", sha256(bytes)],
        [201, "recognizer", undefined, sha256(bytes)],
        [201, "reader", "production", sha256(bytes)],
        [201, "reader", "test", sha256(bytes)],
      ],
    );
    assert.equal(new Set(made.map(({ json }) => json.id)).size, 4);
    assert.equal(inspections, 1);
    // Who says the same, or nothing, is answered with what is there.
    for (const [team, fields, same] of [
      ["ocr", { name: "reader", metadata: '{"stage":"production"}' }, third],
      ["ocr", { name: "recognizer" }, second],
      ["ocr", {}, first],
      ["asr", {}, other],
    ] as const) {
      const again = await send(team, fields);
      assert.deepEqual([again.status, again.json], [200, same.json]);
    }

    const path = (answer: typeof first) => `/v1/models/${answer.json.id}`;
    const renamed = await call("PATCH", path(second), "ocr", { name: "lines", metadata: { team: "ocr" } });
    assert.deepEqual(renamed.json, { ...second.json, name: "lines", metadata: { team: "ocr" } });
    assert.deepEqual((await call("GET", path(second))).json, renamed.json);
    assert.deepEqual((await call("GET", path(first))).json, first.json);
    for (const [query, ids] of [
      ["name=lines", [second]],
      ["name=reader&metadata=stage:production", [third]],
      ["metadata.stage=test", [other, first]],
      [`sha256=${sha256(bytes)}&metadata.team=ocr`, [second]],
      ["created_after=2999-01-01T00:00:00Z", []],
    ] as const) {
      const found = (await call("GET", `/v1/models?${query}`)).json.data.map(({ id }: { id: string }) => id);
      assert.deepEqual(
        found,
        ids.map(({ json }) => json.id),
        query,
      );
    }
    // The name that it had is nobody's now.
    const fourth = await send("ocr", { name: "recognizer" });
    assert.equal(fourth.status, 201);
    for (const answer of [...made, fourth]) {
      assert.ok((await call("GET", `${path(answer)}/content`)).body.equals(bytes));
      assert.equal((await call("DELETE", path(answer))).status, 204);
    }
    assert.deepEqual(await shared.files(), []);
    assert.equal((await call("PATCH", path(first), "ocr", { name: "gone" })).status, 404);
  } finally {
    await shared.close();
  }
});

test("what cannot be changed and what cannot be filtered by is refused", async () => {
  const { json: model } = await upload({ "m.onnx": modelBytes() });
  const patch = (body: object) =>
    api.call("PATCH", `/v1/models/${model.id}`, {
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  for (const [body, pointer] of [
    [{ id: "mdl_x" }, "/id"],
    [{ name: "" }, "/name"],
    [{ name: null }, "/name"],
    [{ metadata: { a: 1 } }, "/metadata/a"],
    [{}, ""],
  ] as const) {
    const refused = await patch(body);
    assert.equal(refused.status, 422, JSON.stringify(body));
    assert.ok(
      refused.json.errors.some((error: { pointer: string }) => error.pointer === pointer),
      pointer,
    );
  }
  for (const query of [
    "sha256=abc",
    "created_after=yesterday",
    "metadata=team",
    "metadata.=x",
    "metadata.a=1&metadata=a:2",
  ]) {
    assert.equal((await api.call("GET", `/v1/models?${query}`)).status, 422, query);
  }
  await api.call("DELETE", `/v1/models/${model.id}`);
});

test("eight uploads of one model at the same time make one model", async () => {
  const bytes = modelBytes();
  const answers = await Promise.all(Array.from({ length: 8 }, () => upload({ "m.onnx": bytes })));
  assert.equal(new Set(answers.map(({ json }) => json.id)).size, 1);
  assert.equal(answers.filter(({ status }) => status === 201).length, 1);
  await api.call("DELETE", `/v1/models/${answers[0]!.json.id}`);
  assert.deepEqual(await api.files(), []);
});

test("a model with external data is a bundle: graph first, named by all its files, downloaded as a tar", async () => {
  const files = { "weights-b.bin": randomBytes(5000), "model.onnx": modelBytes(), "weights-a.bin": randomBytes(700) };
  const created = await upload(files);
  assert.equal(created.status, 201);
  const { id } = created.json;
  assert.equal(created.json.files[0].name, "model.onnx");
  const lines = Object.entries(files).map(([name, bytes]) => `${sha256(bytes)}  ${name}\n`);
  const sorted = lines.sort((a, b) => (a.split("  ")[1]! < b.split("  ")[1]! ? -1 : 1));
  assert.equal(created.json.sha256, sha256(sorted.join("")));
  const reordered = await upload(Object.fromEntries(Object.entries(files).reverse()));
  assert.equal(reordered.json.id, id);

  const archive = await api.call("GET", `/v1/models/${id}/content`);
  assert.equal(archive.headers.get("content-type"), "application/octet-stream");
  assert.equal(Number(archive.headers.get("content-length")), archive.body.length);
  const reader = extract();
  Readable.from([archive.body]).pipe(reader);
  const found: Record<string, Buffer> = {};
  for await (const entry of reader)
    found[entry.header.name] = Buffer.concat(await Array.fromAsync(entry as AsyncIterable<Buffer>));
  for (const [name, bytes] of Object.entries(files)) assert.ok(found[name]?.equals(bytes), name);

  const part = await api.call("GET", `/v1/models/${id}/content`, { headers: { range: "bytes=600-1999" } });
  assert.equal(part.status, 206);
  assert.ok(part.body.equals(archive.body.subarray(600, 2000)));
  await api.call("DELETE", `/v1/models/${id}`);
  assert.deepEqual(await api.files(), []);
});

test("it must be clear which file of a bundle is the graph", async () => {
  for (const names of [
    ["a.bin", "b.bin"],
    ["a.onnx", "b.onnx"],
  ] as const) {
    const refused = await upload(Object.fromEntries(names.map((name) => [name, modelBytes()])));
    assert.equal(refused.status, 422);
    assert.equal(refused.json.code, "invalid_model");
  }
  assert.deepEqual(await api.files(), []);
});

test("what is not a model is refused with the reason, and leaves nothing", async () => {
  const refused = await upload({ "m.onnx": randomBytes(1000) });
  assert.equal(refused.status, 422);
  assert.equal(refused.headers.get("content-type"), "application/problem+json; charset=utf-8");
  assert.equal(refused.json.code, "invalid_model");
  assert.equal(refused.json.type, "urn:modelpress:problem:invalid_model");
  assert.equal(refused.json.request_id, refused.headers.get("x-request-id"));
  assert.equal(refused.json.subject, "m.onnx");
  assert.deepEqual(await api.files(), []);
  assert.deepEqual((await api.call("GET", "/v1/models")).json, { data: [], next_cursor: null });
});

test("every wrong field of a form is named", async () => {
  const cases = [
    [{ metadata: "{" }, "/metadata"],
    [{ metadata: '{"a":1}' }, "/metadata/a"],
    [
      { metadata: JSON.stringify(Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, ""]))) },
      "/metadata",
    ],
    [{ name: "a\u0007b" }, "/name"],
    [{ name: "x".repeat(201) }, "/name"],
    [{ nmae: "typo" }, "/nmae"],
  ] as const;
  for (const [fields, pointer] of cases) {
    const refused = await upload({ "m.onnx": modelBytes() }, fields);
    assert.equal(refused.status, 422, pointer);
    assert.equal(refused.json.code, "validation_failed");
    assert.ok(refused.json.detail.includes(`${pointer}: `), refused.json.detail);
    assert.deepEqual(
      refused.json.errors.map((error: { pointer: string }) => error.pointer),
      [pointer],
    );
  }
  assert.deepEqual(await api.files(), []);
});

test("dimensions can be given a size, if the model has them", async () => {
  const { json: model } = await upload({ "m.onnx": modelBytes() });
  assert.equal(model.macs, null);
  assert.equal((await api.call("GET", `/v1/models/${model.id}?dims=w:320,n:1`)).json.macs, 320_000);
  assert.equal((await api.call("GET", `/v1/models/${model.id}`)).json.macs, null);
  for (const dims of ["h:3", "w", "w:0", "w:x", "w:1,", ""]) {
    const refused = await api.call("GET", `/v1/models/${model.id}?dims=${dims}`);
    assert.equal(refused.status, 422, dims);
    assert.equal(refused.json.errors[0].pointer, "#/query/dims");
  }
  await api.call("DELETE", `/v1/models/${model.id}`);
});

test("downloads: ranges, conditions, digests, HEAD", async () => {
  const bytes = modelBytes(10_000);
  const { json: model } = await upload({ "größe %.onnx": bytes });
  const path = `/v1/models/${model.id}/content`;
  const get = (headers: Record<string, string>, method = "GET") => api.call(method, path, { headers });

  const whole = await get({});
  const etag = whole.headers.get("etag")!;
  assert.equal(whole.headers.get("repr-digest"), `sha-256=:${createHash("sha256").update(bytes).digest("base64")}:`);
  assert.equal(whole.headers.get("accept-ranges"), "bytes");
  assert.equal(
    whole.headers.get("content-disposition"),
    "attachment; filename=\"gr__e _.onnx\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%25.onnx",
  );

  for (const [range, start, end] of [
    ["bytes=0-99", 0, 100],
    ["bytes=9990-", 9990, 10_000],
    ["bytes=-10", 9990, 10_000],
    ["bytes=100-1000000", 100, 10_000],
  ] as const) {
    const part = await get({ range });
    assert.equal(part.status, 206);
    assert.equal(part.headers.get("content-range"), `bytes ${start}-${end - 1}/10000`);
    assert.ok(part.body.equals(bytes.subarray(start, end)), range);
  }
  const beyond = await get({ range: "bytes=10000-" });
  assert.equal(beyond.status, 416);
  assert.equal(beyond.headers.get("content-range"), "bytes */10000");
  assert.equal(beyond.json.code, "range_not_satisfiable");

  assert.equal((await get({ range: "bytes=0-9", "if-range": etag })).status, 206);
  assert.equal((await get({ range: "bytes=0-9", "if-range": '"other"' })).status, 200);
  for (const tags of [etag, `"other", W/${etag}`, "*"]) {
    const unchanged = await get({ "if-none-match": tags });
    assert.equal(unchanged.status, 304);
    assert.equal(unchanged.headers.get("etag"), etag);
  }
  assert.equal((await get({ "if-none-match": '"other"' })).status, 200);

  const head = await get({}, "HEAD");
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("content-length"), "10000");
  assert.equal(head.headers.get("etag"), etag);
  assert.equal((await get({ range: "bytes=0-9" }, "HEAD")).headers.get("content-length"), "10");
  await api.call("DELETE", `/v1/models/${model.id}`);
});

test("a download may be cut at any moment, and leaves no file open", async () => {
  const { json: model } = await upload({ "m.onnx": modelBytes(8_000_000), "w.bin": randomBytes(8_000_000) });
  const openFiles = async () => {
    const links = await Promise.all(
      (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => "")),
    );
    return links.filter((link) => link.includes("/blobs/")).length;
  };
  for (let i = 0; i < 40; i++) {
    const connection = connectRaw(api.url);
    connection.write(`GET /v1/models/${model.id}/content HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    await once(connection.socket, "connect");
    await sleep(i / 4);
    connection.socket.destroy();
  }
  assert.equal((await api.call("GET", "/healthz")).status, 200);
  if (process.platform === "linux") {
    await until("no file is open", async () => (await openFiles()) === 0);
  }
  await api.call("DELETE", `/v1/models/${model.id}`);
});

test("layers come in pages", async () => {
  const [row] = await createMemoryTasks().withRoom(({ run }) => run("list_layers", { files: [] }, NO_LIMITS));
  const rows = Array.from({ length: 250 }, (_, i) => ({ ...row!, name: `MatMul.${i}` }));
  const deep = await startTestServer({ context: { tasks: createMemoryTasks({ list_layers: async () => rows }) } });
  try {
    const { id } = (await deep.call("POST", "/v1/models", { body: formOf({ "m.onnx": modelBytes() }) })).json;
    const first = (await deep.call("GET", `/v1/models/${id}/layers`)).json;
    assert.deepEqual(first, { data: rows.slice(0, 100), next_cursor: "100" });
    const last = (await deep.call("GET", `/v1/models/${id}/layers?limit=1000&cursor=100`)).json;
    assert.deepEqual(last, { data: rows.slice(100), next_cursor: null });
    assert.equal((await deep.call("GET", `/v1/models/${id}/layers?cursor=x`)).status, 422);
  } finally {
    await deep.close();
  }
});

test("pages are newest first and go on where the last one ended", async () => {
  const made: string[] = [];
  for (let i = 0; i < 5; i++) made.push((await upload({ "m.onnx": modelBytes() })).json.id);
  const seen: string[] = [];
  for (let cursor = ""; ; ) {
    const { json } = await api.call("GET", `/v1/models?limit=2${cursor}`);
    seen.push(...json.data.map((model: { id: string }) => model.id));
    if (json.next_cursor === null) break;
    cursor = `&cursor=${json.next_cursor}`;
  }
  assert.deepEqual(seen, made.toReversed());
  for (const query of ["limit=0", "limit=101", "limit=x", "limit=1&limit=2", "cursor=", "order=asc"]) {
    const refused = await api.call("GET", `/v1/models?${query}`);
    assert.ok([400, 422].includes(refused.status), `${query} -> ${refused.status}`);
  }
  for (const id of made) await api.call("DELETE", `/v1/models/${id}`);
});
