import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { AutoMetrics } from "../../../src/core/index.ts";
import { modelToBytes } from "../../../src/core/onnx/save.ts";
import { JobRequest } from "../../../src/service/api/job-schemas.ts";
import { AUTO_RUN } from "../../../src/service/kinds/auto/run/auto-job.ts";
import type { AutoSpec } from "../../../src/service/kinds/auto/spec.ts";
import type { JobEnvironment } from "../../../src/service/kinds/run/job-environment.ts";
import type { JobOutcome, TaskNews, JobRequest as TaskRequest } from "../../../src/tasks/protocol.ts";
import { ENVIRONMENT, TASK_HANDLERS } from "../../../workers/tasks.ts";
import { writeNpz } from "../../support/dataset-writers.ts";
import { cnn, randomFeeds } from "../../support/graphs.ts";

/** Searches in this process: what an attempt goes on from, and what is for another runtime. */

const CONTEXT = { signal: new AbortController().signal, news: () => {} };
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "search-"));
});
after(() => rm(folder, { recursive: true }));

/** A job on a small network and random samples, with a directory of its own. */
async function request(params: object, checkpoints: Record<string, string> = {}): Promise<TaskRequest<AutoSpec>> {
  const scratch = await mkdtemp(join(folder, "job-"));
  const model = cnn();
  const [path, data] = [join(scratch, "original.onnx"), { name: "data.npz", path: join(scratch, "data.npz") }];
  await writeFile(path, modelToBytes(model));
  await writeFile(data.path, writeNpz(randomFeeds(model, { dims: { n: 48 } })));
  const stored = await Promise.all(
    Object.entries(checkpoints).map(async ([name, text]) => {
      const file = { name, path: join(scratch, `${name}.earlier`) };
      await writeFile(file.path, text);
      return [name, file] as const;
    }),
  );
  const spec = JobRequest.parse({
    type: "auto",
    model_id: "mdl_1",
    params: { dataset_id: "dst_1", ...params },
    evaluation: { latency: { runs: 3 } },
  }) as unknown as AutoSpec;
  const files = [{ name: "original.onnx", path }];
  const facts = await TASK_HANDLERS.inspect_model({ files, dims: {} }, CONTEXT);
  const found = await TASK_HANDLERS.inspect_dataset({ file: data, spec: null }, CONTEXT);
  return {
    ...{ spec, job_id: "job_1", scratch, threads: 1, cached: {}, steps: [] },
    models: { mdl_1: { files, facts } },
    datasets: { dst_1: { file: data, spec: null, facts: found } },
    checkpoints: Object.fromEntries(stored),
  };
}

interface Ran {
  readonly auto: AutoMetrics;
  readonly outcome: JobOutcome;
  /** Every state that was stored, by its name, in order. */
  readonly states: readonly { readonly name: string; readonly text: string }[];
  readonly tried: readonly string[];
}

async function search(it: TaskRequest<AutoSpec>, environment: Partial<JobEnvironment> = {}): Promise<Ran> {
  const states: { name: string; text: string }[] = [];
  const tried: string[] = [];
  const news = (told: TaskNews) => {
    if (told.kind === "checkpoint") states.push({ name: told.name, text: readFileSync(told.path, "utf8") });
    // It is taken away, so that there is room for the next one.
    if (told.kind === "checkpoint") void rm(told.path, { force: true });
    if (told.kind === "metric" && typeof told.data.candidate === "string") tried.push(told.data.candidate);
  };
  const outcome = await AUTO_RUN.run(it, { ...ENVIRONMENT, ...environment }, { ...CONTEXT, news });
  return { auto: outcome.metrics.auto!, outcome, states, tried };
}

const hashesOf = ({ candidates }: AutoMetrics) => candidates.map(({ name, sha256 }) => [name, sha256] as const);
const PARAMS = { methods: ["weight_only", "static"], budget: { seconds: 300, candidates: 4 } };

test("an attempt that begins when all was measured has the same front, to the last number, and measures nothing again", async () => {
  const whole = await search(await request(PARAMS));
  const last = whole.states.at(-1)!;
  assert.ok(JSON.parse(last.text).measured !== null);
  const unmeasured = {
    measurePeak: () => assert.fail("it was measured before"),
    elsewhere: { "onnxruntime-web": () => assert.fail("it was measured before") },
  };
  const resumed = await search(await request(PARAMS, { [last.name]: last.text }), unmeasured);
  assert.deepEqual(resumed.tried, []);
  assert.deepEqual(resumed.auto.candidates, whole.auto.candidates);
  assert.deepEqual(resumed.auto.targets, whole.auto.targets);
  const front = ({ outcome }: Ran) =>
    outcome.front!.map(({ name, files }) => [name, readFileSync(files[0]!.path).toString("base64")]);
  assert.ok(front(whole).length > 0);
  assert.deepEqual(front(resumed), front(whole));
});

