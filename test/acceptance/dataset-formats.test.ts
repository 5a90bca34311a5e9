import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type Caller, createCaller, formOf } from "../support/calls.ts";
import { writeZip } from "../support/dataset-writers.ts";
import { DIGITS_SPEC, type DigitFiles, digitFiles } from "../support/digit-files.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { writeParquet } from "../support/parquet.ts";

/** The same digits as images, rows, lines, tables and arrays, through the whole service: jobs cannot tell them apart. */

const PER_CLASS = 30;

const SPECS = {
  images: JSON.stringify(DIGITS_SPEC),
  csv: '{"kind":"csv","inputs":{"x":{"shape":[1,28,28]}},"labels":"label"}',
  jsonl: '{"kind":"jsonl","inputs":{"x":{"columns":["image"]}},"labels":"label"}',
  parquet: '{"kind":"parquet","inputs":{"x":{"columns":["image"]}},"labels":"label"}',
};

let stack: Stack;
let api: Caller;
let jobs: LiveJobs;
let digits: DigitFiles;
before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn", JOB_THREADS: "1" });
  api = await createCaller(stack.url);
  jobs = await openLiveJobs(stack);
  digits = digitFiles("test", PER_CLASS);
});
after(() => stack?.close());

const json = { "content-type": "application/json" };

async function send(file: string, bytes: Uint8Array, spec?: string) {
  return api.call("POST", "/v1/datasets", { body: formOf({ [file]: bytes }, spec === undefined ? {} : { spec }) });
}

/** In two pieces, by the protocol for large files. */
async function sendInPieces(filename: string, bytes: Uint8Array, spec: string) {
  const tus = { "tus-resumable": "1.0.0" };
  const created = await api.call("POST", "/v1/uploads", { headers: { ...tus, "upload-length": String(bytes.length) } });
  const path = created.headers.get("location")!;
  const cut = bytes.length >> 1;
  for (const [offset, piece] of [
    [0, bytes.subarray(0, cut)],
    [cut, bytes.subarray(cut)],
  ] as const) {
    const headers = { ...tus, "content-type": "application/offset+octet-stream", "upload-offset": String(offset) };
    assert.equal((await api.call("PATCH", path, { headers, body: Buffer.from(piece) })).status, 204);
  }
  const uploads = [{ upload_id: path.split("/").at(-1), filename }];
  return api.call("POST", "/v1/datasets/from-uploads", {
    headers: json,
    body: JSON.stringify({ uploads, spec: JSON.parse(spec) }),
  });
}

const train = async (dataset_id: string, model_id: string) => {
  const { id } = await jobs.client.createJob({
    type: "distill",
    params: {
      ...{ mode: "offline", dataset_id, student: { model_id, init: "reinitialize" } },
      loss: { kl_weight: 0, label_weight: 1 },
      training: { epochs: 3, batch_size: 32 },
    },
  });
  const job = await jobs.succeeded({ id });
  const model = job.result!.artifacts.find(({ name }) => name === "model.onnx") as unknown as { sha256: string };
  return { modelId: job.result!.model_id, sha256: model.sha256 };
};

