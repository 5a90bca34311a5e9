/**
 * ONNX's backend node corpus through the whole service: every model is uploaded, compressed by every method, and what comes of it is
 * loaded and run by onnxruntime beside the original, on the case's own inputs, in a process that may crash. Right is 0 in the columns
 * from "5xx" on; then the exit code is 0.
 *
 *     node bench/corpus.ts [--python python3] [--limit 100] [--shard 0/1] [--forms plain,tail,head] [--methods float16,…] [--url …]
 *
 * The interpreter needs numpy and onnx. `--limit 0` takes all 4,356 models, which is 20,000 jobs. Unless a URL is given, a service is started.
 */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { Job } from "../scripts/demo/client.ts";
import { startStack } from "../scripts/demo/stack.ts";
import { Judge, type Verdict } from "./corpus/judge.ts";

/** Models that are worked on at the same time; each has its jobs one after the other. */
const AT_ONCE = 4;
const WORKERS = 2;
const POLL_MS = 100;
/** An output below this is worth a warning. */
const LOW_DB = 20;

const METHODS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  float16: { method: "float16" },
  float16_io: { method: "float16", keep_io: false },
  dynamic: { method: "dynamic" },
  static: { method: "static", samples: 8 },
  qdq8: { method: "weight_only", bits: 8, format: "qdq" },
  matmulnbits4: { method: "weight_only", bits: 4, format: "matmulnbits" },
};
const USUAL = "float16,dynamic,static,qdq8,matmulnbits4";

/** A model of the generator, with names of files in its folder. */
interface Entry {
  readonly name: string;
  readonly ops: readonly string[];
  readonly model: string;
  readonly feeds: string | null;
  readonly data: string | null;
}

/** What is wrong when it is not 0, in the order of the table. */
const FAULTS = [
  "5xx",
  "crashed",
  "does not load",
  "does not run",
  "other outputs",
  "not finite",
  "silent < 20 dB",
] as const;
type Fault = (typeof FAULTS)[number];

const VERDICT_FAULTS: Readonly<Partial<Record<Verdict["kind"], Fault>>> = {
  crashes: "does not load",
  does_not_load: "does not load",
  does_not_run: "does not run",
  other_outputs: "other outputs",
  not_finite: "not finite",
};

/** Job errors that no model may cause. */
const OUR_CODES = ["internal", "worker_crashed"];

/** What came of the models by one method, or of the uploads. */
class Tally {
  asked = 0;
  succeeded = 0;
  unchanged = 0;
  warned = 0;
  readonly refused = new Map<string, number>();
  readonly failed = new Map<string, number>();
  readonly faults = new Map<Fault, number>();
}

interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers of the service, of which a few fields are read
  readonly json: any;
}

const count = <K>(counts: Map<K, number>, key: K) => void counts.set(key, (counts.get(key) ?? 0) + 1);
const textOf = (counts: ReadonlyMap<string, number>) =>
  [...counts].map(([key, number]) => `${key} ${number}`).join(", ") || "-";

const { values: options } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    limit: { type: "string", default: "100" },
    shard: { type: "string", default: "0/1" },
    forms: { type: "string", default: "plain,tail,head" },
    methods: { type: "string", default: USUAL },
    url: { type: "string" },
  },
});
const methods = options.methods.split(",");
const unknown = methods.filter((method) => !Object.hasOwn(METHODS, method));
if (unknown.length > 0) throw new Error(`No method is called ${unknown}. There are ${Object.keys(METHODS)}.`);

const folder = await mkdtemp(join(tmpdir(), "corpus-"));
const uploads = new Tally();
const tallies = new Map(methods.map((method) => [method, new Tally()]));

async function generate(): Promise<readonly Entry[]> {
  const script = join(import.meta.dirname, "corpus/models.py");
  const args = [script, folder, options.shard, options.limit, options.forms];
  const child = spawn(options.python, args, { stdio: "inherit" });
  const code = await new Promise((resolve, reject) => child.once("close", resolve).once("error", reject));
  if (code !== 0) throw new Error(`${options.python} ${script} ended with ${code}: does it have numpy and onnx?`);
  return JSON.parse(await readFile(join(folder, "index.json"), "utf8"));
}

async function call(url: string, path: string, body?: unknown): Promise<Answer> {
  const isForm = body instanceof FormData;
  const response = await fetch(url + path, {
    ...(body !== undefined && { method: "POST", body: isForm ? body : JSON.stringify(body) }),
    headers: body === undefined || isForm ? {} : { "content-type": "application/json" },
  });
  return { status: response.status, json: await response.json().catch(() => ({})) };
}

async function upload(url: string, kind: "models" | "datasets", file: string): Promise<Answer> {
  const form = new FormData();
  form.set("file", new Blob([await readFile(join(folder, file))]), file);
  return await call(url, `/v1/${kind}`, form);
}

function say(name: string, what: string, detail: string): void {
  console.log(`${name}: ${what}: ${detail.replaceAll("\n", " ").slice(0, 400)}`);
}

function note(tally: Tally, name: string, fault: Fault, detail: string): void {
  count(tally.faults, fault);
  say(name, `FAULT ${fault}`, detail);
}

