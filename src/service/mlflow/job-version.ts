import { stringify } from "yaml";
import type { ValueFacts } from "../../core/contract.ts";
import type { ModelRecord } from "../catalog.ts";
import type { JobRecord } from "../jobs/job-store.ts";
import { worstSqnrDb } from "../jobs/recorded-metrics.ts";
import { kindOf, methodOf, sourceModelId } from "../kinds/kinds.ts";
import { VERSIONS } from "../versions.ts";
import type { NewVersion } from "./registry.ts";

/** Files that are written beside the model, and which artifacts of the job they are. */
const REPORTS = ["report.html", "report.json"];

/** A file of the version: text, or what is stored under a sha256. */
export type VersionFile =
  | { readonly path: string; readonly text: string }
  | { readonly path: string; readonly sha256: string; readonly size_bytes: number };

export type JobVersion = Omit<NewVersion, "name" | "experiment" | "files"> & { readonly files: readonly VersionFile[] };

/** The version that a job which has succeeded makes of its model: `MLmodel`, files, numbers, and where it comes from. */
export function versionOf(job: JobRecord, model: ModelRecord): JobVersion {
  const { spec } = job;
  const { metrics, accepted, artifacts } = job.result!;
  const title = kindOf(spec).title(spec);
  const [onnx] = model.files;
  const reports = artifacts.filter(({ name }) => REPORTS.includes(name));
  return {
    key: { tag: "modelpress.job_id", value: job.id },
    title,
    description: `${title}, by job ${job.id} of modelpress ${VERSIONS.modelpress}.`,
    params: {
      type: spec.type,
      method: methodOf(spec),
      source_model_id: sourceModelId(spec),
      accepted: String(accepted),
    },
    metrics: numbersOf(metrics),
    tags: {
      "modelpress.version": VERSIONS.modelpress,
      "modelpress.method": methodOf(spec),
      "modelpress.model_id": model.id,
      "modelpress.model_sha256": model.sha256,
      "modelpress.accepted": String(accepted),
    },
    files: [
      { path: "MLmodel", text: mlmodelOf(model, onnx!.name, job) },
      ...[...model.files, ...reports].map(({ name, sha256, size_bytes }) => ({ path: name, sha256, size_bytes })),
    ],
  };
}

/** What is charted and compared in MLflow; what was not measured is left out. */
function numbersOf(metrics: NonNullable<JobRecord["result"]>["metrics"]): Record<string, number> {
  const { size, accuracy, latency, memory } = metrics;
  const numbers: Record<string, number | null | undefined> = {
    size_bytes: size.after_bytes,
    size_ratio: size.ratio,
    latency_ms: latency.after.p50_ms,
    speedup: latency.speedup,
    peak_memory_bytes: memory.after_peak_bytes,
    worst_sqnr_db: worstSqnrDb(metrics),
    ...(accuracy !== null && { [accuracy.metric]: accuracy.after, [`${accuracy.metric}_drop`]: accuracy.drop }),
  };
  return Object.fromEntries(
    Object.entries(numbers).filter((entry): entry is [string, number] => Number.isFinite(entry[1])),
  );
}

/** Element types that numpy has, whose names signatures use. */
const NUMPY_DTYPES = /^(bool|u?int(8|16|32|64)|float(16|32|64))$/;

/** What MLflow's `onnx` and `python_function` flavors load (mlflow.org/docs/latest/ml/model/#mlmodel-file-structure). */
function mlmodelOf(model: ModelRecord, data: string, job: JobRecord): string {
  const [inputs, outputs] = [model.facts.inputs, model.facts.outputs].map(schemaOf);
  return stringify({
    flavors: {
      onnx: { code: null, data, providers: ["CPUExecutionProvider"] },
      python_function: { data, loader_module: "mlflow.onnx" },
    },
    model_size_bytes: model.size_bytes,
    ...(inputs !== undefined && outputs !== undefined && { signature: { inputs, outputs, params: null } }),
    utc_time_created: job.finished_at!.replace("T", " ").replace("Z", ""),
  });
}

/** Tensors as MLflow's signatures have them: JSON in a text, unknown dimensions as -1. Undefined where a value cannot be said so. */
function schemaOf(values: readonly ValueFacts[]): string | undefined {
  const specs = values.map(({ name, dtype, shape }) => {
    if (dtype === null || shape === null || !NUMPY_DTYPES.test(dtype)) return undefined;
    const sizes = shape.map((size) => (typeof size === "number" ? size : -1));
    return { type: "tensor", "tensor-spec": { dtype, shape: sizes }, name };
  });
  return specs.includes(undefined) ? undefined : JSON.stringify(specs);
}
