import assert from "node:assert/strict";
import type { LookupAddress, lookup } from "node:dns";
import { test } from "node:test";
import { promisify } from "node:util";
import { ServiceError } from "../../../src/service/errors.ts";
import { createGuardedClient } from "../../../src/service/jobs/guarded-client.ts";
import { checkWebhookUrl, guardedLookup, isPublicAddress } from "../../../src/service/jobs/webhook-target.ts";

const refuses = (url: string, allowHosts: string[] = []) => {
  try {
    checkWebhookUrl(url, allowHosts, "#/webhook/url");
    return false;
  } catch (error) {
    assert.ok(error instanceof ServiceError && error.code === "validation_failed");
    assert.equal(error.fields?.[0]?.pointer, "#/webhook/url");
    return true;
  }
};

test("public https URLs are accepted", () => {
  for (const url of [
    "https://example.com/hook?a=b",
    "https://example.com:8443/",
    "https://8.8.8.8/",
    "https://[2606:4700::1111]/",
  ]) {
    assert.ok(!refuses(url), url);
  }
});

test("anything that is not https, carries credentials, or names an inner address is refused", () => {
  const bad = [
    "not a url",
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https://user:secret@example.com/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0.0.0.0/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a00:1]/",
    "https://[fe80::1]/",
    "https://[fd00::1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
  ];
  for (const url of bad) assert.ok(refuses(url), url);
});

test("the operator may allow a host, and nothing else with it", () => {
  assert.ok(!refuses("http://hooks.internal:9000/x", ["hooks.internal:9000"]));
  assert.ok(!refuses("http://hooks.internal/x", ["hooks.internal"]));
  assert.ok(!refuses("https://hooks.internal/x", ["hooks.internal:443"]));
  // Beside the receiver, on other ports, there may be what nobody may reach.
  assert.ok(refuses("http://hooks.internal:6379/x", ["hooks.internal"]));
  assert.ok(refuses("http://hooks.internal:6379/x", ["hooks.internal:9000"]));
  assert.ok(!refuses("http://10.0.0.5/", ["10.0.0.5"]));
  assert.ok(refuses("http://other.internal/", ["hooks.internal"]));
  assert.ok(refuses("https://10.0.0.6/", ["10.0.0.5"]));
  assert.ok(refuses("ftp://hooks.internal/", ["hooks.internal"]));
});

test("a name is judged by its addresses at the time of the connection", async () => {
  const addresses: Record<string, LookupAddress[]> = {
    "public.example": [{ address: "93.184.216.34", family: 4 }],
    "private.example": [
      { address: "10.0.0.1", family: 4 },
      { address: "::1", family: 6 },
    ],
    "mixed.example": [
      { address: "127.0.0.1", family: 4 },
      { address: "93.184.216.34", family: 4 },
    ],
  };
  const resolve = ((name: string, _options: unknown, callback: (error: null, found: LookupAddress[]) => void) =>
    callback(null, addresses[name]!)) as unknown as typeof lookup;
  const strict = promisify(guardedLookup(resolve));
  const all = { all: true } as const;
  assert.deepEqual(await strict("public.example", all), addresses["public.example"]);
  assert.deepEqual(await strict("mixed.example", all), [addresses["mixed.example"]![1]]);
  await assert.rejects(strict("private.example", all), /no public address/);
});

test("the agent does not connect to a name that leads inside", async () => {
  const client = createGuardedClient(() => false);
  await assert.rejects(client.request(new URL("http://localhost:9/"), {}), /no public address/);
  await client.close();
});

test("special ranges are not public", () => {
  for (const address of ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
    assert.ok(isPublicAddress(address), address);
  for (const address of [
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "2001:db8::1",
    "ff02::1",
    "168.63.129.16",
    "::7f00:1",
    "::8.8.8.8",
    "fec0::1",
    "64:ff9b:1::1",
    "::ffff:168.63.129.16",
  ]) {
    assert.ok(!isPublicAddress(address), address);
  }
});
