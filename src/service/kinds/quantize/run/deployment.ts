/** What a result is like in the runtime that it was made for. */
import { type Deployed, describeDeployment, type Feeds, feedsFor, type JobMetrics } from "../../../../core/index.ts";
import type { LocalFile } from "../../../../tasks/protocol.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import type { QuantizeSpec } from "../spec.ts";
import { deploymentOf } from "../targets.ts";

export interface MadeFor {
  readonly spec: QuantizeSpec;
  readonly before: readonly LocalFile[];
  readonly after: readonly LocalFile[];
  /** What both models were fed while latency was measured. */
  readonly feeds: { readonly before: Feeds; readonly after: Feeds };
}

/**
 * Checks the written result against the rules of its target and, where the runtime of that can be here, runs it there beside the original. Undefined
 * for onnxruntime on a CPU. Throws `cancelled`.
 */
export async function judgeDeployment(
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
export function withDeployment(metrics: JobMetrics, deployed: Deployed | undefined): JobMetrics {
  if (!deployed) return metrics;
  return {
    ...metrics,
    deployment: deployed.facts,
    warnings: [...metrics.warnings, ...deployed.warnings],
    acceptance: [...metrics.acceptance, ...deployed.acceptance],
  };
}
