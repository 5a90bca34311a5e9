import { type Deployed, describeDeployment, type JobMetrics, type Model } from "../../../../core/index.ts";
import type { LocalFile } from "../../../../tasks/protocol.ts";
import { judgeDeployment, type MadeFor } from "../../quantize/run/deployment.ts";
import { type AnyTarget, deploymentFor } from "../../quantize/targets.ts";
import type { JobEnvironment } from "../../run/job-environment.ts";
import { timingShare } from "./clock.ts";
import type { Tried } from "./search.ts";
import { type MeasuredModels, ORIGINAL, type SearchRun } from "./search-run.ts";

/** Models of a search in the runtime that it is for, where that is another than onnxruntime on a CPU. */

/** A model beside the rules of a target; nothing is run. Undefined for onnxruntime on a CPU. */
export function checkedFor(target: AnyTarget, model: Model): Deployed | undefined {
  const deployment = deploymentFor(target);
  if (!deployment) return undefined;
  const { runtime, rules } = deployment;
  return describeDeployment({ target, runtime, rules, model, download: null });
}

/** Whether models for a target are timed in its own runtime, and not in onnxruntime. */
export function isTimedThere(target: AnyTarget): boolean {
  return deploymentFor(target)?.measuredIn !== undefined;
}

/** The latency that was measured in the runtime itself, in the form of that of onnxruntime; undefined where nothing was. */
export function latencyThere(
  { facts: { measured } }: Deployed,
  { batch_size, cpu }: Pick<JobMetrics["latency"], "batch_size" | "cpu">,
): JobMetrics["latency"] | undefined {
  if (!measured) return undefined;
  const { before, after, speedup, speedup_interval, threads, runs } = measured;
  return { before, after, speedup, speedup_interval, batch_size, threads, runs, cpu };
}

/** What a trial asks of the runtime of a target; undefined where it is not timed there. */
export async function triedIn(
  made: Omit<MadeFor, "weighed">,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<Deployed | undefined> {
  return isTimedThere(made.target) ? judgeDeployment({ ...made, weighed: false }, environment, signal) : undefined;
}

/**
 * The same measurements with what the target's runtime makes of each model: for one that can run here, speeds are those that it has there. The original is
 * only checked: it runs beside each of the others.
 */
export async function measuredInTarget(
  run: SearchRun,
  finalists: readonly (Tried & { readonly files: readonly LocalFile[] })[],
  measured: MeasuredModels,
): Promise<MeasuredModels> {
  const { target, request, environment, context, clock, search, steps } = run;
  const original = request.models[request.spec.model_id]!.files;
  const checked = checkedFor(target.target, environment.files.openModel(original));
  if (!checked) return measured;
  const deployed: [string, Deployed][] = [[ORIGINAL, checked]];
  const standings: MeasuredModels["finalists"][number][] = [];
  let reference = measured.original;
  const feeds = isTimedThere(target.target) ? await search.feeds() : { before: {}, after: {} };
  for (const [i, { name, files }] of finalists.entries()) {
    const standing = measured.finalists.find(([known]) => known === name)?.[1];
    if (!standing) {
      standings.push([name, null]);
      continue;
    }
    steps.progress("measure", i / finalists.length, `${name} in ${target.target}`);
    const { runs } = request.spec.evaluation.latency;
    const maxMs = timingShare(clock) / (finalists.length - i);
    const made = { target: target.target, before: original, after: files, feeds, runs, maxMs, weighed: true };
    const judged = (await judgeDeployment(made, environment, context.signal))!;
    deployed.push([name, judged]);
    const latency = latencyThere(judged, standing.latency);
    standings.push([name, { ...standing, latency: latency ?? standing.latency }]);
    if (latency && reference === measured.original) {
      const { before } = latency;
      const own = { ...latency, after: before, speedup: 1, speedup_interval: [1, 1] as const };
      reference = { ...reference, latency: own };
    }
  }
  return { original: reference, finalists: standings, deployed };
}