/** Counts an answer that is not 2xx. */
function noteRefusal(tally: Tally, name: string, { status, json }: Answer): void {
  if (status >= 500) note(tally, name, "5xx", `${status} ${json.code} ${json.detail}`);
  else {
    count(tally.refused, json.code);
    say(name, `refused ${json.code}`, String(json.detail));
  }
}

async function tryModel(url: string, judge: Judge, entry: Entry): Promise<void> {
  uploads.asked++;
  const model = await upload(url, "models", entry.model);
  if (model.status >= 300) return noteRefusal(uploads, `${entry.name} upload`, model);
  uploads.succeeded++;
  const dataset = entry.data === null ? undefined : await upload(url, "datasets", entry.data);
  if (dataset && dataset.status >= 300) noteRefusal(uploads, `${entry.name} dataset`, dataset);
  const datasetId: string | null = dataset?.json.id ?? null;
  for (const method of methods) {
    if (method === "static" && datasetId === null) continue;
    await tryMethod(url, judge, entry, method, model.json.id, datasetId);
  }
}

async function tryMethod(
  url: string,
  judge: Judge,
  entry: Entry,
  method: string,
  modelId: string,
  datasetId: string | null,
): Promise<void> {
  const name = `${entry.name} ${method}`;
  const tally = tallies.get(method)!;
  tally.asked++;
  const posted = await call(url, "/v1/jobs", {
    type: "quantize",
    model_id: modelId,
    params: { ...METHODS[method], ...(method === "static" && { dataset_id: datasetId }) },
    evaluation: { samples: 2, latency: { runs: 1 }, dataset_id: datasetId },
  });
  if (posted.status !== 202) return noteRefusal(tally, name, posted);
  let job: Job = posted.json;
  while (job.finished_at === null) {
    await sleep(POLL_MS);
    job = (await call(url, `/v1/jobs/${job.id}`)).json;
  }
  if (!job.result) {
    const { code, detail } = job.error!;
    count(tally.failed, code);
    if (OUR_CODES.includes(code)) note(tally, name, "crashed", `${code} ${detail}`);
    else say(name, `failed ${code}`, detail);
    return;
  }
  tally.succeeded++;
  const { warnings } = job.result.metrics as unknown as { warnings: readonly { readonly code: string }[] };
  const codes = warnings.map(({ code }) => code);
  if (codes.includes("low_fidelity")) tally.warned++;
  if (codes.includes("nothing_quantized")) tally.unchanged++;
  await judgeResult(url, judge, entry, job, tally, name, codes);
}

async function judgeResult(
  url: string,
  judge: Judge,
  entry: Entry,
  job: Job,
  tally: Tally,
  name: string,
  warnings: readonly string[],
): Promise<void> {
  const made = join(folder, job.id);
  await mkdir(made);
  for (const artifact of job.result!.artifacts.filter(({ name }) => name.startsWith("model.onnx"))) {
    const response = await fetch(new URL(artifact.url, url));
    await writeFile(join(made, artifact.name), new Uint8Array(await response.arrayBuffer()));
  }
  const verdict = await judge.judge({
    original: join(folder, entry.model),
    result: join(made, "model.onnx"),
    feeds: entry.feeds === null ? null : join(folder, entry.feeds),
  });
  await rm(made, { recursive: true });
  const fault = VERDICT_FAULTS[verdict.kind];
  // Shapes that follow from values may differ, and are warned of.
  const isSaid = verdict.kind === "other_outputs" && warnings.includes("shapes_differ");
  if (fault && !isSaid && "detail" in verdict) note(tally, name, fault, verdict.detail);
  if (verdict.kind === "original_fails") say(name, "cannot be judged", verdict.detail);
  if (verdict.kind === "compared" && verdict.worstDb < LOW_DB && !warnings.includes("low_fidelity")) {
    note(tally, name, "silent < 20 dB", `${verdict.worstDb.toFixed(1)} dB`);
  }
}

function printTable(): void {
  const { asked, succeeded, refused } = uploads;
  console.log(`\n${asked} models: ${succeeded} accepted; refused or failed: ${textOf(refused)}`);
  const columns = ["method", "jobs", "succeeded", "nothing to do", "warned < 20 dB", ...FAULTS];
  console.log(`| ${columns.join(" | ")} | refused | failed |\n|${" --- |".repeat(columns.length + 2)}`);
  for (const [method, tally] of [["upload", uploads] as const, ...tallies]) {
    const faults = FAULTS.map((fault) => tally.faults.get(fault) ?? 0);
    const cells = [method, tally.asked, tally.succeeded, tally.unchanged, tally.warned, ...faults];
    console.log(`| ${cells.join(" | ")} | ${textOf(tally.refused)} | ${textOf(tally.failed)} |`);
  }
}

try {
  const entries = await generate();
  const stack = options.url
    ? undefined
    : await startStack({ WORKER_CONCURRENCY: String(WORKERS), LOG_LEVEL: "warn", RATE_LIMIT_PER_MINUTE: "0" });
  try {
    const url = options.url ?? stack!.url;
    const waiting = entries.values();
    let done = 0;
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        const judge = new Judge();
        for (const entry of waiting) {
          await tryModel(url, judge, entry);
          if (++done % 25 === 0) console.log(`${done} of ${entries.length} models`);
        }
        judge.close();
      }),
    );
  } finally {
    await stack?.close();
  }
  printTable();
  if ([uploads, ...tallies.values()].some(({ faults }) => faults.size > 0)) process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