test("images, rows and lines are judged as the same arrays are", async () => {
  const spec = encodeURIComponent(SPECS.csv);
  const raw = { "content-type": "application/octet-stream" };
  const arrays = await send("digits.npz", digits.npz);
  const images = await send("digits.zip", digits.zip, SPECS.images);
  const rows = await api.call("POST", `/v1/datasets?name=digits.csv&spec=${spec}`, {
    ...{ headers: raw, body: Buffer.from(digits.csv) },
  });
  const lines = await sendInPieces("digits.jsonl", digits.jsonl, SPECS.jsonl);
  const table = await send("digits.parquet", digits.parquet, SPECS.parquet);
  const classes = Array.from({ length: 10 }, (_, i) => String(i));
  for (const [{ status, json: dataset }, names] of [
    [arrays, null],
    [images, classes],
    [rows, null],
    [lines, classes.map((name) => `digit ${name}`)],
    [table, classes.map((name) => `digit ${name}`)],
  ] as const) {
    assert.equal(status, 201, JSON.stringify(dataset));
    assert.equal(dataset.samples, 10 * PER_CLASS);
    const [{ content, ...field }] = dataset.fields;
    assert.deepEqual(field, { name: "x", dtype: "float32", shape: [1, 28, 28] });
    // Images are decoded when they are needed.
    if (names === classes) assert.equal(content, null);
    else {
      // Black and white, as DIGITS_SPEC normalizes them.
      assert.ok(Math.abs(content.min + 0.1307 / 0.3081) < 1e-6, `${content.min}`);
      assert.ok(Math.abs(content.max - (1 - 0.1307) / 0.3081) < 1e-6, `${content.max}`);
      assert.equal(content.non_finite, 0);
    }
    assert.deepEqual([dataset.labels.count, dataset.labels.distinct], [10 * PER_CLASS, 10]);
    assert.deepEqual(dataset.warnings, []);
    assert.equal(dataset.has_labels, true);
    assert.deepEqual(dataset.classes, names);
  }

  const network = await jobs.client.uploadModel(NETWORKS.cnn([4, 8], 32), "cnn");
  const training = digitFiles("training", 60);
  const trainedOn = [
    await send("training.npz", training.npz),
    await send("training.zip", training.zip, SPECS.images),
  ].map((answer) => answer.json.id);
  const [byArrays, byImages] = [await train(trainedOn[0], network.id), await train(trainedOn[1], network.id)];
  assert.equal(byImages.sha256, byArrays.sha256, "training on images ends at the same bytes");

  const results = [];
  for (const { json: dataset } of [arrays, images, rows, lines, table]) {
    const { id } = await jobs.client.createJob({
      ...{
        type: "quantize",
        model_id: byArrays.modelId,
        params: { method: "weight_only", bits: 4, format: "qdq", block_size: 32 },
      },
      evaluation: { dataset_id: dataset.id, samples: 10 * PER_CLASS, metric: "top1", latency: { runs: 3 } },
    });
    const { accuracy, fidelity } = (await jobs.succeeded({ id })).result!.metrics as unknown as {
      accuracy: { metric: string; before: number; after: number; samples: number };
      fidelity: { outputs: unknown };
    };
    results.push({ accuracy, outputs: fidelity.outputs });
  }
  const [expected, ...others] = results;
  assert.equal(expected!.accuracy.metric, "top1");
  assert.equal(expected!.accuracy.samples, 10 * PER_CLASS);
  // It has learnt something, and not all: a network that guesses reaches a tenth.
  assert.ok(expected!.accuracy.before > 0.5 && expected!.accuracy.before < 1, JSON.stringify(expected!.accuracy));
  for (const other of others) assert.deepEqual(other, expected);
});

test("a damaged image, a wrong cell and a wrong line are named", async () => {
  const text = { name: "digits/3/broken.png", data: Buffer.from("not a picture") };
  const whole = { name: "digits/4/good.png", data: Buffer.from("nor this") };
  const cases: [file: string, bytes: Uint8Array, spec: string, detail: RegExp][] = [
    [
      "d.zip",
      writeZip([text, whole]),
      SPECS.images,
      /"digits\/3\/broken\.png" cannot be decoded: .*unsupported image format/,
    ],
    ["d.zip", writeZip([{ ...text, name: "../../etc/x.png" }]), SPECS.images, /invalid relative path/],
    ["d.zip", writeZip([{ ...text, name: "a/x.pkl" }]), SPECS.images, /"a\/x\.pkl" is not an image that can be read/],
    [
      "d.csv",
      Buffer.from(`label${",p".repeat(784)}\n1${",0".repeat(783)},?\n`),
      SPECS.csv,
      /^Line 2, column "p" holds "\?"/,
    ],
    [
      "d.jsonl",
      Buffer.from('{"label":1,"image":[1]}\n[1,2]\n'),
      SPECS.jsonl,
      /^Line 2 of the \.jsonl file is not a JSON object/,
    ],
    [
      "d.parquet",
      writeParquet({ image: { data: [[1, 2], [3]], type: "FLOAT", lists: 1 }, label: { data: [0, 1], type: "INT32" } }),
      SPECS.parquet,
      /^Row 2, column "image" has the shape \[1\] where the first row has \[2\]/,
    ],
    ["d.parquet", digits.parquet.subarray(0, 5000), SPECS.parquet, /does not end with PAR1/],
    ["d.parquet", digits.npz, SPECS.parquet, /is not a \.parquet file/],
  ];
  for (const [file, bytes, spec, detail] of cases) {
    const refused = await send(file, bytes, spec);
    assert.equal(refused.status, 422);
    assert.equal(refused.json.code, "invalid_dataset");
    assert.match(refused.json.detail, detail);
  }
});
