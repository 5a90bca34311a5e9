import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JobMetrics, QuantizePlan } from "../../src/core/index.ts";
import type { Model } from "../../src/core/onnx/ir.ts";
import { modelToBytes } from "../../src/core/onnx/save.ts";
import type { Report } from "../../src/report/report.ts";
import { JobRequest } from "../../src/service/api/job-schemas.ts";
import { QUANTIZE_RUN, runQuantizeJob } from "../../src/service/kinds/quantize/run/quantize-job.ts";
import type { QuantizeSpec } from "../../src/service/kinds/quantize/spec.ts";
import type { JobEnvironment } from "../../src/service/kinds/run/job-environment.ts";
import type { JobContext } from "../../src/service/kinds/run/job-steps.ts";
import type { JobRequest as TaskJobRequest } from "../../src/tasks/protocol.ts";
import { openWrittenModel } from "../../workers/model-files.ts";
import { ENVIRONMENT, TASK_HANDLERS } from "../../workers/tasks.ts";
import { factsSaying } from "./jobs.ts";

export interface QuantizeJobOptions {
  readonly params: Readonly<Record<string, unknown>>;
  readonly evaluation?: Readonly<Record<string, unknown>>;
  /** Bytes of a dataset to judge by, and its name. */
  readonly dataset?: Uint8Array;
  readonly environment?: Partial<JobEnvironment>;
}

type Request = TaskJobRequest<QuantizeSpec>;

/** Calls `use` with a job on a model, on two samples unless asked for more. */
async function withJob<T>(
  model: Model,
  { params, evaluation = {}, dataset }: QuantizeJobOptions,
  use: (request: Request, context: JobContext) => Promise<T>,
): Promise<T> {
  const scratch = await mkdtemp(join(tmpdir(), "job-"));
  try {
    const path = join(scratch, "original.onnx");
    await writeFile(path, modelToBytes(model));
    const data = { name: "data.npz", path: join(scratch, "data.npz") };
    if (dataset) await writeFile(data.path, dataset);
    const spec = JobRequest.parse({
      type: "quantize",
      model_id: "mdl_1",
      params,
      evaluation: {
        ...{ samples: 2, latency: { runs: 1 } },
        ...(dataset && { dataset_id: "dst_1" }),
        ...evaluation,
      },
    }) as unknown as QuantizeSpec;
    const files = [{ name: "original.onnx", path }];
    const context = { signal: new AbortController().signal, news: () => {} };
    const facts = await TASK_HANDLERS.inspect_model({ files, dims: {} }, context).catch(() => factsSaying("nothing"));
    const found = dataset && (await TASK_HANDLERS.inspect_dataset({ file: data, spec: null }, context));
    const request: Request = {
      spec,
      models: { mdl_1: { files, facts } },
      datasets: found ? { dst_1: { file: data, spec: null, facts: found } } : {},
      job_id: "job_1",
      scratch,
      threads: 1,
      checkpoints: {},
      cached: {},
      steps: [],
    };
    return await use(request, context);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

export interface Quantized {
  readonly model: Model;
  readonly metrics: JobMetrics;
  readonly report: Report;
}

/** What `runQuantizeJob` makes of a model in this process. */
export function quantizeJob(model: Model, options: QuantizeJobOptions): Promise<Quantized> {
  return withJob(model, options, async (request, context) => {
    const outcome = await runQuantizeJob(request, { ...ENVIRONMENT, ...options.environment }, context);
    // External data would be gone with the directory; models of tests have none.
    const { path } = outcome.reports.find(({ name }) => name === "report.json")!;
    const report = JSON.parse(await readFile(path, "utf8"));
    return { model: openWrittenModel(outcome.model[0]!.path), metrics: outcome.metrics, report };
  });
}

/** What is planned for the same job. */
export function quantizePlan(model: Model, options: QuantizeJobOptions): Promise<QuantizePlan> {
  return withJob(model, options, (request, context) =>
    QUANTIZE_RUN.plan(request, { ...ENVIRONMENT, ...options.environment }, context),
  ) as Promise<QuantizePlan>;
}
