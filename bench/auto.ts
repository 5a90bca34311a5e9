/**
 * What a search finds on models with real weights and real inputs, and on seasoned ones, and how long it takes: the front, the recommendation, and what
 * became of the other candidates. Nothing is said about a machine that is busy: times are those of the clock.
 *
 *     node bench/auto.ts FOLDER --phase=inputs [SUBJECT…]
 *     node bench/auto.ts FOLDER --phase=make [--each-seconds=600] [SUBJECT…]
 *     node bench/auto.ts FOLDER --phase=measure [--samples=64] [SUBJECT…]
 *     node bench/auto.ts FOLDER [--phase=search] [--seconds=120] [--objective=latency] [--min-sqnr-db=20] [--methods=static,dynamic] [--targets=auto,web] [SUBJECT…]
 *
 * `--phase=inputs` comes first, and writes models and samples to FOLDER. With `--phase=make` every candidate of the catalogue, and every other one that the search has tried, is made as a job by itself, without a budget (one that takes longer than is said is left out), and
 * kept in FOLDER; with `--phase=measure` they are all measured in one contest with what the search has recommended: what the best of them and each
 * method at its defaults is, in the objective, against that (for the first target; speeds are those of onnxruntime here). Seconds of both sides are those of processors, so that it does not matter what else the
 * machine does while candidates are made.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { memorySource } from "../src/core/data/byte-source.ts";
import { inspectDataset } from "../src/core/data/dataset.ts";
import { feedsFor } from "../src/core/data/fit.ts";
import { evaluateContest } from "../src/core/evaluate/contest.ts";
import { inspectModel } from "../src/core/evaluate/model-facts.ts";
import type { AutoMetrics } from "../src/core/index.ts";
import type { Model } from "../src/core/onnx/ir.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { type Tensor, tensor } from "../src/core/onnx/tensor.ts";
import type { Feeds } from "../src/core/quantize/calibration/calibrate.ts";
import { speedupInterval, timeInTurns, timingOf } from "../src/core/runtime/latency.ts";
import { openSession } from "../src/core/runtime/session.ts";
import { candidatesOf } from "../src/service/kinds/auto/candidates.ts";
import { AUTO_RUN } from "../src/service/kinds/auto/run/auto-job.ts";
import { checkConstraints, OBJECTIVES, sqnrOf } from "../src/service/kinds/auto/run/front.ts";
import { type AutoSpec, searchesOf } from "../src/service/kinds/auto/spec.ts";
import { AutoJobRequest } from "../src/service/kinds/auto/wire.ts";
import { cacheKeysOf } from "../src/service/kinds/kinds.ts";
import { makeQuantizedModel } from "../src/service/kinds/quantize/run/quantize-job.ts";
import type { QuantizeSpec } from "../src/service/kinds/quantize/spec.ts";
import { QuantizeJobRequest } from "../src/service/kinds/quantize/wire.ts";
import type { JobRequest as TaskJobRequest } from "../src/tasks/protocol.ts";
import { writeNpz } from "../test/support/dataset-writers.ts";
import { ENVIRONMENT } from "../workers/tasks.ts";
import { openThreadClock } from "../workers/thread-clock.ts";
import { NETS, SMALL_NETS } from "./quantize-nets.ts";
import { SUBJECTS } from "./static-subjects.ts";

/** What the recommended candidate is called beside all others. */
const RECOMMENDED = "recommended";
const CONTEXT = { signal: new AbortController().signal, news: () => {} };
/** Samples of seasoned networks: to calibrate and to judge with. */
const SAMPLES = { calibration: 128, heldOut: 64 };
/** Of the others, no more than so many judge. */
const MOST_JUDGING = 256;
/** What the first phase writes. */
const FILES = { model: "original.onnx", calibration: "calibration.npz", heldOut: "held-out.npz" } as const;
const LIMITS = { compareMs: () => 150_000, latencyMs: () => 0 };
/** Rounds that all candidates are timed in, one after the other. */
const TIMED = { runs: 60, maxMs: 40_000 };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "120" },
    objective: { type: "string", default: "latency" },
    "min-sqnr-db": { type: "string", default: "20" },
    methods: { type: "string" },
    targets: { type: "string", default: "auto" },
    phase: { type: "string", default: "search" },
    "each-seconds": { type: "string", default: "86400" },
    samples: { type: "string" },
  },
});
const [folder, ...wanted] = positionals;
if (folder === undefined) throw new Error("Say where fonts and trained networks are kept.");
const MADE_NETS = ["mobilenetv2", "encoder", "mobilenetv2-96", "encoder-small"];
for (const name of wanted.length > 0 ? wanted : [...Object.keys(SUBJECTS), ...MADE_NETS]) await run(name, folder);

