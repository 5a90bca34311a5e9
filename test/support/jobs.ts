import { uuidv7 } from "uuidv7";
import type { JobRecord } from "../../src/service/jobs/job-store.ts";
import { Acceptance, Evaluation, type JobSpec, QuantizeParams } from "../../src/service/jobs/spec.ts";

/** A float16 job with every default, as the API would record it. */
export function queuedJob(fields: Partial<JobRecord> & { model_id?: string; dataset_id?: string } = {}): JobRecord {
  const { model_id = "mdl_a", dataset_id, ...rest } = fields;
  const sent = { method: "float16" };
  const spec: JobSpec = {
    type: "quantize",
    model_id,
    params: QuantizeParams.parse(sent),
    evaluation: Evaluation.parse({ dataset_id: dataset_id ?? null }),
    acceptance: Acceptance.parse({}),
  };
  return {
    id: `job_${uuidv7()}`,
    status: "queued",
    spec,
    sent_params: sent,
    name: null,
    metadata: {},
    priority: 5,
    webhook: null,
    created_at: new Date().toISOString(),
    started_at: null,
    finished_at: null,
    retry_of: null,
    attempt: 0,
    progress: null,
    result: null,
    error: null,
    ...rest,
  };
}