test("an attempt that begins after two trials tries the others, and makes the same bytes", async () => {
  const whole = await search(await request(PARAMS));
  const early = whole.states.find(({ text }) => JSON.parse(text).tried.length === 2)!;
  const resumed = await search(await request(PARAMS, { [early.name]: early.text }));
  assert.deepEqual(resumed.tried, whole.tried.slice(2));
  assert.deepEqual(hashesOf(resumed.auto), hashesOf(whole.auto));
  const trials = ({ candidates }: AutoMetrics) => candidates.slice(1, 3).map(({ predicted }) => predicted);
  assert.deepEqual(trials(resumed.auto), trials(whole.auto));
});

/** A machine on which a run takes a millisecond for a kilobyte of the model's file, and a process as many bytes. */
function machine(): Partial<JobEnvironment> {
  let ms = 0;
  return {
    threadClock: () => ms,
    measurePeak: async ({ modelPath }) => ({ peakBytes: 1e6 + statSync(modelPath).size, baselineBytes: 1e6 }),
    openSession: async (source, how) => {
      const session = await ENVIRONMENT.openSession(source, how);
      const cost = "path" in source ? statSync(source.path).size / 1000 : 0;
      return {
        ...{ inputs: session.inputs, outputs: session.outputs, close: () => session.close() },
        run: (...args) => {
          ms += cost;
          return session.run(...args);
        },
      };
    },
  };
}

test("wherever it was killed, it comes to the same: the front and its order, what is recommended, numbers, reasons, jobs and bytes", async () => {
  // Kernels of another processor are not measured here.
  const asked = { targets: ["portable"], budget: { seconds: 300, candidates: 7 }, constraints: { min_sqnr_db: 25 } };
  const whole = await search(await request(asked), machine());
  const { recommendation, candidates } = whole.auto;
  const best = candidates.find(({ recommended }) => recommended)!;
  assert.equal(best.name, recommendation.candidate);
  assert.ok(candidates.filter(({ on_front }) => on_front).length >= 3 && best.spec !== null);
  // It is the clock that it says it is.
  const { size, latency } = best.measured!;
  assert.ok(Math.abs(latency.speedup * size.ratio - 1) < 1e-9);
  const bytesOf = ({ outcome }: Ran) =>
    outcome.front!.map(({ name, files }) => [name, readFileSync(files[0]!.path).toString("base64")]);
  assert.ok(whole.states.length > 4);
  for (const { name, text } of whole.states) {
    const resumed = await search(await request(asked, { [name]: text }), machine());
    assert.deepEqual(resumed.auto.candidates, candidates);
    assert.deepEqual(resumed.auto.targets, whole.auto.targets);
    assert.deepEqual(bytesOf(resumed), bytesOf(whole));
  }
});

test("what differs in numbers alone is as fast as the first of its kind, which alone is timed; where that holds the limits others are not tried", async () => {
  const measured: string[] = [];
  const { measurePeak, ...others } = machine();
  const counting: Partial<JobEnvironment> = {
    ...others,
    measurePeak: (asked, signal) => {
      measured.push(asked.modelPath);
      return measurePeak!(asked, signal);
    },
  };
  const params = { targets: ["portable"], methods: ["static"], budget: { seconds: 300, candidates: 8 } };
  // Nothing is foretold of quality: all are tried.
  const { auto, states } = await search(await request({ ...params, objective: "metric" }), counting);
  const { tried } = JSON.parse(states.at(-1)!.text) as {
    tried: { name: string; structure: string; trial: { latency: object; memory: object } | null }[];
  };
  const ran = tried.filter(({ trial }) => trial !== null);
  const structures = Map.groupBy(ran, ({ structure }) => structure);
  assert.ok(structures.size < ran.length, "several differ in numbers alone");
  for (const [first, ...same] of structures.values()) {
    for (const { trial } of same) assert.deepEqual(trial!.latency, first!.trial!.latency);
  }
  // One of the original, and one of each kind: that of the finalists is known.
  assert.equal(measured.length, 1 + structures.size);
  assert.ok(auto.candidates.every(({ dropped }) => dropped?.code !== "unpromising"));
  const fast = await search(await request({ ...params, objective: "latency" }), machine());
  assert.deepEqual(
    fast.auto.candidates.filter(({ predicted }) => predicted).map(({ name }) => name),
    ["static"],
  );
  const [, , ...untried] = fast.auto.candidates;
  for (const { name, dropped } of untried) {
    assert.deepEqual([dropped?.stage, dropped?.code], ["planned", "unpromising"], name);
    assert.match(dropped!.message, /^What computes like it is up to .* and static, which holds the limits, is /);
  }
});