interface Inputs {
  readonly model: Model;
  readonly calibration: readonly Feeds[];
  readonly heldOut: readonly Feeds[];
}

/** A subject with runs of one sample each. */
async function inputsOf(name: string, folder: string): Promise<Inputs> {
  const subject = SUBJECTS[name];
  if (subject) {
    const { model, calibration, heldOut } = await subject(folder);
    const singles = name.startsWith("mnist") ? heldOut.slice(0, 3).flatMap(apart) : heldOut;
    return { model, calibration, heldOut: singles.slice(0, MOST_JUDGING) };
  }
  const net = { ...NETS, ...SMALL_NETS }[name];
  if (!net) throw new Error(`There is no subject "${name}".`);
  return {
    model: await net.model(),
    calibration: apart(await net.data(SAMPLES.calibration, 1)),
    heldOut: apart(await net.data(SAMPLES.heldOut, 2)),
  };
}

function apart(batch: Feeds): Feeds[] {
  const count = Object.values(batch)[0]!.dims[0]!;
  return Array.from({ length: count }, (_, i) =>
    Object.fromEntries(
      Object.entries(batch).map(([name, { dtype, dims, bytes }]) => {
        const size = bytes.byteLength / count;
        return [name, tensor(dtype, [1, ...dims.slice(1)], bytes.slice(i * size, (i + 1) * size))];
      }),
    ),
  );
}

/** What the phases of a subject hand on. */
interface Searched {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly auto: AutoMetrics;
  /** What the search has found for other jobs, by name. */
  readonly found: Readonly<Record<string, string>>;
}

/** Candidates that were made as jobs of their own, and what each took. */
interface Made {
  readonly models: readonly MadeModel[];
  /** Those that took too long, or cannot be made. */
  readonly leftOut?: readonly Pick<MadeModel, "name" | "cpuSeconds">[];
}

interface MadeModel {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  readonly cpuSeconds: number;
}

/** What this process has computed, with the processes that it has started and that have ended: by the clock ticks of Linux, of which there are 100 in a second. */
function cpuSeconds(): number {
  const stat = readFileSync("/proc/self/stat", "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // utime, stime, cutime and cstime, the 14th to the 17th field of all.
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) / 100, 0);
}

async function run(name: string, folder: string): Promise<void> {
  const scratch = join(folder, `auto-${name}`);
  mkdirSync(scratch, { recursive: true });
  if (values.phase === "inputs") return writeInputs(await inputsOf(name, folder), scratch);
  const request = await requestOf(scratch);
  const fileOf = (phase: string) => join(scratch, `${phase}.json`);
  const kept = <T>(phase: string) =>
    existsSync(fileOf(phase)) ? (JSON.parse(readFileSync(fileOf(phase), "utf8")) as T) : undefined;
  const keep = (phase: string, result: object) => writeFileSync(fileOf(phase), JSON.stringify(result, null, 1));
  const searchedAs = `search-${values.objective}${values.targets === "auto" ? "" : `-${values.targets}`}`;
  if (values.phase === "search") keep(searchedAs, await search(name, request));
  else if (values.phase === "make") {
    await make(request, kept<Searched>(searchedAs), kept<Made>("made"), (made) => keep("made", made));
  } else await measure(name, request, kept<Searched>(searchedAs)!, kept<Made>("made")!);
}

