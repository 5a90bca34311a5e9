import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { writeNpz } from "../support/dataset-writers.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { type Report, uneven } from "../support/uneven.ts";

/**
 * Quantization that looks at samples, of a network that was trained here, over HTTP, with the service as `npm start` runs it.
 *
 * Bounds of accuracy, of size and of noise ask whether a job did what it was asked, and not how well: they lie between what the method promises
 * and the model that it left as it was. What each method wins is recorded in `test/core`.
 */

const TEST_SAMPLES = 1000;

let stack: Stack;
let jobs: LiveJobs;
const ids: Record<"training" | "test" | "unlabelled" | "cnn" | "uneven" | "mlp", string> = {
  ...{ training: "", test: "", unlabelled: "", cnn: "", uneven: "", mlp: "" },
};

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  const { client } = jobs;
  ids.training = await jobs.uploadDigits("training", 3000);
  ids.test = await jobs.uploadDigits("test", TEST_SAMPLES);
  ids.unlabelled = await jobs.uploadDigits("training", 300, { labels: false });
  const untrained = await client.uploadModel(NETWORKS.cnn([16, 32], 64), "untrained");
  const job = await jobs.succeeded(
    await client.createJob({
      type: "distill",
      params: {
        mode: "offline",
        dataset_id: ids.training,
        student: { model_id: untrained.id },
        loss: { kl_weight: 0, label_weight: 1 },
        training: { epochs: 4, batch_size: 64 },
      },
      evaluation: { latency: { runs: 1, batch_size: 50 } },
    }),
  );
  ids.cnn = job.result!.model_id;
  const trained = new Uint8Array(await (await client.request(`/v1/models/${ids.cnn}/content`)).arrayBuffer());
  ids.uneven = (await client.uploadModel(uneven(trained), "uneven")).id;
});
after(() => stack?.close());

const submission = (model: "cnn" | "uneven", params: object, evaluation: object = {}) => ({
  type: "quantize",
  model_id: ids[model],
  params: { method: "static", dataset_id: ids.training, ...params },
  evaluation: { dataset_id: ids.test, samples: TEST_SAMPLES, latency: { runs: 5, batch_size: 50 }, ...evaluation },
});

async function quantized(...[model, params, evaluation]: Parameters<typeof submission>): Promise<Job> {
  return jobs.succeeded(await jobs.client.createJob(submission(model, params, evaluation)));
}

const reportOf = async ({ id }: Job) =>
  (await (await jobs.client.request(`/v1/jobs/${id}/artifacts/report.json`)).json()) as Report;

/** Without anything that mends channels of different size. */
const BARE = {
  ...{ per_channel: false, equalize: false, smooth_quant_alpha: null, bias_correction: false },
  ...{ calibration: "mse", min_sqnr_db: null },
  // What is faster on the machine at hand is not the question here.
  float_where_slower: false,
};

/** Nodes that stay in float for accuracy, whether their weights are stored in 8 bits or not. */
const keptIn = (nodes: Report["nodes"]) =>
  nodes
    .filter(({ message }) => message.includes("so that the model is as accurate"))
    .map(({ name }) => name)
    .sort();

