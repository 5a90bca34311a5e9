/** What a result is like in the runtime that it was made for. */
import { type Deployed, describeDeployment, feedsFor, type JobMetrics } from "../../../../core/index.ts";
import type { ElsewhereRequest, JobEnvironment } from "../../run/job-environment.ts";
import type { MadeModel } from "../../run/job-result.ts";
import type { InTarget } from "../../run/job-run.ts";
import type { QuantizeSpec } from "../spec.ts";
import { type AnyTarget, deploymentFor } from "../targets.ts";

/** A model for a target, and the one that it is held against. */
export interface MadeFor extends Pick<ElsewhereRequest, "before" | "after" | "feeds" | "runs" | "maxMs"> {
  readonly target: AnyTarget;
  /** Whether what a download takes is wanted, too. */
  readonly weighed: boolean;
}

/** The metrics of a result with what the runtime makes of it that its job has named: see `judgeDeployment`. */
export function inTarget(
  { spec, before, after }: InTarget<QuantizeSpec>,
  environment: JobEnvironment,
  signal: AbortSignal,
): NonNullable<MadeModel["deployed"]> {
  const { runs } = spec.evaluation.latency;
  const target = "target" in spec.params ? spec.params.target : "auto";
  return async ({ metrics, feeds }) => {
    const made = { target, before, after, feeds, runs, weighed: true };
    return withDeployment(metrics, await judgeDeployment(made, environment, signal));
  };
}

/**
 * Checks the written result against the rules of its target and, where the runtime of that can be here, runs it there beside the original. Undefined
 * for onnxruntime on a CPU. Throws `cancelled`.
 */
export async function judgeDeployment(
  { target, before, after, feeds, runs, maxMs, weighed }: MadeFor,
  { elsewhere, files, openSession }: JobEnvironment,
  signal: AbortSignal,
): Promise<Deployed | undefined> {
  const deployment = deploymentFor(target);
  if (!deployment) return undefined;
  const { runtime, rules, measuredIn, isDownloaded } = deployment;
  const main = after[0]!.path;
  const session = measuredIn && (await openSession({ path: main }, { threads: 1 }));
  try {
    const fed = { ...feeds, after: session ? feedsFor(session.inputs, feeds.after) : feeds.after };
    const outputs = session && (await session.run(fed.after, undefined, signal));
    const answer = measuredIn && (await elsewhere[measuredIn]({ before, after, feeds: fed, runs, maxMs }, signal));
    return describeDeployment({
      ...{ target, runtime, rules, answer, outputs },
      model: files.openWrittenModel(main),
      download:
        isDownloaded && weighed
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