function writeInputs({ model, calibration, heldOut }: Inputs, scratch: string): void {
  writeFileSync(join(scratch, FILES.model), modelToBytes(model));
  writeFileSync(join(scratch, FILES.calibration), stacked(calibration));
  writeFileSync(join(scratch, FILES.heldOut), stacked(heldOut));
}

async function requestOf(scratch: string): Promise<TaskJobRequest<AutoSpec>> {
  const file = (name: string) => ({ name, path: join(scratch, name) });
  const modelFile = file(FILES.model);
  const model = ENVIRONMENT.files.openModel([modelFile]);
  const facts = await inspectModel(model, { openSession, source: { path: modelFile.path }, dims: {} });
  const dataset = async (name: string) => {
    const stored = file(name);
    return { file: stored, spec: null, facts: await inspectDataset(memorySource(readFileSync(stored.path))) };
  };
  const spec = AutoJobRequest.parse({
    type: "auto",
    model_id: "model",
    params: {
      dataset_id: "calibration",
      objective: values.objective,
      methods: values.methods?.split(",") ?? null,
      targets: values.targets.split(","),
      constraints: { min_sqnr_db: Number(values["min-sqnr-db"]) },
      budget: { seconds: Number(values.seconds) },
    },
    evaluation: { dataset_id: "heldOut", samples: values.samples === undefined ? null : Number(values.samples) },
  });
  return {
    spec,
    job_id: "job",
    scratch,
    threads: 1,
    models: { model: { files: [modelFile], facts } },
    datasets: {
      calibration: await dataset(FILES.calibration),
      heldOut: await dataset(FILES.heldOut),
    },
    ...{ checkpoints: {}, cached: {}, steps: [] },
  };
}

async function search(name: string, request: TaskJobRequest<AutoSpec>): Promise<Searched> {
  const found: Record<string, string> = {};
  const seconds = new Map<string, number>();
  let last = performance.now();
  const [start, computed] = [performance.now(), cpuSeconds()];
  const { metrics } = await AUTO_RUN.run(request, ENVIRONMENT, {
    ...CONTEXT,
    news: (it) => {
      if (it.kind === "cache") found[it.name] = it.path;
      if (it.kind !== "metric" || typeof it.data.candidate !== "string") return;
      seconds.set(it.data.candidate, (performance.now() - last) / 1000);
      last = performance.now();
    },
  });
  const took = (performance.now() - start) / 1000;
  const ended = (performance.now() - last) / 1000;
  const { candidates, targets } = metrics.auto!;
  const tried = candidates.filter(({ spec }) => spec !== null).length;
  console.log(
    `\n${name}: ${took.toFixed(1)} s of ${values.seconds} s, ${tried} candidates; ${ended.toFixed(1)} s behind the last trial`,
  );
  for (const { target, recommendation } of targets) {
    console.log(`${target}: ${recommendation.why}`);
    if (recommendation.next_better) console.log(recommendation.next_better.message);
  }
  for (const { name, predicted, measured, on_front, recommended, dropped } of candidates) {
    const mark = recommended ? "*" : on_front ? "+" : " ";
    const size = measured?.size.ratio ?? predicted?.size_ratio;
    const tried = predicted ? `${predicted.speedup.toFixed(2)}x` : "";
    const speed = measured ? `${measured.latency.speedup.toFixed(2)}x` : "";
    const noise = measured ? sqnrOf(measured) : (predicted?.sqnr_db ?? undefined);
    console.log(
      `${mark} ${name.padEnd(28)} ${size === undefined ? "" : `${(100 * size).toFixed(1)} %`.padStart(8)} tried ${tried.padStart(6)} measured ${speed.padStart(6)} ${(seconds.get(name)?.toFixed(1) ?? "").padStart(5)} s ${(noise?.toFixed(1) ?? "").padStart(6)} dB ${dropped ? `${dropped.code}: ${dropped.message.slice(0, 90)}` : ""}`,
    );
  }
  return { seconds: took, cpuSeconds: cpuSeconds() - computed, auto: metrics.auto!, found };
}