/** A runtime in which what is in 8 bits takes a quarter of the time, and everything else as long as the original. */
const elsewhere: JobEnvironment["elsewhere"] = {
  "onnxruntime-web": async ({ before, after }) => {
    const [original, result] = [before, after].map((files) => ENVIRONMENT.files.openWrittenModel(files[0]!.path));
    const isQuantized = [...result!.nodes()].some(({ opType }) => opType === "QuantizeLinear");
    assert.ok(original);
    return {
      ...{ runtime: "onnxruntime-web, slow", threads: 1, loadMs: 1, outputs: {} },
      ...{ beforeMs: [8, 8, 8], afterMs: isQuantized ? [2, 2, 2] : [8, 8, 8] },
    };
  },
};

test("for the web speeds are those that models have there: of the trial, of the front, of the original, and of what is recommended", async () => {
  const { auto, outcome } = await search(
    await request({ ...PARAMS, targets: ["auto", "web"], constraints: { min_speedup: 3 } }),
    { elsewhere },
  );
  const [here, web] = auto.targets;
  assert.deepEqual([here!.target, web!.target], ["auto", "web"]);
  const own = auto.candidates.filter(({ target }) => target === "web");
  const statics = own.find(({ name }) => name === "web-static")!;
  assert.equal(statics.predicted!.speedup, 4);
  assert.deepEqual(statics.measured!.latency.speedup_interval, [4, 4]);
  assert.equal(statics.measured!.latency.after.p50_ms, 2);
  assert.deepEqual([statics.deployment!.measured!.runtime, web!.accepted], ["onnxruntime-web, slow", true]);
  assert.equal(web!.recommendation.candidate, "web-static");
  assert.deepEqual(web!.constraints, [{ name: "min_speedup", limit: 3, value: 4, ok: true }]);
  const original = own.find(({ name }) => name === "web-original")!;
  assert.deepEqual([original.measured!.latency.before.p50_ms, original.measured!.latency.after.p50_ms], [8, 8]);
  // In onnxruntime no model of this network is three times as fast; the job is accepted when all targets are.
  assert.ok(auto.candidates.filter(({ target }) => target === "auto").every(({ deployment }) => deployment === null));
  assert.equal(outcome.accepted, here!.accepted && web!.accepted);
  assert.deepEqual(
    outcome.metrics.acceptance.map(({ name }) => name),
    ["auto-min_speedup", "web-min_speedup"],
  );
});

test("a candidate that the runtime does not run, and one that breaks its rules, are dropped with the reason", async () => {
  const fails: JobEnvironment["elsewhere"] = { "onnxruntime-web": async () => ({ failure: "no memory" }) };
  const { auto } = await search(await request({ ...PARAMS, targets: ["web"] }), { elsewhere: fails });
  const reasons = auto.candidates.flatMap(({ dropped, spec }) => (spec && dropped ? [dropped] : []));
  assert.ok(reasons.length > 0);
  for (const { code, message } of reasons) {
    if (code === "same_as") continue;
    assert.deepEqual([code, message], ["target_does_not_run", "no memory"]);
  }
  assert.equal(auto.recommendation.candidate, "original");
  // OpenVINO takes no weights of 8 bits with zero points.
  const ruled = await search(await request({ ...PARAMS, methods: ["weight_only"], targets: ["openvino"] }));
  const broken = ruled.auto.candidates.filter(({ dropped }) => dropped?.code === "target_rules_broken");
  assert.ok(broken.length > 0 && broken.every(({ dropped }) => dropped!.message.includes("OpenVINO")));
  const fit = ruled.auto.candidates.filter(({ on_front }) => on_front);
  assert.ok(fit.every(({ deployment }) => deployment!.rules.every(({ holds }) => holds)));
});
