import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Job, JobEvent } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { until } from "../support/until.ts";

/**
 * Searches over HTTP, on a convolutional network that was trained on a part of MNIST.
 *
 * Bounds of accuracy, of size and of noise ask whether a job did what it was asked, and not how well: they lie between what the method promises
 * and the model that it left as it was. What each method wins is recorded in `test/core`.
 */

interface Candidate {
  readonly name: string;
  readonly target: string;
  readonly deployment: {
    readonly rules: readonly { readonly holds: boolean }[];
    readonly measured: { readonly runtime: string; readonly speedup: number } | null;
  } | null;
  readonly spec: Record<string, unknown> | null;
  readonly model_id: string | null;
  readonly sha256: string | null;
  readonly stage: string;
  readonly predicted: { readonly size_ratio: number; readonly sqnr_db: number | null; readonly speedup: number } | null;
  readonly measured: {
    readonly size: { readonly ratio: number; readonly after_bytes: number };
    readonly accuracy: { readonly after: number; readonly drop: number; readonly interval: readonly number[] };
    readonly latency: { readonly speedup: number; readonly speedup_interval: readonly number[] };
  } | null;
  readonly on_front: boolean;
  readonly recommended: boolean;
  readonly dropped: { readonly stage: string; readonly code: string; readonly message: string } | null;
}

interface Recommendation {
  readonly candidate: string;
  readonly model_id: string;
  readonly why: string;
  readonly next_better: { readonly candidate: string; readonly message: string } | null;
}

interface Auto {
  readonly candidates: readonly Candidate[];
  readonly recommendation: Recommendation;
  readonly targets: readonly { readonly target: string; readonly recommendation: Recommendation }[];
  readonly constraints: readonly { readonly name: string; readonly ok: boolean }[];
  readonly seconds: number;
}

const ids = { training: "", test: "", model: "" };
let stack: Stack;
let jobs: LiveJobs;

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  ids.training = await jobs.uploadDigits("training", 1000);
  ids.test = await jobs.uploadDigits("test", 300);
  const untrained = (await jobs.client.uploadModel(NETWORKS.cnn([4, 8], 32), "cnn")).id;
  const learned = await jobs.client.createJob({
    type: "distill",
    params: {
      ...{ mode: "offline", teacher_model_id: null, dataset_id: ids.training, student: { model_id: untrained } },
      ...{ loss: { kl_weight: 0, label_weight: 1 }, training: { epochs: 3, batch_size: 32 } },
    },
    evaluation: { latency: { runs: 1, batch_size: 50 } },
  });
  ids.model = (await jobs.succeeded(learned)).result!.model_id;
});
after(() => stack?.close());

const body = (params: object = {}, evaluation: object = {}) => ({
  type: "auto",
  model_id: ids.model,
  params: { dataset_id: ids.training, ...params },
  evaluation: { dataset_id: ids.test, latency: { runs: 15 }, ...evaluation },
});

const resultOf = (job: Job) =>
  job.result as unknown as {
    model_id: string;
    accepted: boolean;
    artifacts: { name: string; sha256: string }[];
    metrics: { auto: Auto; size: { ratio: number } };
  };
const autoOf = (job: Job) => resultOf(job).metrics.auto;
const frontOf = (job: Job) => autoOf(job).candidates.filter(({ on_front }) => on_front);

async function eventsOf(id: string): Promise<readonly JobEvent[]> {
  const answer = await jobs.client.request(`/v1/jobs/${id}/events?limit=1000`);
  return ((await answer.json()) as { data: JobEvent[] }).data;
}

const triedIn = (events: readonly JobEvent[]) =>
  events.filter(({ type, data }) => type === "metric" && data.candidate !== undefined).map(({ data }) => data);

/** Files of the service's store. */
async function blobs(): Promise<readonly string[]> {
  const entries = await readdir(join(stack.dataDir, "blobs"), { recursive: true, withFileTypes: true });
  return entries.filter((it) => it.isFile()).map(({ parentPath, name }) => join(parentPath, name));
}