/**
 * Makes as jobs of their own all candidates of the catalogue, and what else was tried where there was a search: those that were not made before. What one finds
 * out others know, as jobs of a service do.
 */
async function make(
  request: TaskJobRequest<AutoSpec>,
  searched: Searched | undefined,
  before: Made | undefined,
  keep: (made: Made) => void,
): Promise<void> {
  const { spec, scratch } = request;
  const { files, host } = ENVIRONMENT;
  const parsed = (sent: object) => QuantizeJobRequest.parse(sent) as QuantizeSpec;
  const catalogue = searchesOf(spec)
    .flatMap(candidatesOf)
    .flatMap(({ name, spec }) => (spec.type === "quantize" ? [{ name, spec }] : []));
  const known = new Set(catalogue.map(({ name }) => name));
  const found = (searched?.auto.candidates ?? []).flatMap(({ name, spec, recommended }) => {
    if (!spec) return [];
    const job = parsed(spec);
    return [
      ...(recommended ? [{ name: RECOMMENDED, spec: job }] : []),
      ...(known.has(name) ? [] : [{ name, spec: job }]),
    ];
  });
  // What a search has chosen may be another model next time.
  const models = (before?.models ?? []).filter(({ name }) => !searched || known.has(name));
  const leftOut = [...(before?.leftOut ?? [])];
  const ownKeys = cacheKeysOf(spec, host);
  const cached = new Map(Object.entries(searched?.found ?? {}).map(([name, path]) => [ownKeys[name]!, { name, path }]));
  for (const { name, spec } of [...catalogue, ...found]) {
    if ([...models, ...leftOut].some((it) => it.name === name)) continue;
    const start = cpuSeconds();
    try {
      const folder = await files.makeDirectory(join(scratch, "all", name));
      const keys = cacheKeysOf(spec, host);
      const own = Object.entries(keys).flatMap(([found, key]) => {
        const file = cached.get(key);
        return file ? [[found, file] as const] : [];
      });
      const { written } = await makeQuantizedModel(
        { ...request, spec, scratch: folder, cached: Object.fromEntries(own) },
        ENVIRONMENT,
        {
          signal: AbortSignal.timeout(1000 * Number(values["each-seconds"])),
          news: (it) => {
            if (it.kind === "cache" && keys[it.name] !== undefined) cached.set(keys[it.name]!, it);
          },
        },
      );
      const [{ path }] = written as [(typeof written)[number]];
      models.push({ name, path, bytes: files.sizeOf(written), cpuSeconds: cpuSeconds() - start });
      keep({ models, leftOut });
    } catch (error) {
      leftOut.push({ name, cpuSeconds: cpuSeconds() - start });
      keep({ models, leftOut });
      console.log(`  ${name}: ${(error as Error).message}`);
    }
  }
  console.log(models.map(({ name, cpuSeconds }) => `${name} ${cpuSeconds.toFixed(1)}`).join(", "));
}

