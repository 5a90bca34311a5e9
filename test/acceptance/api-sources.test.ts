import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { type HubServer, startHubServer } from "../support/hub-server.ts";
import { modelBytes } from "../support/memory-workers.ts";
import { type MlflowServer, startMlflowServer } from "../support/mlflow-server.ts";
import { type S3Server, startS3Server } from "../support/s3-server.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** Models and datasets that the service fetches, from a host of the test's own. */

const MODEL = modelBytes(5000);
const sha256 = createHash("sha256").update(MODEL).digest("hex");

let host: Server;
let base: string;
let api: TestServer;
let s3: S3Server;
let mlflow: MlflowServer;
let hub: HubServer;
const asked: string[] = [];

before(async () => {
  host = createServer((request, response) => {
    asked.push(request.url!);
    const { pathname } = new URL(request.url!, "http://host");
    if (/\.(onnx|bin|npz)$/.test(pathname)) response.end(MODEL);
    else if (pathname === "/moved") response.writeHead(302, { location: "/signed/m.onnx?signature=1" }).end("moved");
    else if (/^\/hop[1-5]$/.test(pathname)) {
      const left = Number(pathname.at(-1)) - 1;
      response.writeHead(303, { location: left === 0 ? "/m.onnx" : `/hop${left}` }).end();
    } else if (pathname === "/loop") response.writeHead(307, { location: "/loop" }).end();
    else if (pathname === "/inside") response.writeHead(302, { location: "http://169.254.169.254/latest" }).end();
    else if (pathname === "/other-port") response.writeHead(302, { location: "http://127.0.0.1:9/m.onnx" }).end();
    else if (pathname === "/cut") response.writeHead(200, { "content-length": "100" }).end("short");
    else if (pathname === "/stalls") response.write("x");
    else if (pathname === "/large") response.end(Buffer.alloc(200_000));
    else response.writeHead(404).end("nothing here");
  }).listen(0, "127.0.0.1");
  await once(host, "listening");
  base = `http://127.0.0.1:${(host.address() as AddressInfo).port}`;
  s3 = await startS3Server();
  mlflow = await startMlflowServer();
  hub = await startHubServer();
  api = await startTestServer({
    settings: {
      sourceAllowHosts: [new URL(base).host],
      sourceAllowBuckets: [`${s3.bucket}/shared/`],
      sourceAllowRegisteredModels: ["digits"],
      sourceAllowRepositories: ["org/*", "datasets/org/lines"],
      huggingFace: { url: hub.url, token: "hf_t1" },
      maxUploadBytes: 100_000,
      uploadIdleTimeoutMs: 300,
    },
    s3,
    mlflow: { url: mlflow.url, credentials: { token: "t0" } },
  });
});
after(async () => {
  await api.close();
  await s3.close();
  await mlflow.close();
  await hub.close();
  host.closeAllConnections();
  host.close();
});

