import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, type Job, type JobEvent } from "./demo/client.ts";
import { startStack } from "./demo/stack.ts";
import { loadSubjects, modelBytes, type Subject } from "./demo/subjects.ts";
import { describeTrained, type Trained, trainAndDistill } from "./demo/training.ts";

/**
 * npm run demo [folder]
 *
 * Compresses three real models by every method over HTTP, then trains a network for handwritten digits and distills a small one from it,
 * and prints what came of it. The models and their reports stay in the folder (`demo-output` unless named). Ends with exit code 1 when anything failed.
 */

/** What is done to each model; `calibration` is the id of data to look at. */
const METHODS = [
  { name: "float16", params: () => ({ method: "float16" }) },
  { name: "static int8", params: (calibration: string) => ({ method: "static", dataset_id: calibration }) },
  { name: "dynamic int8", params: () => ({ method: "dynamic" }) },
  { name: "weight-only 8 bit", params: () => ({ method: "weight_only", bits: 8, format: "qdq" }) },
  { name: "weight-only 4 bit", params: () => ({ method: "weight_only", bits: 4, format: "qdq" }) },
  {
    name: "4 bit by GPTQ",
    params: (calibration: string) => ({
      ...{ method: "weight_only", bits: 4, format: "qdq" },
      ...{ algorithm: "gptq", dataset_id: calibration },
    }),
  },
] as const;

const EVALUATION = { samples: 32, latency: { runs: 30, batch_size: 1, threads: 1 } } as const;
/** Of what the stack printed, shown when a request fails. */
const LOG_TAIL_CHARACTERS = 4000;
const ARTIFACTS = ["model.onnx", "report.json", "report.html"] as const;

interface Row {
  readonly subject: Subject;
  readonly method: string;
  readonly job: Job;
  /** Score before and after, for subjects that have one. */
  readonly score: readonly [number, number] | null;
}

