import assert from "node:assert/strict";
import { test } from "node:test";
import { fileOf } from "../support/model-file.ts";
import { mlp } from "../support/networks.ts";
import { ACT_NAMES, runChaos } from "./chaos.ts";
import { startFleet } from "./fleet.ts";

/**
 * The short form of `node test/chaos/main.ts`: real API processes and workers, whose children act instead of computing. A seed that has
 * failed can be given again as CHAOS_SEED.
 */
test("every job ends well, once, whatever is killed, full, read-only or late", async (t) => {
  const seed = Number(process.env.CHAOS_SEED ?? Date.now() % 1_000_000);
  t.diagnostic(`CHAOS_SEED=${seed}`);
  const acting = new URL("../support/acting-worker.ts", import.meta.url).pathname;
  const fleet = await startFleet({
    ...{ apis: 2, workers: 2, keys: 3, diskMib: 128 },
    worker: (env) => [acting, JSON.stringify(env), "0"],
  });
  try {
    const report = await runChaos(fleet, {
      ...{
        seed,
        jobs: 10,
        model: fileOf(mlp([784, 8, 10])),
        pauseMs: 1_000,
        acts: ACT_NAMES,
        settleMs: 600_000,
        maxActs: ACT_NAMES.length,
      },
      say: (line) => t.diagnostic(line),
    });
    t.diagnostic(JSON.stringify(report));
    assert.equal(report.succeeded, report.submitted);
    for (const name of ["lost", "doubled", "failed", "wrongAnswers"] as const) assert.deepEqual(report[name], [], name);
    await fleet.whole();
    await fleet.stop();
    assert.deepEqual(await fleet.orphans(), []);
  } finally {
    await fleet.stop();
    await fleet.close();
  }
});
