import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { CoreError, type ModelFacts } from "../../src/core/index.ts";
import { serveTask, type TaskContext } from "../../src/tasks/task-server.ts";
import { emptyMetrics, factsSaying } from "./jobs.ts";

/**
 * A child for the tests of supervisor and worker: what `inspect_model` does is the name of its first file, with that file's path as the argument.
 * The producer of the facts it answers with is what the act returns.
 */
const ACTS: Record<string, (argument: string, context: TaskContext) => Promise<string> | string> = {
  echo: (argument) => argument,
  environment: () => JSON.stringify(process.env),
  "own file": (path) => readFileSync(path, "latin1"),
  /** Well-behaved work: stops when it is asked to. */
  sleep: async (ms, { signal }) => {
    await sleep(Number(ms), undefined, { signal });
    return "slept";
  },
  /** Work that does not look at its signal. */
  stubborn: async (ms) => {
    await sleep(Number(ms));
    return "slept";
  },
  /** Stands in a native call: no timer, no message and no signal handler runs. */
  native: (ms) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(ms));
    return "returned";
  },
  segfault: () => {
    process.kill(process.pid, "SIGSEGV");
    return sleep(10_000, "");
  },
  abort: () => process.abort(),
  exit: (code) => process.exit(Number(code)),
  /** Fails as a call of the system does. */
  errno: (code) => {
    throw Object.assign(new Error(`${code}: as if`), { code });
  },
  refuse: (subject) => {
    throw new CoreError("invalid_model", "It is not a model.", subject);
  },
  bug: () => {
    throw new TypeError("x is not a function");
  },
  "late bug": async () => {
    setImmediate(() => {
      throw new TypeError("thrown in a callback");
    });
    return sleep(10_000, "");
  },
  /** Takes native memory in steps of 16 MiB, up to `mib`, and touches it. */
  allocate: async (mib) => {
    const held: Buffer[] = [];
    while (held.length * 16 < Number(mib)) {
      held.push(Buffer.alloc(2 ** 24, 1));
      await sleep(5);
    }
    return `${held.length * 16} MiB`;
  },
  "heap limit": () => {
    setFlagsFromString("--max-old-space-size=64");
    const held: unknown[] = [];
    for (;;) held.push(new Array(1000).fill({}));
  },
  "stderr lines": async (count) => {
    for (let i = 0; i < Number(count); i++) console.error(`\u001b[31mline ${i}\u001b[0m\u0007\u202e`);
    console.error("x".repeat(1_000_000));
    await sleep(50);
    return "written";
  },
  news: (count, { news }) => {
    for (let i = 0; i < Number(count); i++) {
      news({ kind: "progress", progress: { step: "count", fraction: i / Number(count), message: "" } });
    }
    return "told";
  },
  /** Starts a process that would live for an hour, and answers with its pid; or waits for it, in a native call or while it grows. */
  descendant: async (then) => {
    const script = then === "grow" ? "globalThis.held = Buffer.alloc(2 ** 29, 1);" : "";
    const child = spawn(process.execPath, ["-e", `${script} setTimeout(() => {}, 3600000)`], { stdio: "ignore" });
    if (then === "hang") {
      console.error(`descendant ${child.pid}`);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3_600_000);
    }
    if (then === "grow") await sleep(3_600_000);
    return String(child.pid);
  },
};

async function act(name: string, argument: string, context: TaskContext): Promise<ModelFacts> {
  return factsSaying(await ACTS[name]!(argument, context));
}

const unused = () => Promise.reject(new Error("This child does not do that."));

serveTask({
  inspect_model: ({ files }, context) => act(files[0]!.name, files[0]!.path, context),
  list_layers: unused,
  check_exclusions: unused,
  inspect_dataset: unused,
  plan_job: unused,
  /** What the job does stands in `exclude_nodes`: act, argument, and whether to do it in the first attempt only. */
  async run_job({ spec, models, scratch, job_id }, context) {
    if (spec.type !== "quantize") return unused();
    const [name = "echo", argument = "", when] = spec.params.exclude_nodes;
    const mark = join(scratch, "../..", `${job_id}.first`);
    const isRetry = existsSync(mark);
    writeFileSync(mark, "");
    context.news({ kind: "log", level: "info", message: `pid ${process.pid}` });
    context.news({ kind: "progress", progress: { step: name, fraction: 0.5, message: argument } });
    const facts = isRetry && when === "first" ? factsSaying("") : await act(name, argument, context);
    const file = { name: "model.onnx", path: join(scratch, "model.onnx"), media_type: "application/octet-stream" };
    writeFileSync(file.path, `${readFileSync(models[spec.model_id]!.files[0]!.path, "utf8")} compressed`);
    const report = { name: "report.json", path: join(scratch, "report.json"), media_type: "application/json" };
    writeFileSync(report.path, JSON.stringify({ job_id }));
    return { model: [file], reports: [report], facts, metrics: emptyMetrics(), accepted: true };
  },
});
