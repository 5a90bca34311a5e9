import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job, JobEvent } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { descendants } from "../support/processes.ts";
import { until } from "../support/until.ts";

/**
 * Networks that learn together and networks that teach themselves, on a part of MNIST, over HTTP, with the service as `npm start` runs it.
 *
 * Bounds of accuracy ask whether a job trained, and not how well: they lie between what a network knows that was not trained, a tenth of ten
 * classes, and what it knows after a few epochs. How well each method trains is recorded in `test/core`.
 */

interface Network {
  readonly name: string;
  readonly parameters: number;
  readonly history: readonly { readonly loss: number; readonly losses: Readonly<Record<string, number>> }[];
  readonly validation_metric: number;
  readonly before_metric: number;
  readonly metric: number;
  readonly artifact: string;
}

interface Metrics {
  readonly training: {
    readonly teacher_metric: number | null;
    readonly student_metric: number;
    readonly baseline_metric: number | null;
    readonly networks: readonly Network[];
    readonly chosen: string;
    readonly ensemble_metric: number | null;
  };
  readonly exits:
    | readonly {
        readonly name: string;
        readonly metric: number;
        readonly macs_share: number;
        readonly latency_share: number;
        readonly artifact: string | null;
      }[]
    | null;
}

const TEST_SAMPLES = 500;

let stack: Stack;
let jobs: LiveJobs;
const ids: Record<"training" | "test" | "unlabelled" | "cnn" | "mlp" | "other", string> = {
  ...{ training: "", test: "", unlabelled: "", cnn: "", mlp: "", other: "" },
};

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  const { client } = jobs;
  ids.training = await jobs.uploadDigits("training", 2000);
  ids.test = await jobs.uploadDigits("test", TEST_SAMPLES);
  ids.unlabelled = await jobs.uploadDigits("training", 500, { labels: false });
  ids.cnn = (await client.uploadModel(NETWORKS.cnn([4, 8], 32), "cnn")).id;
  ids.mlp = (await client.uploadModel(NETWORKS.mlp(16), "mlp")).id;
  ids.other = (await client.uploadModel(NETWORKS.mlp(24), "wider")).id;
});
after(() => stack?.close());

const bodyOf = (params: object) => ({
  type: "distill" as const,
  params: { dataset_id: ids.training, ...params },
  evaluation: { dataset_id: ids.test, samples: TEST_SAMPLES, latency: { runs: 5, batch_size: 50 } },
});
const submit = (params: object): Promise<Job> => jobs.client.createJob(bodyOf(params));
const metricsOf = (job: Job) => job.result!.metrics as unknown as Metrics;
const artifactsOf = (job: Job) =>
  new Map((job.result!.artifacts as unknown as { name: string; sha256: string }[]).map((it) => [it.name, it.sha256]));

async function eventsOf(id: string): Promise<readonly JobEvent[]> {
  const answer = await jobs.client.request(`/v1/jobs/${id}/events?limit=1000`);
  return ((await answer.json()) as { data: JobEvent[] }).data;
}

/** The epochs that were told of, in that order. */
const epochsOf = async (id: string) =>
  (await eventsOf(id))
    .filter(({ type, data }) => type === "metric" && data.epoch !== undefined)
    .map(({ data }) => `${data.phase} ${data.network ?? "-"} ${data.epoch}`);

async function planOf(params: object): Promise<Record<string, unknown>> {
  const response = await jobs.client.request("/v1/jobs?validate_only=true", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(bodyOf(params)),
  });
  return (await response.json()) as Record<string, unknown>;
}

