/**
 * What a search finds on models with real weights and real inputs, and how long it takes: the front, the recommendation, and what became of
 * the other candidates.
 *
 * With `--exhaustive` every candidate is then made and measured in full without a budget, in one contest with the recommended one: what the best of them
 * and each method at its defaults is, in the objective, against what the search has recommended. Nothing is said about a machine that is busy: times are
 * those of the clock.
 *
 *     node bench/auto.ts FOLDER [--exhaustive] [--seconds=120] [--objective=latency] [--min-sqnr-db=20] [--methods=static,dynamic] [SUBJECT…]
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { memorySource } from "../src/core/data/byte-source.ts";
import { inspectDataset } from "../src/core/data/dataset.ts";
import { evaluateContest } from "../src/core/evaluate/contest.ts";
import { inspectModel } from "../src/core/evaluate/model-facts.ts";
import type { AutoMetrics } from "../src/core/index.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { type Tensor, tensor } from "../src/core/onnx/tensor.ts";
import type { Feeds } from "../src/core/quantize/calibration/calibrate.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { AUTO_RUN } from "../src/service/kinds/auto/run/auto-job.ts";
import { candidatesOf } from "../src/service/kinds/auto/run/candidates.ts";
import { checkConstraints, OBJECTIVES, sqnrOf } from "../src/service/kinds/auto/run/front.ts";
import type { AutoSpec } from "../src/service/kinds/auto/spec.ts";
import { AutoJobRequest } from "../src/service/kinds/auto/wire.ts";
import { makeQuantizedModel } from "../src/service/kinds/quantize/run/quantize-job.ts";
import type { QuantizeSpec } from "../src/service/kinds/quantize/spec.ts";
import { QuantizeJobRequest } from "../src/service/kinds/quantize/wire.ts";
import type { JobRequest as TaskJobRequest } from "../src/tasks/protocol.ts";
import { writeNpz } from "../test/support/dataset-writers.ts";
import { ENVIRONMENT } from "../workers/tasks.ts";
import { SUBJECTS } from "./static-subjects.ts";

/** What the recommended candidate is called beside all others. */
const RECOMMENDED = "recommended";
const CONTEXT = { signal: new AbortController().signal, news: () => {} };
const UNLIMITED_MS = 20_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "120" },
    objective: { type: "string", default: "latency" },
    "min-sqnr-db": { type: "string", default: "20" },
    methods: { type: "string" },
    exhaustive: { type: "boolean", default: false },
  },
});
const [folder, ...wanted] = positionals;
if (folder === undefined) throw new Error("Say where fonts and trained networks are kept.");
for (const name of wanted.length > 0 ? wanted : Object.keys(SUBJECTS)) await search(name, folder);

async function search(name: string, folder: string): Promise<void> {
  const subject = await SUBJECTS[name]!(folder);
  const scratch = join(folder, `auto-${name}`);
  mkdirSync(scratch, { recursive: true });
  const file = (name: string, bytes: Uint8Array) => {
    const path = join(scratch, name);
    writeFileSync(path, bytes);
    return { name, path };
  };
  const modelFile = file("original.onnx", modelToBytes(subject.model));
  const facts = await inspectModel(subject.model, { openSession, source: { path: modelFile.path }, dims: {} });
  const dataset = async (name: string, feeds: readonly Feeds[]) => {
    const stored = file(name, stacked(feeds));
    return { file: stored, spec: null, facts: await inspectDataset(memorySource(readFileSync(stored.path))) };
  };
  const spec = AutoJobRequest.parse({
    type: "auto",
    model_id: "model",
    params: {
      dataset_id: "calibration",
      objective: values.objective,
      methods: values.methods?.split(",") ?? null,
      constraints: { min_sqnr_db: Number(values["min-sqnr-db"]) },
      budget: { seconds: Number(values.seconds) },
    },
    evaluation: { dataset_id: "heldOut" },
  });
  const request: TaskJobRequest<typeof spec> = {
    spec,
    job_id: "job",
    scratch,
    threads: 1,
    models: { model: { files: [modelFile], facts } },
    datasets: {
      calibration: await dataset("calibration.npz", subject.calibration),
      heldOut: await dataset("held-out.npz", subject.heldOut),
    },
    ...{ checkpoints: {}, cached: {}, steps: [] },
  };
  const start = performance.now();
  const { metrics } = await AUTO_RUN.run(request, ENVIRONMENT, CONTEXT);
  const seconds = (performance.now() - start) / 1000;
  const { candidates, recommendation } = metrics.auto!;
  console.log(`\n${name}: ${seconds.toFixed(1)} s of ${values.seconds} s, ${candidates.length - 1} candidates`);
  console.log(recommendation.why);
  if (recommendation.next_better) console.log(recommendation.next_better.message);
  for (const { name, predicted, measured, on_front, recommended, dropped } of candidates) {
    const mark = recommended ? "*" : on_front ? "+" : " ";
    const size = measured?.size.ratio ?? predicted?.size_ratio;
    const tried = predicted ? `${predicted.speedup.toFixed(2)}x` : "";
    const speed = measured ? `${measured.latency.speedup.toFixed(2)}x` : "";
    const noise = measured ? sqnrOf(measured) : (predicted?.sqnr_db ?? undefined);
    console.log(
      `${mark} ${name.padEnd(28)} ${size === undefined ? "" : `${(100 * size).toFixed(1)} %`.padStart(8)} tried ${tried.padStart(6)} measured ${speed.padStart(6)} ${(noise?.toFixed(1) ?? "").padStart(6)} dB ${dropped ? `${dropped.code}: ${dropped.message.slice(0, 90)}` : ""}`,
    );
  }
  if (values.exhaustive) await exhaust(request, metrics.auto!, seconds);
}