const post = (path: string, body: object, at: TestServer = api) =>
  at.call("POST", path, { headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
const fetched = (...files: object[]) => ({ source: { kind: "https", files } });
const models = (body: object, at?: TestServer) => post("/v1/models/from-source", body, at);

test("a model is fetched, with its external data, over a redirect, and is the file that was meant", async () => {
  const made = await models({ ...fetched({ url: `${base}/moved`, filename: "rec.onnx", sha256 }), name: "reader" });
  assert.equal(made.status, 201, made.body.toString());
  assert.deepEqual([made.json.name, made.json.sha256], ["reader", sha256]);
  assert.ok(asked.includes("/signed/m.onnx?signature=1"));
  assert.ok(!api.logged.some((line) => line.includes("signature=1")));
  const again = await models(fetched({ url: `${base}/a%20b.onnx` }));
  assert.deepEqual([again.status, again.json.id], [200, made.json.id]);
  const far = await models(fetched({ url: `${base}/hop5`, filename: "rec.onnx" }));
  assert.deepEqual([far.status, far.json.id], [200, made.json.id], "five redirects are followed");
  const bundle = await models(fetched({ url: `${base}/w.bin` }, { url: `${base}/big.onnx` }));
  assert.deepEqual(
    bundle.json.files.map(({ name }: { name: string }) => name),
    ["big.onnx", "w.bin"],
  );
  assert.equal(bundle.json.name, "big");
  for (const { json } of [made, bundle]) await api.call("DELETE", `/v1/models/${json.id}`);
  assert.deepEqual(await api.files(), []);
});

test("a dataset is fetched", async () => {
  const made = await post("/v1/datasets/from-source", fetched({ url: `${base}/lines.npz` }));
  assert.deepEqual([made.status, made.json.name], [201, "lines"]);
  const refused = await post("/v1/datasets/from-source", fetched({ url: `${base}/m.onnx` }));
  assert.deepEqual([refused.status, refused.json.code], [415, "unsupported_media_type"]);
  await api.call("DELETE", `/v1/datasets/${made.json.id}`);
});

test("what cannot be fetched is refused with what happened, and leaves nothing", async () => {
  const cases: readonly (readonly [string, number, string, RegExp])[] = [
    ["/none", 422, "source_failed", /answered 404/],
    ["/loop", 422, "source_failed", /redirects more than 5 times/],
    ["/inside", 422, "source_failed", /redirects to where nothing is fetched from/],
    ["/other-port", 422, "source_failed", /redirects to where nothing is fetched from/],
    ["/cut", 422, "source_failed", /ended before all of its bytes/],
    ["/stalls", 422, "source_failed", /Fewer than 1024 bytes/],
    ["/large", 413, "too_large", /100000 bytes/],
  ];
  for (const [path, status, code, detail] of cases) {
    const refused = await models(fetched({ url: base + path, filename: "m.onnx" }));
    assert.deepEqual([refused.status, refused.json.code], [status, code], path);
    assert.match(refused.json.detail, detail);
    assert.ok(!refused.body.includes("nothing here"), "what a host says is not passed on");
  }
  const other = await models(fetched({ url: `${base}/m.onnx`, sha256: "0".repeat(64) }));
  assert.deepEqual(
    [other.json.errors[0].pointer, other.json.errors[0].code],
    ["/source/files/0/sha256", "sha256_mismatch"],
  );
  const twice = await models(fetched({ url: `${base}/m.onnx` }, { url: `${base}/b/m.onnx` }));
  assert.equal(twice.json.errors[0].code, "duplicate_filename");
  assert.deepEqual(await api.files(), []);
});

test("only hosts that were allowed are asked, and by default none", async () => {
  const before = asked.length;
  const cases: readonly (readonly [string, RegExp])[] = [
    ["https://example.org/m.onnx", /not one that the operator has allowed/],
    ["http://127.0.0.1:1/m.onnx", /must start with https/],
    ["https://169.254.169.254/m.onnx", /not a public one/],
    [`${base.replace("http://", "http://user:secret@")}/m.onnx`, /user name or password/],
    ["file:///etc/passwd", /https/],
    ["m.onnx", /not a URL/],
  ];
  for (const [url, message] of cases) {
    const refused = await models(fetched({ url: `${base}/m.onnx` }, { url }));
    const [error] = refused.json.errors;
    assert.deepEqual([refused.status, error.pointer, error.code], [422, "/source/files/1/url", "source_refused"], url);
    assert.match(error.message, message);
  }
  const anywhere = await startTestServer({ settings: { sourceAllowHosts: ["*"] } });
  const off = await startTestServer();
  try {
    // A name is judged by the addresses that it has when it is connected to.
    const named = await models(
      fetched({ url: "https://localhost/m.onnx" }, { url: "https://localhost/w.bin" }),
      anywhere,
    );
    assert.equal(named.json.code, "source_failed");
    assert.equal((await models(fetched({ url: "https://10.0.0.1/m.onnx" }), anywhere)).json.code, "validation_failed");
    assert.equal((await models(fetched({ url: `${base}/m.onnx` }), anywhere)).json.code, "validation_failed");
    assert.match((await models(fetched({ url: "https://example.org/m.onnx" }), off)).json.detail, /allowed no host/);
  } finally {
    await anywhere.close();
    await off.close();
  }
  assert.equal(asked.length, before);
});

test("objects are fetched from buckets that were listed, with our credentials; what S3 refuses is told apart", async () => {
  const objects = s3.objects as Map<string, Buffer>;
  for (const key of ["shared/a b%20c.onnx", "shared/cut.onnx", "shared/denied.onnx", "shared/busy.onnx", "blobs/own"]) {
    objects.set(key, MODEL);
  }
  objects.set("shared/large.onnx", Buffer.alloc(200_000));
  s3.cut.add("shared/cut.onnx");
  s3.refusals.set("shared/denied.onnx", { status: 403, code: "AccessDenied" });
  s3.refusals.set("shared/busy.onnx", { status: 503, code: "SlowDown" });
  s3.refusals.set("shared/proxy.onnx", { status: 502 });
  const from = (url: string, more: object = {}) => ({ source: { kind: "s3", files: [{ url, ...more }] } });
  const at = (key: string) => `s3://${s3.bucket}/${key}`;

  const made = await models(from(at("shared/a b%20c.onnx"), { sha256 }));
  assert.equal(made.status, 201, made.body.toString());
  assert.deepEqual([made.json.sha256, made.json.files[0].name], [sha256, "a b%20c.onnx"]);
  await api.call("DELETE", `/v1/models/${made.json.id}`);

  for (const [key, status, code, detail] of [
    ["shared/none.onnx", 422, "source_failed", /^S3 answered 404 NoSuchKey\.$/],
    ["shared/denied.onnx", 422, "source_failed", /^S3 answered 403 AccessDenied\.$/],
    ["shared/cut.onnx", 422, "source_failed", /ended before all of its bytes/],
    ["shared/busy.onnx", 503, "unavailable", /cannot be asked now: S3 answered 503 SlowDown/],
    ["shared/proxy.onnx", 503, "unavailable", /cannot be asked now: S3 answered 502\.$/],
    ["shared/large.onnx", 413, "too_large", /100000 bytes/],
  ] as const) {
    const refused = await models(from(at(key)));
    assert.deepEqual([refused.status, refused.json.code], [status, code], key);
    assert.match(refused.json.detail, detail);
    assert.ok(!refused.body.includes("arn:aws"), "who we are to S3 is not passed on");
  }
  const other = await models(from(at("shared/a b%20c.onnx"), { sha256: "0".repeat(64) }));
  assert.equal(other.json.errors[0].code, "sha256_mismatch");
  assert.deepEqual(await api.files(), []);

  const gets = s3.seen.get("GET");
  const off = await startTestServer();
  try {
    for (const [body, message, server] of [
      [from(at("blobs/own")), /SOURCE_ALLOW_BUCKETS\): those are s3:\/\/models\/shared\//, api],
      [from(at("shared/../blobs/own")), /must be s3:\/\/bucket\/key/, api],
      [from(`${base}/m.onnx`), /must be s3:\/\/bucket\/key/, api],
      [fetched({ url: at("shared/none.onnx") }), /needs the `kind` s3/, api],
      [from(at("shared/none.onnx")), /allowed no bucket: SOURCE_ALLOW_BUCKETS lists them/, off],
    ] as const) {
      const refused = await models(body, server);
      const [error] = refused.json.errors;
      assert.deepEqual([refused.status, error.pointer, error.code], [422, "/source/files/0/url", "source_refused"]);
      assert.match(error.message, message);
    }
  } finally {
    await off.close();
  }
  assert.equal(s3.seen.get("GET"), gets);
  await s3.close();
  const gone = await models(from(at("shared/none.onnx")));
  assert.deepEqual([gone.status, gone.json.code], [503, "unavailable"]);
  assert.match(gone.json.detail, /could not be reached \(ECONNREFUSED\)/);
});

const from = (kind: string, url: string, more: object = {}) => ({ source: { kind, files: [{ url, ...more }] } });
const namesOf = ({ files }: { files: { name: string }[] }) => files.map(({ name }) => name);
const MLMODEL = "flavors:\n  onnx:\n    data: model.onnx\n  python_function:\n    data: model.onnx\n";

test("a version of a registered model is fetched from MLflow, with its external data and nothing else of its folder", async () => {
  const beside = { "conda.yaml": "name: x", "requirements.txt": "onnx", "input_example.json": "[]" };
  const one = mlflow.register("digits", { MLmodel: MLMODEL, "model.onnx": MODEL, ...beside });
  const two = mlflow.register("digits", { MLmodel: MLMODEL, "model.onnx": MODEL, "0b1c.data": MODEL, ...beside });
  mlflow.alias("digits", "champion", two);
  for (const [url, names] of [
    [`models:/digits/${one}`, ["model.onnx"]],
    [`models:/digits/${two}`, ["model.onnx", "0b1c.data"]],
    ["models:/digits@champion", ["model.onnx", "0b1c.data"]],
  ] as const) {
    const made = await models(from("mlflow", url));
    assert.ok([200, 201].includes(made.status), made.body.toString());
    assert.deepEqual(namesOf(made.json), names);
  }
  const named = await models({
    ...from("mlflow", `models:/digits/${one}`, { filename: "rec.onnx", sha256 }),
    name: "rec",
  });
  assert.deepEqual([named.status, namesOf(named.json)], [201, ["rec.onnx"]]);
  const which = await models(from("mlflow", `models:/digits/${two}`, { sha256 }));
  assert.deepEqual([which.status, which.json.errors[0].pointer], [422, "/source/files/0/sha256"]);
  assert.match(
    which.json.detail,
    /says something of one file, and there are 0b1c.data, model.onnx|model.onnx, 0b1c.data/,
  );
  assert.deepEqual([...new Set(mlflow.seen)], ["Bearer t0"]);
  for (const { id } of (await api.call("GET", "/v1/models")).json.data) await api.call("DELETE", `/v1/models/${id}`);
  assert.deepEqual(await api.files(), []);
});

test("what MLflow does not have, does not serve, or has no ONNX of, is told apart from MLflow being away", async () => {
  const register = (files: Record<string, string>, uri?: string) =>
    `models:/digits/${mlflow.register("digits", files, uri)}`;
  const python =
    "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n  sklearn:\n    pickled_model: model.pkl\n";
  const refuse = (end: string, status: number, code?: string) =>
    mlflow.refusals.set(end, { status, ...(code !== undefined && { code }) });
  const cases: readonly (readonly [string, number, string, RegExp, (() => void)?])[] = [
    ["models:/digits/99", 422, "source_failed", /^MLflow has no version 99 of a model digits\.$/],
    [
      "models:/digits@nobody",
      422,
      "source_failed",
      /^MLflow has no version with the alias nobody of a model digits\.$/,
    ],
    [register({ MLmodel: python }), 422, "source_failed", /no ONNX model: it is one of python_function, sklearn\.$/],
    [register({ MLmodel: MLMODEL }), 422, "source_failed", /has no file model\.onnx, although its MLmodel names it/],
    [register({ MLmodel: "a: [" }), 422, "source_failed", /MLmodel is not YAML/],
    [register({ MLmodel: "a: &a [1]\nb: *a" }), 422, "source_failed", /MLmodel is not YAML|does not say/],
    [register({ MLmodel: "flavors: 3" }), 422, "source_failed", /does not say of which kinds/],
    [
      register({ MLmodel: MLMODEL.replaceAll("model.onnx", "../../m.onnx") }),
      422,
      "source_failed",
      /outside of its folder/,
    ],
    [register({ MLmodel: "x".repeat(2 ** 20 + 1) }), 422, "source_failed", /more than 1048576 bytes/],
    [register({}, "s3://bucket/place"), 422, "source_failed", /does not serve the files .*: they are kept in s3\.$/],
    [register({}, "mlflow-artifacts:/a/../../etc"), 422, "source_failed", /does not serve/],
    [
      "models:/digits/1",
      422,
      "source_failed",
      /403 PERMISSION_DENIED\.$/,
      () => refuse("get-download-uri", 403, "PERMISSION_DENIED"),
    ],
    [
      "models:/digits/1",
      503,
      "unavailable",
      /MLflow cannot be asked now: it answered 502\.$/,
      () => refuse("/MLmodel", 502),
    ],
    ["models:/digits/1", 503, "unavailable", /cannot be asked now: it answered 429/, () => refuse("/model.onnx", 429)],
  ];
  for (const [url, status, code, detail, prepare] of cases) {
    prepare?.();
    const refused = await models(from("mlflow", url));
    assert.deepEqual([refused.status, refused.json.code], [status, code], `${url} ${refused.body}`);
    assert.match(refused.json.detail, detail);
    assert.ok(!refused.body.includes("Secret of the operator"));
  }
  assert.deepEqual(await api.files(), []);
  const asked = mlflow.seen.length;
  for (const [url, message] of [
    ["models:/other/1", /SOURCE_ALLOW_REGISTERED_MODELS\): those are digits/],
    ["models:/digits", /must be models:\/name\/version/],
    ["models:/digits/1/../2", /must be models:/],
    ["models:/digits/latest", /must be models:/],
    [`${base}/m.onnx`, /must be models:/],
  ] as const) {
    const refused = await models(from("mlflow", url));
    assert.deepEqual([refused.status, refused.json.errors[0].code], [422, "source_refused"], url);
    assert.match(refused.json.errors[0].message, message);
  }
  assert.equal(mlflow.seen.length, asked);
  const dataset = await post("/v1/datasets/from-source", from("mlflow", "models:/digits/1"));
  assert.deepEqual([dataset.status, dataset.json.errors[0].pointer], [422, "/source/kind"]);
});

test("files of listed repositories are fetched from Hugging Face's hub, with our token and of the revision that was named", async () => {
  const cdn = "http://127.0.0.1:9/cdn";
  hub.files.set("org/net/main/onnx/model.onnx", { bytes: MODEL, large: true, needsToken: "hf_t1" });
  hub.files.set("org/net/refs/pr/1/a b.onnx", { bytes: MODEL });
  hub.files.set("datasets/org/lines/v2/lines.npz", { bytes: MODEL });
  hub.files.set("org/net/main/other.onnx", { bytes: MODEL, large: true, sha256: "0".repeat(64) });
  hub.files.set("org/net/main/cut.onnx", { bytes: MODEL, cut: true });
  hub.files.set("org/net/main/moved.onnx", { bytes: MODEL, location: cdn });
  hub.files.set("org/net/main/private.onnx", { bytes: MODEL, needsToken: "hf_other" });

  const made = await models(from("huggingface", "hf://org/net/onnx/model.onnx", { sha256 }));
  assert.deepEqual([made.status, namesOf(made.json)], [201, ["model.onnx"]], made.body.toString());
  const revised = await models({ ...from("huggingface", "hf://org/net@refs%2Fpr%2F1/a b.onnx"), name: "a b" });
  assert.deepEqual(namesOf(revised.json), ["a b.onnx"], revised.body.toString());
  const lines = await post("/v1/datasets/from-source", from("huggingface", "hf://datasets/org/lines@v2/lines.npz"));
  assert.deepEqual([lines.status, lines.json.name], [201, "lines"]);
  assert.ok(hub.seen.every(([, token]) => token === "Bearer hf_t1"));

  for (const [url, status, code, detail] of [
    ["hf://org/net/none.onnx", 422, "source_failed", /^The repository org\/net has no file none\.onnx at main\.$/],
    [
      "hf://org/none/m.onnx",
      422,
      "source_failed",
      /answered 401: there is no such repository or revision, or this service may not/,
    ],
    ["hf://org/net/private.onnx", 422, "source_failed", /answered 401: there is no such/],
    ["hf://org/net/other.onnx", 422, "source_failed", /not those that its keeper names/],
    ["hf://org/net/cut.onnx", 422, "source_failed", /ended before all of its bytes/],
    [
      "hf://org/net/moved.onnx",
      422,
      "source_failed",
      /redirects to where nothing is fetched from. It must start with https/,
    ],
  ] as const) {
    const refused = await models(from("huggingface", url));
    assert.deepEqual([refused.status, refused.json.code], [status, code], `${url} ${refused.body}`);
    assert.match(refused.json.detail, detail);
    assert.ok(!refused.body.includes("hf_"), "our token is not passed on");
  }
  const asked = hub.seen.length;
  for (const [url, message] of [
    ["hf://other/net/m.onnx", /SOURCE_ALLOW_REPOSITORIES\): those are org\/\*, datasets\/org\/lines/],
    ["hf://datasets/org/other/m.npz", /SOURCE_ALLOW_REPOSITORIES/],
    ["hf://org/net/../other/m.onnx", /must be hf:\/\/organisation\/name\/path/],
    ["hf://org/..@main/m.onnx", /must be hf:/],
    ["hf://org/net@a%/m.onnx", /must be hf:/],
    ["https://huggingface.co/org/net/resolve/main/m.onnx", /must be hf:/],
  ] as const) {
    const refused = await models(from("huggingface", url));
    assert.deepEqual([refused.status, refused.json.errors[0].code], [422, "source_refused"], url);
    assert.match(refused.json.errors[0].message, message);
  }
  assert.equal(hub.seen.length, asked);
  await hub.close();
  const gone = await models(from("huggingface", "hf://org/net/onnx/model.onnx"));
  assert.deepEqual([gone.status, gone.json.code], [503, "unavailable"]);
  assert.match(gone.json.detail, /^The hub cannot be asked now: ECONNREFUSED\.$/);
});
