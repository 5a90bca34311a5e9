import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Client, type Job } from "../scripts/demo/client.ts";
import { startStack } from "../scripts/demo/stack.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";
import { writeNpz } from "../test/support/dataset-writers.ts";
import { cnn, imageTransformer, mlp } from "../test/support/networks.ts";
import { REAL_MODEL_NAMES, type RealModel, readRealModel } from "../test/support/real-models.ts";
import { mnist } from "./mnist.ts";

/**
 * node bench/artifacts.ts [--tree folder] [--only text]
 *
 * What a fixed list of jobs makes: every method on the models that development packages ship and on three small networks, and
 * distillations. Prints a line for each job: its name, the artifact's sha256, its size in bytes, the least SQNR of its outputs in dB and
 * the job's seconds. Two versions of the code that print the same hashes make the same models: `--tree` runs the service of another
 * checkout, so that one script serves both. `--only` runs the jobs whose name contains the text.
 */

interface Subject {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Inputs by name, stacked along the first axis, and labels if there are any. */
  readonly data: Readonly<Record<string, Tensor>>;
  readonly methods: Readonly<Record<string, MethodParams>>;
}

const SAMPLES = 8;
const SILERO_WINDOW = 512;

const { values: options } = parseArgs({ options: { tree: { type: "string" }, only: { type: "string" } } });

const weightOnly = (bits: 4 | 8, format: "qdq" | "matmulnbits") => ({ method: "weight_only", bits, format });

type MethodParams = Readonly<Record<string, unknown>>;

/** Parameters by the name that is printed; `dataset_id` is filled in where it is `true`. */
const METHODS: Readonly<Record<string, MethodParams>> = {
  simplify: { method: "simplify" },
  float16: { method: "float16" },
  // Of a named machine, not of whichever runs this; kernel costs are known for the second.
  dynamic: { method: "dynamic", target: "x64-vnni" },
  "static-vnni": { method: "static", samples: SAMPLES, target: "x64-vnni", dataset_id: true },
  // What kernels are measured to take on the machine that runs this would differ from run to run.
  "static-avx2": {
    method: "static",
    samples: SAMPLES,
    target: "x64-avx2",
    float_where_slower: false,
    dataset_id: true,
  },
  "weight8-qdq": weightOnly(8, "qdq"),
  "weight8-matmulnbits": weightOnly(8, "matmulnbits"),
  "weight4-qdq": weightOnly(4, "qdq"),
  "weight4-matmulnbits": weightOnly(4, "matmulnbits"),
  gptq: { ...weightOnly(4, "matmulnbits"), algorithm: "gptq", samples: SAMPLES, dataset_id: true },
  stochastic: { ...weightOnly(4, "qdq"), rounding: "stochastic", samples: SAMPLES, dataset_id: true },
};

/** What trains, or rounds by training: on the small networks alone, so that the list does not take hours. */
const TRAINED_METHODS: Readonly<Record<string, MethodParams>> = {
  "static-adaround": { ...METHODS["static-vnni"], rounding: "adaround" },
  qat: {
    method: "qat",
    target: "x64-vnni",
    samples: SAMPLES,
    epochs: 1,
    training: { batch_size: 16 },
    dataset_id: true,
  },
};

/** `count` samples of bars of several widths under noise: float32 [count, 3, height, width]. */
function bars(count: number, height: number, width: number): Tensor {
  const random = new Random(1, "bars");
  const data = new Float32Array(count * 3 * height * width);
  random.fillNormal(data);
  for (let i = 0; i < data.length; i++) {
    const sample = Math.floor(i / (3 * height * width));
    const [x, y] = [i % width, Math.floor(i / width) % height];
    const dark = y > 0.3 * height && y < 0.7 * height && x % (8 + sample) < 4;
    data[i] = 0.1 * data[i]! + (dark ? -0.8 : 0.8);
  }
  return tensorOf("float32", [count, 3, height, width], data);
}

/** `count` windows of a hum of rising pitch under noise, each with a random state, as a voice detector takes them. */
function hum(count: number): Record<string, Tensor> {
  const random = new Random(1, "hum");
  const sound = new Float32Array(count * SILERO_WINDOW);
  const state = new Float32Array(count * 256);
  random.fillNormal(sound);
  random.fillNormal(state);
  for (let n = 0; n < sound.length; n++) {
    const phase = 2 * Math.PI * (120 + n / 200) * (n / 16_000);
    sound[n] = 0.02 * sound[n]! + 0.3 * Math.sin(phase) + 0.1 * Math.sin(7 * phase);
  }
  return {
    input: tensorOf("float32", [count, SILERO_WINDOW], sound),
    state: tensorOf(
      "float32",
      [count, 2, 1, 128],
      state.map((value) => 0.3 * value),
    ),
    sr: tensorOf("int64", [], [16_000]),
  };
}