/** The states of searches among them: what an attempt that follows begins with. */
async function statesIn(paths: readonly string[]): Promise<readonly { readonly tried: readonly { name: string }[] }[]> {
  const texts = await Promise.all(paths.map((path) => readFile(path, "utf8").catch(() => ""))); // A newer one has replaced it.
  return texts
    .filter((text) => text.startsWith('{"seconds":'))
    .flatMap((text) => {
      try {
        return [JSON.parse(text)];
      } catch {
        return []; // On its way.
      }
    });
}

async function post(request: object, path = "/v1/jobs") {
  const headers = { "content-type": "application/json" };
  const response = await fetch(stack.url + path, { method: "POST", headers, body: JSON.stringify(request) });
  return { status: response.status, answer: (await response.json()) as Record<string, unknown> };
}

describe("searches", () => {
  let whole: Job;

  test("a plan names every candidate with its job", async () => {
    const { status, answer } = await post(body({ methods: ["dynamic", "weight_only"] }), "/v1/jobs?validate_only=true");
    assert.equal(status, 200, JSON.stringify(answer));
    const { candidates } = answer as { candidates: { name: string; spec: { params: { method: string } } }[] };
    assert.deepEqual([...new Set(candidates.map(({ spec }) => spec.params.method))].sort(), ["dynamic", "weight_only"]);
  });

  test("the front: models of their own, with measured numbers, and a recommendation that holds the constraints", async () => {
    const request = body({
      ...{ objective: "size", constraints: { max_metric_drop: 0.02 }, budget: { seconds: 300, candidates: 6 } },
    });
    whole = await jobs.ended((await jobs.client.createJob(request)).id, 400_000);
    assert.equal(whole.status, "succeeded", JSON.stringify(whole.error));
    const auto = autoOf(whole);
    const front = frontOf(whole);
    assert.ok(front.some(({ name }) => name !== "original"));
    assert.ok(auto.candidates.filter(({ measured }) => measured !== null).length >= 3);
    for (const { name, model_id, measured } of front) {
      const [low, high] = measured!.latency.speedup_interval as [number, number];
      assert.ok(low <= measured!.latency.speedup && measured!.latency.speedup <= high);
      const record = (await (await jobs.client.request(`/v1/models/${model_id}`)).json()) as {
        derived_from: { job_id: string; model_id: string };
        size_bytes: number;
        sha256: string;
      };
      assert.equal(record.size_bytes, measured!.size.after_bytes);
      if (name !== "original") {
        assert.deepEqual(record.derived_from, { job_id: whole.id, model_id: ids.model });
      }
      // Nothing else of the front is better in all.
      assert.ok(
        !front.some(
          (other) =>
            other.name !== name &&
            other.measured!.size.after_bytes < 0.99 * measured!.size.after_bytes &&
            other.measured!.latency.speedup > 1.04 * measured!.latency.speedup &&
            other.measured!.accuracy.after > measured!.accuracy.after + 0.001,
        ),
      );
    }
    const best = front.find(({ recommended }) => recommended)!;
    assert.equal(best.name, auto.recommendation.candidate);
    assert.equal(resultOf(whole).model_id, best.model_id);
    assert.ok(resultOf(whole).accepted && best.measured!.accuracy.drop <= 0.02);
    // The smallest of those that hold the constraint.
    const holding = front.filter(({ measured }) => measured!.accuracy.drop <= 0.02);
    const smallest = Math.min(...holding.map(({ measured }) => measured!.size.after_bytes));
    assert.ok(best.measured!.size.after_bytes <= 1.01 * smallest);
    assert.ok(auto.recommendation.why.includes(best.name));
    // Whatever is not on the front says when it was dropped, and why.
    for (const { name, on_front, dropped } of auto.candidates) {
      assert.equal(dropped === null, on_front, name);
      if (dropped) assert.ok(dropped.code !== "internal" && dropped.message.length > 10, JSON.stringify(dropped));
    }
    const told = triedIn(await eventsOf(whole.id));
    // What was not worth a trial is told of, and counts for none.
    const tried = told.filter(({ stage }) => stage !== "planned").length;
    assert.ok(tried >= 4 && tried <= 6, `${tried}`);
    assert.ok(Array.isArray(told.at(-1)!.front));
    const page = await (await jobs.client.request(`/v1/jobs/${whole.id}/report`)).text();
    assert.ok(
      page.includes("top1 over size, coloured by speed") && page.includes(auto.recommendation.why.slice(0, 20)),
    );
  });

  test("the job of each model of the front makes the same bytes", async () => {
    const { candidates } = resultOf(whole).metrics.auto;
    // The layers of the static one that stay in float were measured; its job names them.
    const made = candidates.filter(({ name, spec, on_front }) => spec !== null && (on_front || name === "static"));
    assert.ok(made.some(({ name }) => name === "static") && made.some(({ on_front }) => on_front));
    for (const { name, spec, sha256, model_id, on_front } of made) {
      const job = await jobs.succeeded(await jobs.client.createJob(spec!));
      const { artifacts } = resultOf(job);
      assert.equal(artifacts.find((it) => it.name === "model.onnx")!.sha256, sha256, name);
      if (on_front) assert.equal(resultOf(job).model_id, model_id, name);
    }
  });

  test("with training it also trains with the rounding in the model, and the job of what it has trained makes the same bytes", async () => {
    const params = { training: true, methods: ["qat"], objective: "size", budget: { seconds: 600, candidates: 2 } };
    const planned = await post(body(params), "/v1/jobs/plan");
    const names = (planned.answer.candidates as { name: string }[]).map(({ name }) => name);
    assert.deepEqual(names, ["trained-8-bit", "trained-4-bit"]);
    const job = await jobs.succeeded(await jobs.client.createJob(body(params)));
    const trained = autoOf(job).candidates.find(({ name }) => name === "trained-4-bit")!;
    assert.ok(trained.measured !== null && trained.on_front, JSON.stringify(trained.dropped));
    assert.ok(trained.measured.size.ratio < 0.4 && trained.measured.accuracy.drop < 0.05);
    const again = await jobs.succeeded(await jobs.client.createJob(trained.spec!));
    const { artifacts } = resultOf(again);
    assert.equal(artifacts.find(({ name }) => name === "model.onnx")!.sha256, trained.sha256);
  });

  test("with training it also makes narrower students, and their jobs make the same bytes", async () => {
    const params = { training: true, methods: ["distill"], objective: "size", budget: { seconds: 600, candidates: 2 } };
    const job = await jobs.succeeded(await jobs.client.createJob(body(params)));
    const [student, int8] = ["student-half", "student-half-int8"].map(
      (name) => autoOf(job).candidates.find((it) => it.name === name)!,
    );
    for (const { name, spec, sha256, predicted, dropped } of [student!, int8!]) {
      // That one is outranked by the other in its trial is right, too.
      assert.ok(predicted !== null, JSON.stringify(dropped));
      const again = await jobs.succeeded(await jobs.client.createJob(spec!));
      const { artifacts } = resultOf(again);
      assert.equal(artifacts.find((it) => it.name === "model.onnx")!.sha256, sha256, name);
    }
    assert.ok(student!.predicted!.size_ratio < 0.5 && int8!.predicted!.size_ratio < 0.2);
    const { recommendation, candidates } = autoOf(job);
    const best = candidates.find(({ recommended }) => recommended)!;
    const made = await (await jobs.client.request(`/v1/models/${recommendation.model_id}`)).json();
    assert.equal((made as { name: string }).name, `cnn distilled ${best.name}`);
  });

  test("what no model can hold is not accepted, and the nearest is recommended", async () => {
    const request = body({
      ...{ constraints: { max_size_ratio: 0.001 }, methods: ["weight_only", "dynamic"] },
      ...{ budget: { seconds: 120, candidates: 2 } },
    });
    const job = await jobs.succeeded(await jobs.client.createJob(request));
    const { accepted, metrics } = resultOf(job);
    assert.equal(accepted, false);
    const sizes = frontOf(job).map(({ measured }) => measured!.size.ratio);
    assert.equal(metrics.size.ratio, Math.min(...sizes));
    assert.match(metrics.auto.recommendation.why, /No model holds all constraints.*max_size_ratio/);
    assert.deepEqual(
      metrics.auto.constraints.map(({ name, ok }) => [name, ok]),
      [["max_size_ratio", false]],
    );
  });

  test("killed in the middle it goes on: what was tried is not tried again, and the candidates, their order, jobs and bytes, and what is recommended, are the same", async () => {
    const request = body({
      methods: ["weight_only", "dynamic"],
      objective: "size",
      budget: { seconds: 300, candidates: 4 },
    });
    const before = new Set(await blobs());
    const { id } = await jobs.client.createJob(request);
    const stored = await until(
      "what two of them were like is stored",
      async () => {
        const states = await statesIn((await blobs()).filter((path) => !before.has(path)));
        return states.find(({ tried }) => tried.length >= 2);
      },
      180_000,
    );
    process.kill(await jobs.child(id), "SIGKILL");
    const job = await jobs.ended(id, 300_000);
    assert.equal(job.status, "succeeded", JSON.stringify(job.error));
    const told = triedIn(await eventsOf(id)).map(({ candidate }) => candidate);
    for (const { name } of stored.tried) assert.equal(told.filter((it) => it === name).length, 1, told.join());
    const again = await jobs.ended((await jobs.client.createJob(request)).id, 300_000);
    const found = (it: Job) => autoOf(it).candidates.map(({ name, sha256, spec }) => ({ name, sha256, spec }));
    assert.deepEqual(found(job), found(again));
    const best = (it: Job) => autoOf(it).candidates.filter(({ recommended }) => recommended);
    assert.deepEqual(
      best(job).map(({ name, sha256, spec, on_front }) => ({ name, sha256, spec, on_front })),
      best(again).map(({ name, sha256, spec, on_front }) => ({ name, sha256, spec, on_front })),
    );
    assert.equal(resultOf(job).model_id, resultOf(again).model_id);
  });

  test("for several targets there is a front and a recommendation each, measured where the runtime can be, and what breaks its rules is dropped", async () => {
    const request = body({
      ...{ targets: ["auto", "web", "tensorrt"], methods: ["dynamic", "static", "float16"], objective: "size" },
      budget: { seconds: 600, candidates: 3 },
    });
    const job = await jobs.ended((await jobs.client.createJob(request)).id, 700_000);
    assert.equal(job.status, "succeeded", JSON.stringify(job.error));
    const { candidates, targets, recommendation } = autoOf(job);
    assert.deepEqual(
      targets.map(({ target }) => target),
      ["auto", "web", "tensorrt"],
    );
    assert.deepEqual(recommendation, targets[0]!.recommendation);
    assert.equal(resultOf(job).model_id, recommendation.model_id);
    const names: string[] = [];
    for (const { target, recommendation } of targets) {
      const own = candidates.filter((it) => it.target === target);
      const [best, ...others] = own.filter(({ recommended }) => recommended);
      assert.deepEqual([best!.name, others], [recommendation.candidate, []]);
      assert.ok(best!.name.startsWith(`${target}-`) && best!.model_id === recommendation.model_id);
      const made = own.filter(({ spec }) => spec !== null);
      for (const { name, spec } of made) {
        const { method, target: made = "auto" } = (spec as { params: { method: string; target?: string } }).params;
        if (method === "static") assert.equal(made, target, name);
      }
      names.push(...own.filter(({ on_front, spec }) => on_front && spec !== null).map(({ name }) => name));
      for (const { deployment, measured } of own.filter(({ on_front }) => on_front)) {
        if (target === "auto") assert.equal(deployment, null);
        else assert.ok(deployment!.rules.every(({ holds }) => holds));
        if (target !== "web" || best!.spec === null) continue;
        // What counts as its speed is what it is there.
        if (deployment!.measured) assert.equal(measured!.latency.speedup, deployment!.measured.speedup);
      }
    }
    const web = candidates.filter(({ target, spec, on_front }) => target === "web" && spec !== null && on_front);
    assert.ok(web.length > 0 && web.every(({ deployment }) => /^onnxruntime-web /.test(deployment!.measured!.runtime)));
    const { artifacts } = resultOf(job);
    for (const name of names)
      assert.ok(
        artifacts.some((it) => it.name === `${name}.model.onnx`),
        name,
      );
    // Their jobs make the same bytes, for their target.
    for (const { name, spec, sha256 } of candidates.filter((it) => names.includes(it.name))) {
      const again = await jobs.succeeded(await jobs.client.createJob(spec!));
      assert.equal(resultOf(again).artifacts.find((it) => it.name === "model.onnx")!.sha256, sha256, name);
    }
    const page = await (await jobs.client.request(`/v1/jobs/${job.id}/report`)).text();
    assert.match(
      page,
      /Recommendation for auto.*Recommendation for web.*onnxruntime-web.*Recommendation for tensorrt/s,
    );
  });

  test("what the budget does not reach is said, and the rest is measured all the same", async () => {
    // Doubled until it is enough for some of them, however slow the machine is. Of quality nothing is foretold: all are to be tried.
    for (let seconds = 10, isEnough = false; !isEnough; seconds *= 2) {
      assert.ok(seconds <= 160, "no budget was enough for one of them");
      const job = await jobs.succeeded(await jobs.client.createJob(body({ objective: "metric", budget: { seconds } })));
      const { candidates } = autoOf(job);
      const unreached = candidates.filter(({ dropped }) => dropped?.code === "budget");
      assert.ok(unreached.length > 0 && unreached.every(({ measured }) => measured === null));
      isEnough = candidates.some(({ name, measured }) => name !== "original" && measured !== null);
    }
  });

  test("refuses what cannot be searched, with the field at fault", async () => {
    const refused = async (request: object) => {
      const { status, answer } = await post(request);
      assert.equal(status, 422, JSON.stringify(answer));
      return (answer.errors as { pointer: string }[]).map(({ pointer }) => pointer);
    };
    assert.deepEqual(await refused(body({ training: true, methods: ["static"] })), ["/params/training"]);
    assert.deepEqual(await refused(body({ methods: ["static", "qat"] })), ["/params/methods"]);
    assert.deepEqual(await refused(body({ methods: ["qat"] })), ["/params/methods"]);
    assert.deepEqual(await refused(body({ methods: ["distill"] })), ["/params/methods"]);
    assert.deepEqual(await refused(body({ training: true }, { dataset_id: null })), ["/evaluation/dataset_id"]);
    assert.deepEqual(await refused(body({ dataset_id: "dst_none" })), ["/params/dataset_id"]);
    assert.deepEqual(await refused(body({ targets: ["web", "web"] })), ["/params/targets"]);
    assert.deepEqual(await refused(body({ targets: [] })), ["/params/targets"]);
    // TensorRT has no operators for that, so there would be nothing to try for it.
    assert.deepEqual(await refused(body({ targets: ["auto", "tensorrt"], methods: ["dynamic"] })), ["/params/methods"]);
    const unlabelled = await jobs.uploadDigits("test", 50, { labels: false });
    const blind = body({ constraints: { max_metric_drop: 0.1 } }, { dataset_id: unlabelled });
    assert.deepEqual(await refused(blind), ["/params/constraints/max_metric_drop"]);
  });
});
