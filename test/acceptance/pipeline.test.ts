import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Job, JobEvent } from "../../scripts/demo/client.ts";
import { type Stack, startStack } from "../../scripts/demo/stack.ts";
import { type LiveJobs, openLiveJobs } from "../support/live-jobs.ts";
import { NETWORKS } from "../support/mnist.ts";
import { descendants } from "../support/processes.ts";
import { until } from "../support/until.ts";

/**
 * Pipelines on a part of MNIST, over HTTP: a teacher is trained, a student learns from it, and is quantized.
 *
 * Bounds of accuracy ask whether a job trained, and not how well: they lie between what a network knows that was not trained, a tenth of ten
 * classes, and what it knows after a few epochs. How well each method trains is recorded in `test/core`.
 */

interface Step {
  readonly name: string;
  readonly type: string;
  readonly model_id: string;
  readonly parameters: number;
  readonly metrics: { readonly size: Record<string, number>; readonly accuracy: { readonly after: number } };
}

let stack: Stack;
let jobs: LiveJobs;
const ids: Record<"training" | "test" | "cnn" | "mlp", string> = { training: "", test: "", cnn: "", mlp: "" };

before(async () => {
  stack = await startStack({ LOG_LEVEL: "warn" });
  jobs = await openLiveJobs(stack);
  ids.training = await jobs.uploadDigits("training", 2000);
  ids.test = await jobs.uploadDigits("test", 500);
  ids.cnn = (await jobs.client.uploadModel(NETWORKS.cnn([4, 8], 32), "cnn")).id;
  ids.mlp = (await jobs.client.uploadModel(NETWORKS.mlp(32), "mlp")).id;
});
after(() => stack?.close());

const offline = (params: object) => ({ mode: "offline", dataset_id: ids.training, ...params });
const teacherStep = () => ({
  type: "distill",
  name: "teacher",
  params: offline({
    student: { model_id: "previous" },
    loss: { kl_weight: 0, label_weight: 1 },
    training: { epochs: 3, batch_size: 64 },
  }),
});
const studentStep = (epochs: number) => ({
  type: "distill",
  name: "student",
  params: offline({
    teacher_model_id: "previous",
    student: { model_id: ids.mlp },
    training: { epochs, batch_size: 32 },
    seed: 7,
  }),
});
const int8Step = () => ({ type: "quantize", name: "int8", params: { method: "static", dataset_id: ids.training } });

const body = (epochs: number) => ({
  type: "pipeline",
  model_id: ids.cnn,
  params: { steps: [teacherStep(), studentStep(epochs), int8Step()] },
  evaluation: { dataset_id: ids.test, samples: 500, latency: { runs: 5, batch_size: 50 } },
  acceptance: { max_size_ratio: 0.9 },
});

const stepsOf = (job: Job) => (job.result as unknown as { steps: Step[] }).steps;
const artifactsOf = (job: Job) => job.result!.artifacts as unknown as { name: string; sha256: string }[];
const sha = (job: Job) => artifactsOf(job).find(({ name }) => name === "model.onnx")!.sha256;