async function refusalOf(params: object, rest: object = {}): Promise<readonly string[]> {
  const response = await fetch(`${stack.url}/v1/jobs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...bodyOf(params), ...rest }),
  });
  const { errors, detail } = (await response.json()) as {
    errors?: { pointer: string; code: string }[];
    detail: string;
  };
  assert.equal(response.status, 422, detail);
  return (errors ?? []).map(({ pointer, code }) => `${pointer} ${code}`);
}

const report = async (id: string) => (await jobs.client.request(`/v1/jobs/${id}/report`)).text();

describe("networks that learn together", () => {
  const training = { epochs: 10, batch_size: 64 };

  test("peers of two architectures: each has its curve, metric and artifact, the best is the result", async () => {
    const params = {
      mode: "online",
      student: { model_id: ids.mlp },
      peer_students: [{ model_id: ids.other }],
      peers: 3,
      training,
      baseline: true,
    };
    const plan = await planOf(params);
    const sizes = [16, 24, 16].map((hidden) => 784 * hidden + hidden + hidden * 10 + 10);
    assert.deepEqual(
      plan.networks,
      sizes.map((parameters, i) => ({ name: `peer_${i + 1}`, parameters })),
    );
    assert.deepEqual([plan.optimizer_steps, plan.teacher_parameters], [10 * 28, null]);
    const job = await jobs.succeeded(await submit(params));
    const { networks, chosen, ensemble_metric, student_metric, baseline_metric } = metricsOf(job).training;
    for (const { name, history, before_metric, metric } of networks) {
      assert.deepEqual(Object.keys(history[0]!.losses), ["label", "kl"], name);
      assert.ok(history.length === 10 && before_metric < 0.35 && metric > 0.75, `${name} ${before_metric} ${metric}`);
    }
    const held = networks.map(({ validation_metric }) => validation_metric);
    const best = networks.find(({ name }) => name === chosen)!;
    assert.equal(best.validation_metric, Math.max(...held));
    assert.deepEqual([best.metric, best.artifact], [student_metric, "model.onnx"]);
    assert.ok(ensemble_metric! > 0.75 && baseline_metric! > 0.7);
    const files = artifactsOf(job);
    for (const { artifact } of networks) assert.ok(files.has(artifact), artifact);
    assert.equal(files.size, networks.length + 2, "and two reports");
    const epochs = await epochsOf(job.id);
    assert.deepEqual(epochs.slice(0, 3), ["online peer_1 1", "online peer_2 1", "online peer_3 1"]);
    assert.equal(epochs.at(-1), "baseline - 10");
    const page = await report(job.id);
    for (const { name } of networks) assert.match(page, new RegExp(`<h3>${name}</h3>`));
    assert.match(page, /All together/);
  });

  test("a teacher that learns while it teaches is an artifact, and what the student is compared with", async () => {
    const job = await jobs.succeeded(
      await submit({
        mode: "online",
        teacher_model_id: ids.cnn,
        student: { model_id: ids.mlp },
        update: "alternating",
        loss: { teacher_kl_weight: 0.5, temperature: 2 },
        training,
      }),
    );
    const { networks, chosen, teacher_metric, student_metric } = metricsOf(job).training;
    assert.deepEqual(
      networks.map(({ name, artifact }) => [name, artifact]),
      [
        ["student", "model.onnx"],
        ["teacher", "teacher.onnx"],
      ],
    );
    assert.equal(chosen, "student");
    const [student, teacher] = networks;
    assert.deepEqual([teacher_metric, student_metric], [teacher!.metric, student!.metric]);
    assert.ok(teacher!.before_metric < 0.35 && teacher!.metric > 0.85 && student!.metric > 0.75);
    const { accuracy } = job.result!.metrics as unknown as { accuracy: { before: number } };
    assert.equal(accuracy.before, teacher!.metric, "the teacher that it has become");
  });

  test("what cannot learn together is refused, field by field", async () => {
    const online = { mode: "online", student: { model_id: ids.mlp } };
    for (const [params, expected] of [
      [{ ...online, dataset_id: ids.unlabelled }, ["/params/dataset_id no_labels"]],
      [{ ...online, loss: { label_weight: 0 } }, ["/params/loss/label_weight too_small"]],
      [{ ...online, loss: { teacher_kl_weight: 1 } }, ["/params/loss/teacher_kl_weight unused_field"]],
      [{ ...online, teacher_model_id: ids.cnn, peers: 2 }, ["/params/peers unused_field"]],
      [
        { ...online, teacher_model_id: ids.cnn, peer_students: [{ model_id: ids.other }] },
        ["/params/peer_students unused_field"],
      ],
      [{ ...online, peer_students: [{ model_id: ids.mlp }] }, ["/params/peer_students/0 same_start"]],
      [
        { ...online, peers: 2, peer_students: [{ model_id: ids.cnn }, { model_id: ids.other }] },
        ["/params/peers too_few_peers"],
      ],
      [{ ...online, training: { validation_split: 0 } }, ["/params/training/validation_split nothing_held_out"]],
      [{ ...online, student: { derive: { width: 0.5 } } }, ["/params/student/derive no_teacher"]],
      [{ ...online, generations: 3 }, ["/params/generations unrecognized_key"]],
      [{ ...online, peer_students: [{ model_id: "mdl_none" }] }, ["/params/peer_students/0/model_id unknown_model"]],
    ] as const) {
      assert.deepEqual(await refusalOf(params), expected, JSON.stringify(params));
    }
    const judged = { evaluation: { metric: "none" } };
    assert.deepEqual(await refusalOf(online, judged), ["/evaluation/metric no_metric"]);
    const fewer = (await jobs.client.uploadModel(NETWORKS.mlp(16, 4), "four classes")).id;
    const taughtLess = await refusalOf({ ...online, teacher_model_id: fewer });
    assert.ok(taughtLess.includes("/params/teacher_model_id shape_mismatch"), String(taughtLess));
    const otherTask = await refusalOf({ ...online, peer_students: [{ model_id: jobs.modelId }] });
    assert.ok(
      otherTask.some(
        (text) => text.startsWith("/params/peer_students/0") || text === "/params/dataset_id dataset_mismatch",
      ),
      String(otherTask),
    );
    const quantized = await jobs.client.createJob({
      type: "quantize",
      model_id: ids.cnn,
      params: { method: "dynamic" },
      evaluation: { samples: 1, latency: { runs: 1 } },
    });
    const frozen = (await jobs.succeeded(quantized)).result!.model_id;
    assert.deepEqual(await refusalOf({ ...online, teacher_model_id: frozen }), [
      "/params/teacher_model_id not_trainable",
    ]);
    assert.deepEqual(await refusalOf({ ...online, peer_students: [{ model_id: frozen }] }), [
      "/params/peer_students/0/model_id not_trainable",
    ]);
  });
});

describe("networks that teach themselves", () => {
  const self = (self_kind: string, more: object = {}) => ({
    ...{ mode: "self", self_kind, student: { model_id: ids.cnn, init: "reinitialize" } },
    training: { epochs: 3, batch_size: 64 },
    ...more,
  });

  test("generations, each taught by the one before", async () => {
    const job = await jobs.succeeded(await submit(self("born_again", { generations: 3, average: true })));
    const { networks, chosen, ensemble_metric, student_metric, baseline_metric } = metricsOf(job).training;
    assert.ok(networks.length >= 2 && chosen === "average");
    assert.deepEqual(Object.keys(networks[1]!.history[0]!.losses), ["label", "kl"]);
    assert.deepEqual([student_metric, baseline_metric], [ensemble_metric, networks[0]!.metric]);
    for (const { artifact } of networks) assert.ok(artifactsOf(job).has(artifact));
    assert.equal((await epochsOf(job.id))[0], "generation_1 - 1");
  });

  test("exits that are kept are outputs with an accuracy and a share of the latency", async () => {
    const params = self("be_your_own_teacher", { exits: 2, keep_exits: true, training: { epochs: 5, batch_size: 64 } });
    const plan = await planOf(params);
    const planned = plan.exits as { name: string; macs_share: number }[];
    assert.deepEqual(
      planned.map(({ name }) => name),
      ["exit_1", "exit_2"],
    );
    const job = await jobs.succeeded(await submit(params));
    const { exits, training } = metricsOf(job);
    assert.deepEqual(
      exits!.map(({ name, artifact }) => [name, artifact]),
      [
        ["exit_1", "exit_1.onnx"],
        ["exit_2", "exit_2.onnx"],
        ["logits", "model.onnx"],
      ],
    );
    assert.deepEqual(
      exits!.slice(0, 2).map(({ macs_share }) => macs_share),
      planned.map(({ macs_share }) => macs_share),
    );
    assert.equal(exits!.at(-1)!.metric, training.student_metric);
    for (const { name, metric, latency_share } of exits!) {
      assert.ok(metric > 0.5 && latency_share > 0, `${name} ${metric} ${latency_share}`);
    }
    const { outputs } = (await (await jobs.client.request(`/v1/models/${job.result!.model_id}`)).json()) as {
      outputs: { name: string }[];
    };
    assert.deepEqual(
      outputs.map(({ name }) => name),
      ["logits", "exit_1", "exit_2"],
    );
    assert.match(await report(job.id), /<h3>Exits<\/h3>/);
  });

  test("the average of a network's own weights teaches it", async () => {
    const job = await jobs.succeeded(await submit(self("mean_teacher", { baseline: true })));
    const { networks, student_metric, baseline_metric } = metricsOf(job).training;
    assert.deepEqual(Object.keys(networks[0]!.history[0]!.losses), ["label", "kl"]);
    assert.ok(student_metric > 0.7 && baseline_metric! > 0.7, `${student_metric} ${baseline_metric}`);
    const { effective_params } = job as unknown as { effective_params: { training: { average_decay: number } } };
    assert.equal(effective_params.training.average_decay, 0.99);
  });

  test("fields of another kind, and what an exit cannot read, are refused", async () => {
    for (const [params, expected] of [
      [self("mean_teacher", { exits: 2 }), ["/params/exits unrecognized_key"]],
      [self("born_again", { baseline: true }), ["/params/baseline unrecognized_key"]],
      [
        self("born_again", { training: { validation_split: 0 } }),
        ["/params/training/validation_split nothing_held_out"],
      ],
      [
        self("be_your_own_teacher", { keep_exits: true, exit_values: ["nothing"] }),
        ["/params/exit_values/0 invalid_exit"],
      ],
      [self("mean_teacher", { dataset_id: ids.unlabelled }), ["/params/dataset_id no_labels"]],
      [self("sleep"), ["/params/self_kind not_allowed"]],
    ] as const) {
      assert.deepEqual(await refusalOf(params), expected, JSON.stringify(params));
    }
  });
});

describe("a run of several networks that is interrupted", () => {
  /** Its process is killed, then its worker: the artifacts are those of a run that was left alone. */
  async function killed(params: object, reaches: readonly [string, string]): Promise<void> {
    const whole = await jobs.succeeded(await submit(params));
    const { id } = await submit(params);
    const told = (epoch: string) => until("it trains", async () => (await epochsOf(id)).includes(epoch), 90_000);
    await told(reaches[0]);
    process.kill(await jobs.child(id), "SIGKILL");
    await until("it runs again", async () => (await jobs.statuses(id)).length === 4);
    await told(reaches[1]);
    process.kill((await descendants(stack.pid, "workers/main.ts"))[0]!, "SIGKILL");
    const job = await jobs.succeeded({ id });
    const [expected, actual] = [artifactsOf(whole), artifactsOf(job)];
    for (const [name, sha256] of expected) {
      if (name.endsWith(".onnx")) assert.equal(actual.get(name), sha256, name);
    }
    const epochs = await epochsOf(id);
    assert.equal(new Set(epochs).size, (await epochsOf(whole.id)).length);
    assert.equal(
      epochs.filter((epoch) => epoch.endsWith(" 1")).length,
      new Set(epochs.filter((epoch) => epoch.endsWith(" 1"))).size,
      "no attempt began anew",
    );
  }

  test("two peers", () =>
    killed(
      {
        mode: "online",
        student: { model_id: ids.mlp },
        training: { epochs: 40, batch_size: 32 },
        seed: 7,
      },
      ["online peer_2 4", "online peer_2 12"],
    ));

  test("generations, in the second and in the third", () =>
    killed(
      {
        mode: "self",
        self_kind: "born_again",
        student: { model_id: ids.mlp, init: "reinitialize" },
        generations: 2,
        training: { epochs: 25, batch_size: 32 },
        seed: 7,
      },
      ["generation_1 - 5", "generation_2 - 5"],
    ));

  test("cancelled within 5 s", async () => {
    const { id } = await submit({
      mode: "online",
      student: { model_id: ids.cnn },
      training: { epochs: 200, batch_size: 32 },
    });
    await until("it trains", async () => (await epochsOf(id)).length > 0, 90_000);
    const start = performance.now();
    await jobs.cancel(id);
    assert.equal((await jobs.ended(id, 10_000)).status, "cancelled");
    assert.ok(performance.now() - start < 5_000);
  });
});