describe("static int8", () => {
  test("a trained classifier keeps its accuracy in a quarter of its size, and every layer computes in 8 bits", async () => {
    // What a machine measures is not to decide how many layers there are in 8 bits.
    const params = { float_where_slower: false };
    const answer = await jobs.client.request("/v1/jobs?validate_only=true", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(submission("cnn", params)),
    });
    const plan = (await answer.json()) as { quantized_nodes: { op: string }[]; size: { predicted_bytes: number } };
    const job = await quantized("cnn", params);
    const { metrics, models, quantization } = await reportOf(job);
    const layers = (models.before.operators.Conv ?? 0) + (models.before.operators.Gemm ?? 0);
    assert.equal(plan.quantized_nodes.filter(({ op }) => op === "Conv" || op === "Gemm").length, layers);
    assert.ok(Math.abs(plan.size.predicted_bytes / metrics.size.after_bytes - 1) < 0.02, JSON.stringify(metrics.size));
    assert.ok(metrics.size.ratio < 0.3, `${metrics.size.ratio}`);
    assert.ok(metrics.accuracy!.before > 0.93 && metrics.accuracy!.drop <= 0.005, JSON.stringify(metrics.accuracy));
    assert.equal(metrics.coverage.quantized_nodes, plan.quantized_nodes.length);
    assert.ok(metrics.coverage.fused_nodes >= layers, JSON.stringify(metrics.coverage));
    assert.deepEqual(metrics.coverage.float_islands, []);
    assert.equal(quantization!.calibration.samples, 128);
    assert.equal(quantization!.control, null);
    assert.ok(quantization!.corrections.some(({ name }) => name === "bias_correction"));
  });

  test("ranges are found once for all ways to choose them, and do not change what comes out", async () => {
    const params = { samples: 64, seed: 3 };
    const [first, again, other, named] = [
      await quantized("cnn", params),
      await quantized("cnn", params),
      await quantized("cnn", { ...params, calibration: "minmax" }),
      await quantized("cnn", { ...params, calibration: "mse" }),
    ];
    const cached = await Promise.all(
      [first, again, other, named].map(async (job) => (await reportOf(job)).quantization!.calibration.cached),
    );
    assert.deepEqual(cached, [false, true, true, true]);
    assert.deepEqual((await reportOf(other)).quantization!.calibration.tried, []);
    // The default is good: no other method is tried.
    const { method, tried } = (await reportOf(first)).quantization!.calibration;
    assert.deepEqual([method, tried.map((trial) => trial.method)], ["mse", ["mse"]]);
    // The same but for what the file says of the job that made it.
    const measured = ({ metrics: { size, fidelity } }: Report) => ({ size, fidelity });
    assert.deepEqual(measured(await reportOf(named)), measured(await reportOf(first)));
    assert.equal(first.result!.model_id, again.result!.model_id);
    assert.notEqual(first.result!.model_id, other.result!.model_id);
  });

  test("a poor result tries every method to choose ranges, leaves layers in float by itself, and says so", async () => {
    const { calibration: _, min_sqnr_db: __, ...bare } = BARE;
    // What a machine measures is not to decide which layers are left to control.
    const params = { ...bare, float_where_slower: false };
    const { metrics, nodes, quantization } = await reportOf(await quantized("uneven", params));
    const { method, tried } = quantization!.calibration;
    assert.equal(tried.length, 5);
    assert.equal(method, tried[0]!.method);
    const best = Math.max(...tried.map(({ sqnr_db }) => sqnr_db));
    assert.ok(tried[0]!.sqnr_db >= best - 0.5 && best < 20, JSON.stringify(tried));
    const { score, target, reached, trials } = quantization!.control!;
    assert.deepEqual([score, target, reached], ["sqnr_db", 21, true]);
    const chosen = trials.find((trial) => trial.chosen)!;
    assert.deepEqual(keptIn(nodes), [...chosen.float_nodes].sort());
    // One scale for each weight does not do for any layer of this network: all of it may have to stay.
    assert.ok((metrics.fidelity.outputs[0]!.sqnr_db ?? 200) > 19, JSON.stringify(metrics.fidelity));
    // Of a file that holds each weight once; it is small enough for what is not a weight to show.
    assert.ok(metrics.size.ratio < 0.4, "weights that 8 bits do not spoil are stored in them");
  });

  test("where 8 bits miss the limit, layers stay in float until it holds on samples that nothing was chosen by", async () => {
    const plain = await reportOf(await quantized("uneven", BARE));
    assert.ok(plain.metrics.accuracy!.drop > 0.02, `it drops by ${plain.metrics.accuracy!.drop} only`);
    const held = await reportOf(await quantized("uneven", { ...BARE, max_metric_drop: 0.005 }, { samples: 1000 }));
    const { control, sensitivity } = held.quantization!;
    assert.ok(control!.reached && control!.score === "top1");
    const chosen = control!.trials.filter(({ chosen }) => chosen);
    assert.equal(chosen.length, 1);
    assert.ok(chosen[0]!.float_nodes.length >= 1 && chosen[0]!.score >= control!.target);
    assert.ok(sensitivity.length > 1 && sensitivity[0]!.gain_db >= sensitivity.at(-1)!.gain_db);
    assert.ok(held.metrics.accuracy!.drop <= 0.015, JSON.stringify(held.metrics.accuracy));
    assert.ok(held.metrics.size.ratio < 0.8, `${held.metrics.size.ratio}`);
    assert.deepEqual(keptIn(held.nodes), [...chosen[0]!.float_nodes].sort());
  });

  test("without labels the same holds for the signal to noise ratio", async () => {
    // What a machine measures is not to decide which layers are left to control.
    const params = { dataset_id: ids.unlabelled, calibration: "minmax", float_where_slower: false };
    const plain = await reportOf(await quantized("cnn", params));
    const before = plain.metrics.fidelity.outputs[0]!.sqnr_db!;
    const held = await reportOf(await quantized("cnn", { ...params, min_sqnr_db: before + 3 }));
    const { reached, score, target, trials } = held.quantization!.control!;
    assert.ok(reached && score === "sqnr_db" && trials.length > 1, JSON.stringify(trials));
    const chosen = trials.find(({ chosen }) => chosen)!;
    assert.ok(trials[0]!.score < target && chosen.score >= target, JSON.stringify(trials));
    const after = held.metrics.fidelity.outputs[0]!.sqnr_db!;
    // The target holds on samples of the dataset. These are others, for which the signal to noise ratio is not the same.
    assert.ok(after > before && held.metrics.size.ratio < 0.9, `${before} -> ${after} dB`);
  });

  test("equalisation makes up for uneven channels, and says what it gained", async () => {
    const { metrics, quantization } = await reportOf(await quantized("uneven", { per_channel: false }));
    assert.ok(metrics.accuracy!.drop <= 0.01, JSON.stringify(metrics.accuracy));
    const equalization = quantization!.corrections.find(({ name }) => name === "equalization")!;
    assert.ok(equalization.applied);
    assert.ok(equalization.sqnr_after_db > equalization.sqnr_before_db + 6, JSON.stringify(equalization));
  });

  test("without data of its own, the job is judged on samples of the dataset that it has not used", async () => {
    const { metrics } = await reportOf(await quantized("cnn", { dataset_id: ids.unlabelled }, { dataset_id: null }));
    assert.equal(metrics.fidelity.data, "calibration");
    assert.equal(metrics.fidelity.samples, 300 - 128);
  });

  test("what cannot be is refused when the job is posted", async () => {
    const refused = async (params: object) => {
      const response = await fetch(`${stack.url}/v1/jobs`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(submission("cnn", params)),
      });
      assert.equal(response.status, 422);
      const { errors } = (await response.json()) as { errors: { pointer: string; code: string }[] };
      return errors.map(({ pointer, code }) => `${pointer} ${code}`);
    };
    assert.deepEqual(await refused({ dataset_id: undefined }), ["/params/dataset_id required"]);
    assert.deepEqual(await refused({ dataset_id: "dst_nothing" }), ["/params/dataset_id unknown_dataset"]);
    assert.deepEqual(await refused({ dataset_id: ids.unlabelled, max_metric_drop: 0.1 }), [
      "/params/max_metric_drop no_labels",
    ]);
    assert.deepEqual(await refused({ max_metric_drop: 0.1, min_sqnr_db: 20 }), ["/params/min_sqnr_db invalid"]);
    assert.deepEqual(await refused({ rounding: "up" }), ["/params/rounding not_allowed"]);
    const bytes = new Uint8Array(32);
    const pairs = writeNpz({ pair: { dtype: "float32", dims: [4, 2], byteLength: bytes.byteLength, bytes } });
    const { id } = await jobs.client.uploadDataset(new Uint8Array(pairs), "pairs.npz", "pairs");
    assert.deepEqual(await refused({ dataset_id: id }), ["/params/dataset_id dataset_mismatch"]);
  });
});