const OCR_SIZES: Partial<Record<RealModel, readonly [height: number, width: number]>> = {
  "ppocr-rec": [48, 160],
  "ppocr-det": [64, 96],
  "ppocr-cls": [48, 192],
};

function realSubject(name: RealModel): Subject {
  const size = OCR_SIZES[name];
  const data = size ? { x: bars(SAMPLES, ...size) } : hum(SAMPLES);
  return { name, bytes: new Uint8Array(readRealModel(name)), data, methods: METHODS };
}

function digits(count: number): Record<string, Tensor> {
  const { feeds, targets } = mnist("training", count).gather(Array.from({ length: count }, (_, i) => i));
  return { ...feeds, ...targets };
}

function smallNet(name: string, model: Model): Subject {
  const methods = { ...METHODS, ...TRAINED_METHODS };
  return { name, bytes: new Uint8Array(modelToBytes(model)), data: digits(64), methods };
}

const TEACHER = cnn([8, 16], 32, 1);
const STUDENT = cnn([4, 8], 16, 2);
const SUBJECTS: readonly Subject[] = [
  ...REAL_MODEL_NAMES.map(realSubject),
  smallNet("mnist-mlp", mlp([784, 256, 128, 10], 1)),
  smallNet("mnist-cnn", TEACHER),
  smallNet("mnist-vit", imageTransformer({ layers: 2, width: 64, heads: 4, length: 28, classes: 10, seed: 1 })),
];

const EVALUATION = { samples: SAMPLES, latency: { runs: 1 } } as const;

async function run(client: Client, name: string, body: object): Promise<void> {
  if (options.only !== undefined && !name.includes(options.only)) return;
  const started = performance.now();
  console.log(
    `${name.padEnd(34)} ${await resultOf(client, body).catch((error: Error) => `refused: ${error.message}`)} ${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s`,
  );
}

async function resultOf(client: Client, body: object): Promise<string> {
  const { id } = await client.createJob(body);
  const job = await client.follow(id, () => {});
  if (job.result === null) return `${job.status}: ${job.error?.code}: ${job.error?.detail}`;
  const artifact = job.result.artifacts.find(({ name }) => name.endsWith(".onnx"))!;
  const bytes = new Uint8Array(await (await client.request(artifact.url)).arrayBuffer());
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return `${sha256} ${String(bytes.length).padStart(9)} ${leastSqnr(job).padStart(9)}`;
}

function leastSqnr(job: Job): string {
  const all = job.result!.metrics.fidelity.outputs.flatMap(({ sqnr_db }) => (sqnr_db === null ? [] : [sqnr_db]));
  return all.length === 0 ? "exact" : `${Math.min(...all).toFixed(2)} dB`;
}

async function quantizeAll(client: Client, subject: Subject): Promise<void> {
  const { id: model_id } = await client.uploadModel(subject.bytes, subject.name);
  const { id: dataset_id } = await client.uploadDataset(
    new Uint8Array(writeNpz(subject.data)),
    "data.npz",
    subject.name,
  );
  for (const [method, params] of Object.entries(subject.methods)) {
    const given = "dataset_id" in params ? { ...params, dataset_id } : params;
    const evaluation = { ...EVALUATION, dataset_id };
    await run(client, `${subject.name} ${method}`, { type: "quantize", model_id, params: given, evaluation });
  }
}

async function distill(client: Client): Promise<void> {
  const { id: teacher_model_id } = await client.uploadModel(new Uint8Array(modelToBytes(TEACHER)), "teacher");
  const { id: model_id } = await client.uploadModel(new Uint8Array(modelToBytes(STUDENT)), "student");
  const data = new Uint8Array(writeNpz(digits(512)));
  const { id: dataset_id } = await client.uploadDataset(data, "digits.npz", "digits");
  const training = { epochs: 2, batch_size: 64 };
  const students = {
    uploaded: { model_id },
    "derived-width": { derive: { width: 0.5 } },
    "derived-rank": { derive: { rank: 0.5 } },
  };
  for (const [name, student] of Object.entries(students)) {
    const params = { mode: "offline", teacher_model_id, dataset_id, student, training, seed: 1 };
    await run(client, `distill ${name}`, { type: "distill", params, evaluation: { ...EVALUATION, dataset_id } });
  }
}

const entry = options.tree === undefined ? undefined : join(resolve(options.tree), "scripts/start.ts");
const stack = await startStack({ LOG_LEVEL: "warn" }, entry);
try {
  const client = new Client(stack.url);
  for (const subject of SUBJECTS) await quantizeAll(client, subject);
  await distill(client);
} finally {
  await stack.close();
}