async function post(request: object, query = "") {
  return fetch(`${stack.url}/v1/jobs${query}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
  });
}

async function submit(request: object): Promise<string> {
  const response = await post(request);
  const job = (await response.json()) as { id: string };
  assert.equal(response.status, 202, JSON.stringify(job));
  return job.id;
}

async function refusalOf(request: object): Promise<readonly string[]> {
  const response = await post(request);
  assert.equal(response.status, 422);
  const { errors } = (await response.json()) as { errors: { pointer: string; code: string }[] };
  return errors.map(({ pointer, code }) => `${pointer} ${code}`);
}

/** The epochs that were told of, each with its step. */
async function epochsOf(id: string): Promise<readonly string[]> {
  const answer = await jobs.client.request(`/v1/jobs/${id}/events?limit=1000`);
  const { data } = (await answer.json()) as { data: JobEvent[] };
  return data
    .filter((event) => event.type === "metric" && event.data.epoch !== undefined)
    .map((event) => `${event.data.step} ${event.data.epoch}`);
}

const trains = (id: string, epoch: number) =>
  until("the student learns", async () => (await epochsOf(id)).includes(`student ${epoch}`), 120_000);

describe("pipelines", () => {
  const EPOCHS = 40;
  let whole: Job;

  test("all steps are planned, each on the structure that the step before gives", async () => {
    const response = await post(body(EPOCHS), "?validate_only=true");
    const plan = (await response.json()) as { steps: { name: string; plan: Record<string, unknown> }[] };
    assert.equal(response.status, 200, JSON.stringify(plan));
    const [teacher, student, int8] = plan.steps.map(({ plan }) => plan);
    assert.deepEqual(
      plan.steps.map(({ name, plan: { type } }) => [name, type]),
      [
        ["teacher", "distill"],
        ["student", "distill"],
        ["int8", "quantize"],
      ],
    );
    assert.deepEqual([teacher!.teacher_parameters, student!.teacher_parameters], [null, teacher!.student_parameters]);
    assert.equal(student!.student_parameters, 784 * 32 + 32 + 330);
    const layers = (int8!.quantized_nodes as { op: string }[]).filter(({ op }) => op === "Gemm" || op === "MatMul");
    assert.equal(layers.length, 2, "both layers of the student");
    assert.ok((int8!.provisional as { code: string }[]).some(({ code }) => code === "earlier_step"));
  });

  test("each step has a model, a report and numbers of its own, and there is one report over all", async () => {
    whole = await jobs.succeeded({ id: await submit(body(EPOCHS)) });
    const steps = stepsOf(whole);
    assert.deepEqual(
      steps.map(({ name, type }) => `${name} ${type}`),
      ["teacher distill", "student distill", "int8 quantize"],
    );
    assert.equal(whole.result!.model_id, steps[2]!.model_id);
    const sources = [ids.cnn, ids.mlp, steps[1]!.model_id];
    for (const [i, { model_id, parameters }] of steps.entries()) {
      const model = (await (await jobs.client.request(`/v1/models/${model_id}`)).json()) as Record<string, unknown>;
      assert.deepEqual(model.derived_from, { job_id: whole.id, model_id: sources[i] });
      assert.equal(model.parameters, parameters);
    }
    assert.ok(
      steps.every(({ metrics }) => metrics.accuracy.after > 0.75),
      JSON.stringify(steps),
    );
    const { size, accuracy } = whole.result!.metrics as unknown as {
      size: { before_bytes: number; after_bytes: number };
      accuracy: { before: number; after: number };
    };
    assert.equal(size.after_bytes, steps[2]!.metrics.size.after_bytes);
    assert.ok(accuracy.before < 0.35, "compared with the network that the pipeline began with, which knows nothing");
    assert.equal(accuracy.after, steps[2]!.metrics.accuracy.after, "the same model on the same data");
    assert.deepEqual(
      artifactsOf(whole)
        .map(({ name }) => name)
        .toSorted(),
      [
        ...["int8", "student", "teacher"].flatMap((step) => [`${step}.report.html`, `${step}.report.json`]),
        ...["model.onnx", "report.html", "report.json"],
      ].toSorted(),
    );
    const report = await (await jobs.client.request(`/v1/jobs/${whole.id}/report`)).text();
    for (const name of ["teacher", "student", "int8"]) {
      assert.match(report, new RegExp(`<th scope="row"><code>${name}</code></th>`));
    }
    const own = await jobs.client.request(`/v1/jobs/${whole.id}/artifacts/student.report.html`);
    assert.match(await own.text(), /Student before/);
  });

  test("killed in the second step it goes on there, to the same bytes", async () => {
    const id = await submit(body(EPOCHS));
    await trains(id, 3);
    process.kill(await jobs.child(id), "SIGKILL");
    await until("it runs again", async () => (await jobs.statuses(id)).length === 4);
    await trains(id, 8);
    process.kill((await descendants(stack.pid, "workers/main.ts"))[0]!, "SIGKILL");
    const job = await jobs.succeeded({ id });
    assert.equal(sha(job), sha(whole));
    assert.deepEqual(
      stepsOf(job).map(({ model_id }) => model_id),
      stepsOf(whole).map(({ model_id }) => model_id),
    );
    const epochs = await epochsOf(id);
    for (const epoch of ["teacher 1", "teacher 3", "student 1"]) {
      assert.equal(epochs.filter((it) => it === epoch).length, 1, `${epoch} was not trained again`);
    }
  });

  test("one that failed in the second step is retried from there", async () => {
    const id = await submit({
      ...body(EPOCHS),
      params: { steps: [teacherStep(), studentStep(EPOCHS + 1), int8Step()] },
    });
    for (const [deaths, epoch] of [2, 5].entries()) {
      await trains(id, epoch);
      // As the runtime's own crashes end a process; what is killed from outside is handed back instead.
      process.kill(await jobs.child(id), "SIGSEGV");
      await until("it was noticed", async () => (await jobs.statuses(id)).length >= 3 + 2 * deaths);
    }
    const failed = await jobs.ended(id);
    assert.equal(failed.status, "failed", JSON.stringify(failed));
    const again = (await (await jobs.client.request(`/v1/jobs/${id}/retry`, { method: "POST" })).json()) as Job;
    const job = await jobs.succeeded(again);
    assert.ok(!(await epochsOf(job.id)).some((epoch) => epoch.startsWith("teacher")), "the teacher is there already");
    assert.deepEqual(
      stepsOf(job).map(({ name }) => name),
      ["teacher", "student", "int8"],
    );
    await jobs.client.request(`/v1/jobs/${id}`, { method: "DELETE" });
    const inherited = await jobs.client.request(`/v1/jobs/${job.id}/artifacts/teacher.report.html`);
    assert.match(await inherited.text(), /modelpress report/);
  });

  test("a cancelled one takes the models of its steps along", async () => {
    const seeded = structuredClone(teacherStep()) as ReturnType<typeof teacherStep> & { params: { seed?: number } };
    seeded.params.seed = 99;
    const id = await submit({ ...body(EPOCHS), params: { steps: [seeded, studentStep(EPOCHS), int8Step()] } });
    await trains(id, 1);
    const { data } = (await (await jobs.client.request("/v1/models?limit=1")).json()) as {
      data: { id: string; derived_from: { job_id: string } }[];
    };
    assert.equal(data[0]!.derived_from.job_id, id);
    await jobs.cancel(id);
    assert.equal((await jobs.ended(id)).status, "cancelled");
    await until("its model is gone", async () => (await fetch(`${stack.url}/v1/models/${data[0]!.id}`)).status === 404);
  });

  test("a simplified model can be trained", async () => {
    const steps = [{ type: "quantize", params: { method: "simplify" } }, teacherStep()];
    const { status } = await post({ ...body(1), params: { steps } }, "?validate_only=true");
    assert.equal(status, 200);
  });

  test("steps that do not follow from each other are refused when the pipeline is posted", async () => {
    const of = (steps: object[], rest: object = {}) => ({ ...body(1), params: { steps }, ...rest });
    assert.deepEqual(
      await refusalOf(
        of([
          int8Step(),
          {
            ...studentStep(1),
            params: offline({ student: { model_id: "previous" }, loss: { kl_weight: 0, label_weight: 1 } }),
          },
        ]),
      ),
      ["/params/steps/1/params/student/model_id not_trainable"],
    );
    assert.deepEqual(
      await refusalOf(
        of([
          teacherStep(),
          {
            ...studentStep(1),
            params: offline({ student: { model_id: ids.mlp }, loss: { kl_weight: 0, label_weight: 1 } }),
          },
        ]),
      ),
      ["/params/steps/1/params step_not_fed"],
    );
    const qat = { type: "quantize", params: { method: "qat", dataset_id: ids.training } };
    assert.deepEqual(await refusalOf(of([int8Step(), qat])), ["/params/steps/1 not_trainable"]);
    assert.deepEqual(await refusalOf(of([teacherStep(), int8Step()], { model_id: null })), ["/model_id required"]);
    assert.deepEqual(await refusalOf(of([teacherStep(), int8Step()], { evaluation: {} })), [
      "/evaluation/dataset_id required",
    ]);
    assert.deepEqual(
      await refusalOf(of([teacherStep(), { ...int8Step(), params: { method: "static", dataset_id: "dst_none" } }])),
      ["/params/steps/1/params/dataset_id unknown_dataset"],
    );
    assert.equal((await refusalOf(of([teacherStep(), { ...int8Step(), name: "teacher" }]))).length, 1);
    assert.equal((await refusalOf(of([teacherStep()]))).length, 1);
  });
});