describe("weights in 4 bits by GPTQ", () => {
  const weights = (params: object = {}) => ({ method: "weight_only", format: "qdq", block_size: 128, ...params });
  const gptq = (params: object = {}) => weights({ algorithm: "gptq", ...params });
  const nearest = weights({ dataset_id: null });

  test("nearer to the float model than the nearest codes, in a file of the same size, layer by layer", async () => {
    const [before, after] = [
      await reportOf(await quantized("cnn", nearest)),
      await reportOf(await quantized("cnn", gptq())),
    ];
    const sqnrOf = ({ metrics }: Report) => metrics.fidelity.outputs[0]!.sqnr_db!;
    assert.ok(sqnrOf(after) > sqnrOf(before) + 2, `${sqnrOf(before)} -> ${sqnrOf(after)} dB`);
    assert.ok(after.metrics.accuracy!.drop <= 0.005, JSON.stringify(after.metrics.accuracy));
    assert.equal(after.metrics.size.after_bytes, before.metrics.size.after_bytes);
    const rounded = after.nodes.filter(({ code }) => code === "gptq");
    assert.ok(rounded.length >= 3, JSON.stringify(after.nodes));
    assert.deepEqual(after.metrics.coverage.quantized_nodes, before.metrics.coverage.quantized_nodes);
  });

  test("without data of its own, the job is judged on samples that nothing was rounded by", async () => {
    const params = gptq({ dataset_id: ids.unlabelled, samples: 100 });
    const { metrics } = await reportOf(await quantized("cnn", params, { dataset_id: null }));
    assert.equal(metrics.fidelity.data, "calibration");
    assert.equal(metrics.fidelity.samples, 200);
  });

  test("AdaRound and stochastic rounding keep of what they find only what is better, in a file of the same size", async () => {
    const before = await reportOf(await quantized("cnn", nearest));
    for (const [rounding, more, gain] of [
      ["adaround", {}, 1],
      ["stochastic", { candidates: 4 }, -0.5],
    ] as const) {
      const after = await reportOf(await quantized("cnn", weights({ rounding, ...more })));
      const sqnrOf = ({ metrics }: Report) => metrics.fidelity.outputs[0]!.sqnr_db!;
      assert.ok(sqnrOf(after) > sqnrOf(before) + gain, `${rounding}: ${sqnrOf(before)} -> ${sqnrOf(after)} dB`);
      assert.equal(after.metrics.size.after_bytes, before.metrics.size.after_bytes);
      const said = after.nodes.filter(({ code }) => code.startsWith(rounding));
      assert.ok(said.length >= 3, JSON.stringify(after.nodes));
    }
  });

  test("static int8 by each rounding: layers are told of, and the metric holds", async () => {
    for (const rounding of ["gptq", "adaround", "stochastic"]) {
      const report = await reportOf(await quantized("cnn", { rounding, samples: 32, float_where_slower: false }));
      const said = report.nodes.filter(({ code }) => code.startsWith(rounding));
      assert.ok(said.length >= 3, JSON.stringify(report.nodes));
      assert.ok(report.metrics.accuracy!.drop <= 0.005, `${rounding}: ${JSON.stringify(report.metrics.accuracy)}`);
    }
  });

  test("static with weights of 4 and 2 bits stores them so, whatever computes in float because that is faster here", async () => {
    const storedIn = async (id: string) =>
      (await (await jobs.client.request(`/v1/models/${id}`)).json()) as { weight_bytes: number; parameters: number };
    const made = async (weight_bits: 8 | 4 | 2) => {
      const rounding = weight_bits === 8 ? "nearest" : "adaround";
      // Few bits alone are what is asked about: no layer may be kept in 8 for accuracy.
      const job = await quantized("cnn", { weight_bits, rounding, samples: 64, min_sqnr_db: null });
      const { weight_bytes } = await storedIn(job.result!.model_id);
      return { ...(await reportOf(job)), weight_bytes, job };
    };
    const { parameters } = await storedIn(ids.cnn);
    const [eight, four, two] = [await made(8), await made(4), await made(2)];
    // Bytes of a weight: its code, and in blocks of 32 a scale of 4 bytes and a zero point of 1; a fiftieth for biases and small weights.
    for (const [report, bits] of [
      [four, 4],
      [two, 2],
    ] as const) {
      const { weights } = report.plan!;
      assert.ok(weights.length >= 4, JSON.stringify(weights));
      // The first convolution has 144 weights, and the last layer 640: where those are only stored, fewer bits would not make them smaller.
      const others = weights.filter((weight) => weight.bits !== bits && !/^(conv0|fc9)\./.test(weight.name));
      assert.deepEqual(others, []);
      assert.deepEqual(
        report.metrics.warnings.filter(({ code }) => code === "more_bits_stored"),
        [],
      );
      assert.ok(report.weight_bytes < (bits / 8 + 5 / 32 + 1 / 50) * parameters, `${report.weight_bytes}`);
      assert.ok(report.metrics.size.after_bytes < eight.metrics.size.after_bytes);
      const page = await (await jobs.client.request(`/v1/jobs/${report.job.id}/report`)).text();
      assert.match(page, new RegExp(`${bits}-bit weights`));
    }
    assert.ok(two.weight_bytes < 0.7 * four.weight_bytes, `${two.weight_bytes} of ${four.weight_bytes}`);
    const [at8, at4, at2] = [eight, four, two].map(({ metrics }) => metrics.accuracy!.after) as [
      number,
      number,
      number,
    ];
    assert.ok(at8 - at4 <= 0.01, `${at8} -> ${at4}`);
    assert.ok(at8 - at2 <= 0.2, `${at8} -> ${at2}`);
  });

  test("fields that would mean nothing are refused", async () => {
    for (const [params, pointer] of [
      [{ method: "qat", bits: { weights: 8 }, rounding: "adaround" }, "/params/rounding"],
      [gptq({ rounding: "adaround" }), "/params/rounding"],
      [gptq({ candidates: 3 }), "/params/candidates"],
      [{ method: "static", rounding: "nearest", candidates: 3 }, "/params/candidates"],
      [weights({ rounding: "stochastic", dataset_id: null }), "/params/dataset_id"],
      [weights({ bits: 2, dataset_id: null }), "/params/bits"],
    ] as const) {
      const response = await fetch(`${stack.url}/v1/jobs`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(submission("cnn", params)),
      });
      const { errors } = (await response.json()) as { errors: { pointer: string }[] };
      assert.equal(response.status, 422);
      assert.deepEqual(
        errors.map((error) => error.pointer),
        [pointer],
      );
    }
  });

  test("2 bits load, run and are smaller than 4", async () => {
    const of = async (bits: number) => {
      const params = { method: "weight_only", bits, dataset_id: null };
      return (await reportOf(await quantized("cnn", params))).metrics;
    };
    const [two, four] = [await of(2), await of(4)];
    assert.ok(two.size.after_bytes < 0.75 * four.size.after_bytes, JSON.stringify([two.size, four.size]));
    assert.ok(two.fidelity.outputs[0]!.sqnr_db! > 0, JSON.stringify(two.fidelity));
  });

  test("needs samples, and rtn takes none", async () => {
    for (const params of [gptq({ dataset_id: null }), weights({ algorithm: "rtn" })]) {
      const response = await fetch(`${stack.url}/v1/jobs`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(submission("cnn", params)),
      });
      assert.equal(response.status, 422);
      const { errors } = (await response.json()) as { errors: { pointer: string }[] };
      assert.deepEqual(
        errors.map(({ pointer }) => pointer),
        ["/params/dataset_id"],
      );
    }
  });
});
