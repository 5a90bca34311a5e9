import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import supertest from "supertest";
import { modelBytes } from "../support/memory-workers.ts";
import { apiKeys, startTestServer, type TestServer } from "../support/server.ts";

/** What a web page of a stranger, open in a browser on this machine, can do: nothing. */

let api: TestServer;
before(async () => {
  api = await startTestServer({ settings: { allowedHosts: ["press.example"] } });
});
after(() => api.close());

/** A request as a browser sends it, with headers that `fetch` does not let one forge; answers with status and code. */
async function send(
  method: "get" | "post" | "patch" | "delete",
  path: string,
  headers: Readonly<Record<string, string>>,
  file?: Buffer,
): Promise<[number, string]> {
  const request = supertest(api.url)[method](path).set(headers);
  const { status, body } = await (file ? request.attach("file", file, "m.onnx") : request);
  return [status, status >= 400 ? body.code : "ok"];
}

test("a name that leads here and is not ours is not answered, whatever is asked", async () => {
  for (const path of ["/v1/models", "/healthz", "/docs/", "/nothing"]) {
    assert.deepEqual(await send("get", path, { host: "evil.example" }), [403, "forbidden"], path);
    assert.deepEqual(await send("get", path, { host: "localhost.evil.example:8080" }), [403, "forbidden"], path);
  }
  for (const host of [
    "localhost",
    "localhost:1234",
    "127.0.0.1:80",
    "[::1]:80",
    "press.example",
    "press.example:8443",
  ]) {
    assert.deepEqual(await send("get", "/v1/models", { host }), [200, "ok"], host);
  }
});

test("forms and scripts of other pages change nothing, and may not delete", async () => {
  const model = modelBytes();
  const foreign: Record<string, string>[] = [
    { origin: "http://evil.example" },
    { origin: "null" },
    { origin: "http://127.0.0.1:1" },
    { "sec-fetch-site": "cross-site" },
    { origin: "http://evil.example", "sec-fetch-site": "same-origin" },
  ];
  for (const headers of foreign) {
    assert.deepEqual(await send("post", "/v1/models", headers, model), [403, "forbidden"]);
    assert.deepEqual(await send("delete", "/v1/models/mdl_x", headers), [403, "forbidden"]);
    assert.deepEqual(await send("patch", "/v1/uploads/upl_x", headers), [403, "forbidden"]);
  }
  assert.deepEqual((await api.call("GET", "/v1/models")).json.data, []);
  const own = { origin: api.url, "sec-fetch-site": "same-origin" };
  assert.equal((await send("post", "/v1/models", own, model))[0], 201);
  assert.equal((await send("post", "/v1/models", { origin: "https://press.example" }, model))[0], 200);
  const shouted = { host: "LOCALHOST:81", origin: "http://localhost:81" };
  assert.equal((await send("post", "/v1/models", shouted, model))[0], 200);
});

test("a key comes as Basic to a page only, and never to change something", async (t) => {
  const keys = apiKeys([{ name: "me", key: "secret", scopes: ["read", "write", "admin"] }]);
  const keyed = await startTestServer({ context: { keys } });
  t.after(() => keyed.close());
  const authorization = `Basic ${Buffer.from("me:secret").toString("base64")}`;
  const status = async (method: string, path: string) =>
    (await keyed.call(method, path, { headers: { authorization } })).status;
  assert.equal(await status("GET", "/v1/jobs/job_x/report"), 404);
  assert.equal(await status("GET", "/v1/jobs"), 401);
  assert.equal(await status("POST", "/v1/jobs"), 401);
  assert.equal(await status("DELETE", "/v1/models/mdl_x"), 401);
  const refused = await keyed.call("GET", "/v1/jobs/job_x/report");
  assert.equal(refused.headers.get("www-authenticate"), 'Basic realm="modelpress"');
  assert.equal((await keyed.call("GET", "/v1/jobs")).headers.get("www-authenticate"), "Bearer");
});

test("a client behind proxies has the address that the nearest of ours has seen, whatever it says itself", async (t) => {
  for (const trustProxy of [false, 1, ["10.0.0.0/8"], ["loopback"]] as const) {
    const behind = await startTestServer({ trustProxy, settings: { rateLimitPerMinute: 2 } });
    t.after(() => behind.close());
    const ask = (client: string) =>
      fetch(`${behind.url}/v1/models`, { headers: { "x-forwarded-for": `${client}, 203.0.113.7` } });
    // A client that gives itself another address with each request is one client all the same.
    const statuses = [];
    for (let i = 1; i <= 3; i++) statuses.push((await ask(`198.51.100.${i}`)).status);
    assert.equal(statuses.at(-1), 429, `${trustProxy}: ${statuses}`);
  }
});
