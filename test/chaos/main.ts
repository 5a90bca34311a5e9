import { parseArgs } from "node:util";
import { fileOf } from "../support/model-file.ts";
import { mlp } from "../support/networks.ts";
import { ACT_NAMES, runChaos } from "./chaos.ts";
import { startFleet } from "./fleet.ts";

/**
 * node test/chaos/main.ts [--seed N] [--jobs 200] [--minutes 30] [--pause-ms 4000]
 *
 * The long form: two API processes, three workers, three keys, real jobs, and everything that can be done to them, until all jobs have
 * ended. Prints what came of them; the exit code is 0 when every job has succeeded, once, and nothing is left behind.
 */

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    jobs: { type: "string", default: "200" },
    minutes: { type: "string", default: "30" },
    "pause-ms": { type: "string", default: "4000" },
  },
});
const seed = Number(values.seed);
console.log(`seed ${seed}`);
const fleet = await startFleet({ apis: 2, workers: 3, keys: 3, diskMib: 512, worker: () => ["workers/main.ts"] });
try {
  const report = await runChaos(fleet, {
    ...{
      seed,
      jobs: Number(values.jobs),
      model: fileOf(mlp([784, 64, 10])),
      acts: ACT_NAMES,
      maxActs: Number.POSITIVE_INFINITY,
    },
    ...{ pauseMs: Number(values["pause-ms"]), settleMs: Number(values.minutes) * 60_000, say: console.log },
  });
  await fleet.whole();
  await fleet.stop();
  const orphans = await fleet.orphans();
  console.log({ ...report, orphans });
  const { lost, doubled, failed, wrongAnswers } = report;
  const isWell =
    report.succeeded === report.submitted &&
    [lost, doubled, failed, wrongAnswers, orphans].every((it) => it.length === 0);
  process.exitCode = isWell ? 0 : 1;
} finally {
  await fleet.stop();
  await fleet.close();
}
