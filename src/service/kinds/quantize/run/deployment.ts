/** What a result is like in the runtime that it was made for. */
import { type Deployed, describeDeployment, type Feeds, feedsFor, type JobMetrics } from "../../../../core/index.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { MadeModel } from "../../run/job-result.ts";
import type { InTarget } from "../../run/job-run.ts";
import type { QuantizeSpec } from "../spec.ts";
import { deploymentOf } from "../targets.ts";

interface MadeFor extends InTarget<QuantizeSpec> {
  /** What both models were fed while latency was measured. */
  readonly feeds: { readonly before: Feeds; readonly after: Feeds };
}

/** The metrics of a result with what the runtime makes of it that its job has named: see `judgeDeployment`. */
export function inTarget(
  made: InTarget<QuantizeSpec>,
  environment: JobEnvironment,
  signal: AbortSignal,
): NonNullable<MadeModel["deployed"]> {
  return async ({ metrics, feeds }) =>
    withDeployment(metrics, await judgeDeployment({ ...made, feeds }, environment, signal));
}

/**
 * Checks the written result against the rules of its target and, where the runtime of that can be here, runs it there beside the original. Undefined
 * for onnxruntime on a CPU. Throws `cancelled`.
 */
async function judgeDeployment(
  { spec, before, after, feeds }: MadeFor,
  { elsewhere, files, openSession }: JobEnvironment,
  signal: AbortSignal,
): Promise<Deployed | undefined> {
  const deployment = deploymentOf(spec.params);
  if (!deployment || !("target" in spec.params)) return undefined;
  const { runtime, rules, measuredIn, isDownloaded } = deployment;
  const main = after[0]!.path;
  const session = measuredIn && (await openSession({ path: main }, { threads: 1 }));
  try {
    const outputs = session && (await session.run(feedsFor(session.inputs, feeds.after), undefined, signal));
    const { runs } = spec.evaluation.latency;
    const answer = measuredIn && (await elsewhere[measuredIn]({ before, after, feeds, runs }, signal));
    return describeDeployment({
      ...{ target: spec.params.target, runtime, rules, answer, outputs },
      model: files.openWrittenModel(main),
      download: isDownloaded
        ? {
            encoding: "gzip",
            before_bytes: await files.gzipSizeOf(before),
            after_bytes: await files.gzipSizeOf(after),
          }
        : null,
    });
  } finally {
    await session?.close();
  }
}

/** The metrics of a result with what its target makes of it. */
function withDeployment(metrics: JobMetrics, deployed: Deployed | undefined): JobMetrics {
  if (!deployed) return metrics;
  return {
    ...metrics,
    deployment: deployed.facts,
    warnings: [...metrics.warnings, ...deployed.warnings],
    acceptance: [...metrics.acceptance, ...deployed.acceptance],
  };
}