/** Measures all of them and the recommended one against the original. */
async function measure(
  name: string,
  request: TaskJobRequest<AutoSpec>,
  { auto, cpuSeconds: searchedFor, seconds }: Searched,
  made: Made,
): Promise<void> {
  const { spec } = request;
  const { files, openSession, measurePeak, host } = ENVIRONMENT;
  const start = cpuSeconds();
  const { file, spec: reading } = request.datasets.heldOut!;
  // Memory is no constraint here, and takes a process for each.
  const peak = { peakBytes: 1, baselineBytes: 1 };
  const contest = await evaluateContest({
    reference: { path: request.models.model!.files[0]!.path, bytes: files.sizeOf(request.models.model!.files) },
    challengers: made.models.map((it) => ({ ...it, peak })),
    data: { dataset: await files.openDataset(file, reading), kind: "evaluation" },
    spec: { ...spec.evaluation, metric: null },
    loads: [{ batch_size: 1, threads: 1 }],
    ...{ seed: 0, threads: 1, cpu: host.cpu, openSession, measurePeak },
    limits: LIMITS,
    onFailure: () => undefined,
  });
  const making = [...made.models, ...(made.leftOut ?? [])].reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  const { objective, constraints } = spec.params;
  const speeds = await speedsOf(request, made, contest.challengers);
  const took = making + cpuSeconds() - start;
  const standings = made.models.flatMap(({ name }, i) => {
    const measured = contest.challengers[i];
    return measured ? [{ name, measured: { ...measured, latency: { ...measured.latency, ...speeds.get(name) } } }] : [];
  });
  type Contestant = (typeof standings)[number];
  const cost = ({ measured }: Contestant) => OBJECTIVES[objective](measured);
  const holds = ({ measured }: Contestant) => checkConstraints(constraints, measured).every(({ ok }) => ok);
  const ours = standings.find(({ name }) => name === RECOMMENDED) ?? { name: RECOMMENDED, measured: contest.reference };
  const said = ({ measured: { size, latency, fidelity } }: Contestant) =>
    `${latency.speedup.toFixed(2)}x (${latency.speedup_interval?.map((it) => it.toFixed(2)).join("-")}), ${(100 * size.ratio).toFixed(1)} %, ${sqnrOf({ fidelity }).toFixed(1)} dB`;
  const { candidate } = auto.recommendation;
  console.log(
    `\n${name}: ${objective}, search ${seconds.toFixed(1)} s, ${searchedFor.toFixed(1)} s of processors; exhaustive ${took.toFixed(1)} s of processors, ${(took / searchedFor).toFixed(1)} times`,
  );
  console.log(`recommended: ${candidate}, ${said(ours)}; against it, 1 is as good, more is worse:`);
  for (const it of standings.toSorted((a, b) => cost(a) - cost(b))) {
    if (it.name === RECOMMENDED) continue;
    const note = holds(it) ? "" : " (misses the constraints)";
    console.log(`  ${it.name.padEnd(28)} ${(cost(it) / cost(ours)).toFixed(3)} ${said(it)}${note}`);
  }
}

/**
 * How fast each of those that run is against the original, by what the thread computes, several short runs as one: on a machine that does other work as well that
 * is steadier than the clock.
 */
async function speedsOf(
  request: TaskJobRequest<AutoSpec>,
  { models }: Made,
  challengers: readonly unknown[],
): Promise<
  ReadonlyMap<string, { readonly speedup: number; readonly speedup_interval: readonly [number, number] | null }>
> {
  const { files } = ENVIRONMENT;
  const { file, spec } = request.datasets.heldOut!;
  const running = models.filter((_, i) => challengers[i] !== undefined);
  await using loaded = new AsyncDisposableStack();
  const sessions = [];
  for (const path of [request.models.model!.files[0]!.path, ...running.map(({ path }) => path)]) {
    const session = await openSession({ path }, { threads: 1 });
    loaded.defer(() => session.close());
    sessions.push(session);
  }
  const dataset = await files.openDataset(file, spec);
  const { feeds } = (await dataset.batches({ batchSize: 1 })[Symbol.asyncIterator]().next()).value!;
  const [original, ...others] = await timeInTurns(
    sessions.map((session) => ({ session, feeds: feedsFor(session.inputs, feeds) })),
    { ...TIMED, clock: openThreadClock() },
  );
  return new Map(
    running.map(({ name }, i) => {
      const speedup = timingOf(original!).p50_ms / timingOf(others[i]!).p50_ms;
      return [name, { speedup, speedup_interval: speedupInterval(original!, others[i]!) }];
    }),
  );
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
