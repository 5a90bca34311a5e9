import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { accessRefusal, OPEN_TO_ALL, parseApiKeys } from "../../../src/service/api/api-keys.ts";

const hash = (key: string) => createHash("sha256").update(key).digest("hex");
const FILE = JSON.stringify([
  { name: "ci", sha256: hash("secret-1") },
  { name: "ops", sha256: hash("secret-2"), scopes: ["read", "write", "admin"] },
  { name: "dashboard", sha256: hash("secret-3"), scopes: ["read"] },
]);

test("a key is known by its hash, as Bearer or as the password of Basic", () => {
  const keys = parseApiKeys(FILE);
  const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
  assert.equal(keys.identify("Bearer secret-1")?.name, "ci");
  assert.equal(keys.identify("bearer  secret-2")?.name, "ops");
  assert.equal(keys.identify(basic("anyone:secret-3"), { basic: true })?.name, "dashboard");
  assert.equal(keys.identify(basic("anyone:secret-3")), undefined);
  for (const header of [
    undefined,
    "",
    "Bearer",
    "Bearer ",
    "Bearer secret-4",
    "secret-1",
    "Bearer secret-1 x",
    basic("secret-1"),
  ]) {
    assert.equal(keys.identify(header, { basic: true }), undefined, header);
  }
});

test("scopes decide, and no key means unauthorized rather than forbidden", () => {
  const keys = parseApiKeys(FILE);
  const code = (authorization: string | undefined, access: "open" | "read" | "write" | "admin") =>
    accessRefusal(keys.identify(authorization), access)?.code ?? "ok";
  assert.equal(code(undefined, "open"), "ok");
  assert.equal(code(undefined, "read"), "unauthorized");
  assert.equal(code("Bearer secret-1", "write"), "ok");
  assert.equal(code("Bearer secret-1", "admin"), "forbidden");
  assert.equal(code("Bearer secret-2", "admin"), "ok");
  assert.equal(code("Bearer secret-3", "read"), "ok");
  assert.equal(code("Bearer secret-3", "write"), "forbidden");
  assert.equal(accessRefusal(OPEN_TO_ALL.identify(undefined), "admin"), undefined);
});

test("a wrong file is refused with everything that is wrong, and without its contents", () => {
  const sha256 = hash("x");
  assert.throws(() => parseApiKeys("{"), /not JSON/);
  assert.throws(() => parseApiKeys("[]"), /at least one key/);
  assert.throws(() => parseApiKeys(JSON.stringify([{ name: "a", key: "plain" }])), /sha256/);
  assert.throws(
    () =>
      parseApiKeys(
        JSON.stringify([
          { name: "a b", sha256: "12" },
          { name: "c", sha256, scopes: ["root"] },
        ]),
      ),
    (error: Error) => [/\/0\/name/, /\/0\/sha256/, /\/1\/scopes/].every((part) => part.test(error.message)),
  );
  const twice = (a: object, b: object) =>
    JSON.stringify([
      { name: "a", sha256, ...a },
      { name: "b", sha256, ...b },
    ]);
  assert.throws(() => parseApiKeys(twice({}, {})), /same key/);
  assert.throws(() => parseApiKeys(twice({}, { name: "a", sha256: hash("y") })), /same name/);
});