/** Shows where a job is, on one line that is written over; nothing when the output is not a terminal. */
function showProgress(text: string): void {
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text.slice(0, process.stdout.columns - 1)}`);
}

function say(text: string): void {
  showProgress("");
  console.log(text);
}

async function download(client: Client, job: Job, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const name of ARTIFACTS) {
    const artifact = job.result!.artifacts.find((it) => it.name === name);
    if (artifact === undefined) throw new Error(`The job ${job.id} has no ${name}.`);
    const bytes = new Uint8Array(await (await client.request(artifact.url)).arrayBuffer());
    if (bytes.length !== artifact.size_bytes) throw new Error(`${artifact.url} was ${bytes.length} bytes long.`);
    await writeFile(join(folder, name), bytes);
  }
}

async function compressAll(client: Client, subjects: readonly Subject[], folder: string): Promise<Row[]> {
  const jobs: { subject: Subject; method: string; id: string }[] = [];
  for (const subject of subjects) {
    const model = await client.uploadModel(await modelBytes(subject), subject.title);
    const upload = async (file: Uint8Array, name: string) =>
      (await client.uploadDataset(new Uint8Array(file), `${name}.npz`, name)).id;
    const heldOut = await upload(subject.dataset, subject.name);
    const calibration = await upload(subject.calibration, `${subject.name}-calibration`);
    for (const { name, params } of METHODS) {
      const evaluation = { dataset_id: heldOut, ...EVALUATION };
      const request = { type: "quantize", model_id: model.id, params: params(calibration), evaluation };
      const job = await client.createJob(request);
      jobs.push({ subject, method: name, id: job.id });
    }
    say(`uploaded ${subject.title} and ${subject.samples} inputs`);
  }

  const done: Row[] = [];
  for (const [i, { subject, method, id }] of jobs.entries()) {
    const label = `[${i + 1}/${jobs.length}] ${subject.title}, ${method}`;
    showProgress(`${label}: queued`);
    const job = await client.follow(id, (event) => showProgress(`${label}: ${describe(event)}`));
    const why = job.error ? `: ${job.error.code}: ${job.error.detail}` : "";
    say(`${label}: ${job.status} after ${secondsOf(job).toFixed(1)} s${why}`);
    done.push({ subject, method, job, score: null });
  }
  return takeHome(client, done, folder);
}

/** Downloads the results and gives them the task that the model is for: when all jobs are over, whose latencies it would disturb. */
async function takeHome(client: Client, done: readonly Row[], folder: string): Promise<Row[]> {
  const rows: Row[] = [];
  const before = new Map<Subject, number>();
  for (const row of done) {
    const { subject, method, job } = row;
    const place = join(folder, subject.name, method.replaceAll(" ", "-"));
    if (job.result !== null) await download(client, job, place);
    if (job.result === null || subject.score === null) {
      rows.push(row);
      continue;
    }
    showProgress(`${subject.title}, ${method}: counting the ${subject.score.of}`);
    const original = before.get(subject) ?? (await subject.score.run(subject.modelPath));
    before.set(subject, original);
    rows.push({ ...row, score: [original, await subject.score.run(join(place, "model.onnx"))] });
  }
  showProgress("");
  return rows;
}

/** How long the job ran. */
function secondsOf({ started_at, finished_at }: Job): number {
  return started_at && finished_at ? (Date.parse(finished_at) - Date.parse(started_at)) / 1000 : 0;
}

function describe({ type, data }: JobEvent): string {
  if (type !== "progress") return String(data.status ?? type);
  return `${Math.round(100 * Number(data.fraction))} % ${data.step} ${data.message}`;
}

const HEADER = ["model", "method", "size", "ratio", "cosine", "SQNR", "speed", "task score"];

function cellsOf({ subject, method, job, score }: Row): string[] {
  if (job.result === null) return [subject.title, method, job.status, "", "", "", "", job.error?.code ?? ""];
  const { size, fidelity, latency } = job.result.metrics;
  const sqnrDb = Math.min(...fidelity.outputs.map((output) => output.sqnr_db ?? Number.POSITIVE_INFINITY));
  const percent = (share: number) => (100 * share).toFixed(2);
  return [
    subject.title,
    method,
    `${megabytes(size.before_bytes)} -> ${megabytes(size.after_bytes)} MB`,
    `${percent(size.ratio)} %`,
    Math.min(...fidelity.outputs.map(({ cosine }) => cosine)).toFixed(5),
    Number.isFinite(sqnrDb) ? `${sqnrDb.toFixed(1)} dB` : "exact",
    `${latency.speedup.toFixed(2)}x`,
    score === null ? "" : `${percent(score[0])} -> ${percent(score[1])} % ${subject.score!.of}`,
  ];
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(2);
}

function printTable(rows: readonly (readonly string[])[]): void {
  const widths = HEADER.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const row of rows)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    );
}

async function main(): Promise<boolean> {
  const started = performance.now();
  const folder = process.argv[2] ?? "demo-output";
  const scratch = await mkdtemp(join(tmpdir(), "modelpress-demo-"));
  try {
    say("drawing text lines and speaking syllables");
    const subjects = await loadSubjects(join(scratch, "fonts"));
    const stack = await startStack({ LOG_LEVEL: "warn" });
    let rows: Row[];
    let trained: readonly Trained[];
    try {
      say(`modelpress runs at ${stack.url}`);
      const client = new Client(stack.url);
      rows = await compressAll(client, subjects, folder);
      say("training a network for handwritten digits (MNIST), and distilling a small one from it");
      trained = await trainAndDistill(client, (name, event) => showProgress(`${name}: ${describe(event)}`));
      for (const { name, job } of trained) if (job.result) await download(client, job, join(folder, "digits", name));
    } catch (error) {
      console.error(stack.log().slice(-LOG_TAIL_CHARACTERS));
      throw error;
    } finally {
      await stack.close();
    }
    console.log(
      "\nCosine and SQNR: worst output against the original's, on the same inputs. Speed: median latency before / after, one thread.\n",
    );
    printTable([HEADER, ...rows.map(cellsOf)]);
    console.log(`\n${trained.map(describeTrained).join("\n")}`);
    console.log(
      `\nModels and reports are in ${folder}. ${((performance.now() - started) / 1000).toFixed(0)} s in all.`,
    );
    return [...rows, ...trained].every(({ job }) => job.status === "succeeded");
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
