/**
 * Models from MLflow's registry and back, against a real `mlflow server` and with MLflow's own Python client on the other side: versions of one and of
 * two files are fetched, one is quantized and delivered as a new version, and Python loads that and predicts with it.
 *
 *   node bench/mlflow/mlflow.ts PYTHON     the Python of an environment with mlflow, onnx and onnxruntime
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Client } from "../../scripts/demo/client.ts";
import { startStack } from "../../scripts/demo/stack.ts";

const [python] = process.argv.slice(2);
if (!python) throw new Error("Which Python has mlflow? node bench/mlflow/mlflow.ts PYTHON");

const SCRIPT = new URL("registry.py", import.meta.url).pathname;
const START_TIMEOUT_MS = 120_000;

const folder = await mkdtemp(join(tmpdir(), "modelpress-mlflow-"));
const port = await freePort();
const uri = `http://127.0.0.1:${port}`;
const server = spawn(
  join(dirname(python), "mlflow"),
  ["server", "--host", "127.0.0.1", "--port", String(port), "--workers", "1"],
  { cwd: folder, stdio: "ignore", detached: true },
);
const run = async (...args: string[]) =>
  (await promisify(execFile)(python, [SCRIPT, uri, ...args], { cwd: folder })).stdout;

try {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!(await fetch(`${uri}/version`).catch(() => undefined))?.ok) {
    if (Date.now() > deadline || server.exitCode !== null) throw new Error("mlflow server did not start");
    await sleep(500);
  }
  console.log(`mlflow ${await (await fetch(`${uri}/version`)).text()}`);
  await run("register", "digits");
  const stack = await startStack({
    LOG_LEVEL: "warn",
    MLFLOW_TRACKING_URI: uri,
    SOURCE_ALLOW_REGISTERED_MODELS: "digits,not-onnx",
    DELIVER_ALLOW_REGISTERED_MODELS: "digits*",
  });
  try {
    await drive(new Client(stack.url));
  } finally {
    await stack.close();
  }
} finally {
  if (server.exitCode === null) {
    process.kill(-server.pid!, "SIGTERM");
    await once(server, "exit");
  }
  await rm(folder, { recursive: true, force: true });
}

async function drive(client: Client): Promise<void> {
  const post = async (path: string, body: object) =>
    client.request(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const fetched = async (url: string) =>
    (await post("/v1/models/from-source", { source: { kind: "mlflow", files: [{ url }] } })).json() as Promise<{
      id: string;
      files: readonly { name: string; size_bytes: number }[];
    }>;

  for (const url of ["models:/digits/1", "models:/digits/2", "models:/digits@champion"]) {
    const { id, files } = await fetched(url);
    console.log(`${url} -> ${id}: ${files.map((it) => `${it.name} (${it.size_bytes} bytes)`).join(", ")}`);
  }
  for (const url of ["models:/digits/9", "models:/digits@none", "models:/not-onnx/1", "models:/other/1"]) {
    const refused = await fetched(url).then(
      () => "was fetched",
      (error) => error.message,
    );
    console.log(`${url}: ${refused}`);
  }

  const { id } = await fetched("models:/digits@champion");
  const job = await client.createJob({
    type: "quantize",
    model_id: id,
    params: { method: "dynamic" },
    deliver_to: { kind: "mlflow", url: "models:/digits" },
  });
  const done = await client.follow(job.id, () => {});
  console.log(`${job.id}: ${done.status}`);
  let delivery: { status: string; location: string | null; detail: string | null };
  do {
    await sleep(500);
    ({ delivery } = (await (await client.request(`/v1/jobs/${job.id}`)).json()) as { delivery: typeof delivery });
  } while (delivery.status === "waiting" && delivery.detail === null);
  console.log(`delivery: ${JSON.stringify(delivery)}`);
  if (delivery.location !== null) console.log(`in Python: ${await run("load", delivery.location)}`);
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  probe.close();
  return port;
}
