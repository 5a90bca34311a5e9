import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { formOf, startTestServer, type TestServer } from "../support/server.ts";

let api: TestServer;
before(async () => {
  api = await startTestServer();
});
after(() => api.close());

test("x", async () => {
  const a = await api.call("POST", "/v1/models", { body: formOf({ "m.onnx": Buffer.from("memory model\n") }) });
  assert.equal(a.status, 201);
  console.log(a.json);
});