/** Makes all candidates, and measures them and the recommended one against the original. */
async function exhaust(request: TaskJobRequest<AutoSpec>, recommendation: AutoMetrics, seconds: number): Promise<void> {
  const { spec, scratch } = request;
  const chosen = recommendation.candidates.find(({ recommended }) => recommended)!;
  const { files, openSession, measurePeak, host } = ENVIRONMENT;
  const start = performance.now();
  const made: { readonly name: string; readonly path: string; readonly bytes: number }[] = [];
  const jobs = candidatesOf(spec).flatMap(({ name, spec }) => (spec.type === "quantize" ? [{ name, spec }] : []));
  const own = chosen.spec && { name: RECOMMENDED, spec: QuantizeJobRequest.parse(chosen.spec) as QuantizeSpec };
  for (const { name, spec } of [...(own ? [own] : []), ...jobs]) {
    try {
      const folder = await files.makeDirectory(join(scratch, "all", name));
      const { written } = await makeQuantizedModel({ ...request, spec, scratch: folder }, ENVIRONMENT, CONTEXT);
      made.push({ name, path: written[0]!.path, bytes: files.sizeOf(written) });
    } catch (error) {
      console.log(`  ${name}: ${(error as Error).message}`);
    }
  }
  const { file, spec: reading } = request.datasets.heldOut!;
  const contest = await evaluateContest({
    reference: { path: request.models.model!.files[0]!.path, bytes: files.sizeOf(request.models.model!.files) },
    challengers: made,
    data: { dataset: await files.openDataset(file, reading), kind: "evaluation" },
    spec: { ...spec.evaluation, metric: null },
    loads: [{ batch_size: 1, threads: 1 }],
    ...{ seed: 0, threads: 1, cpu: host.cpu, openSession, measurePeak },
    limits: { compareMs: () => 3 * UNLIMITED_MS, latencyMs: () => UNLIMITED_MS },
    onFailure: () => undefined,
  });
  const took = (performance.now() - start) / 1000;
  const { objective, constraints } = spec.params;
  const standings = made.flatMap(({ name }, i) => {
    const measured = contest.challengers[i];
    return measured ? [{ name, measured }] : [];
  });
  const cost = ({ measured }: (typeof standings)[number]) => OBJECTIVES[objective](measured);
  const holds = ({ measured }: (typeof standings)[number]) =>
    checkConstraints(constraints, measured).every(({ ok }) => ok);
  const ours = standings.find(({ name }) => name === RECOMMENDED) ?? { name: RECOMMENDED, measured: contest.reference };
  console.log(
    `exhaustive: ${took.toFixed(1)} s, ${(took / seconds).toFixed(1)} times the search; against ${chosen.name}, 1 is as good, more is worse:`,
  );
  for (const it of standings.toSorted((a, b) => cost(a) - cost(b))) {
    if (it.name === RECOMMENDED) continue;
    const note = holds(it) ? "" : " (misses the constraints)";
    console.log(`  ${it.name.padEnd(28)} ${(cost(it) / cost(ours)).toFixed(3)}${note}`);
  }
}

/** Runs of one sample each as an `.npz` of all. */
function stacked(feeds: readonly Feeds[]): Uint8Array {
  const names = Object.keys(feeds[0]!);
  const arrays = names.map((name): [string, Tensor] => {
    const parts = feeds.map((feed) => feed[name]!);
    const { dtype, dims } = parts[0]!;
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.bytes.byteLength, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part.bytes, at);
      at += part.bytes.byteLength;
    }
    const sample = dims[0] === 1 ? dims.slice(1) : dims;
    return [name, tensor(dtype, [parts.length, ...sample], bytes)];
  });
  return new Uint8Array(writeNpz(Object.fromEntries(arrays)));
}
