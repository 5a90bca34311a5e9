import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { REPORT_POLICY } from "../../report/script.ts";
import { ServiceError } from "../errors.ts";
import type { JobRecord } from "../jobs/job-store.ts";
import { worstSqnrDb } from "../jobs/recorded-metrics.ts";
import { kindOf, methodOf, sourceModelId } from "../kinds/kinds.ts";
import { JobMetricsSchema } from "../kinds/metrics-schemas.ts";
import { JobStatus } from "../kinds/wire.ts";
import { Timestamp } from "../schemas.ts";
import { comparisonPage } from "./compare-page.ts";
import type { ApiContext } from "./context.ts";
import * as jobExamples from "./job-examples.ts";
import { defineOperation, route } from "./operation.ts";

/** Jobs side by side, as data and as a page. */

const MOST_JOBS = 20;

const ComparedMetrics = JobMetricsSchema.pick({
  ...{ size: true, accuracy: true, latency: true, memory: true, acceptance: true },
})
  .extend({
    worst_sqnr_db: z.number().nullable().meta({
      description: "Of the output that differs most from the original's; null where all are identical.",
    }),
    fidelity_data: z.string().meta({ description: "What it was found on, as in `metrics.fidelity.data`." }),
  })
  .meta({ id: "ComparedMetrics" });

const ComparedJob = z
  .object({
    job_id: z.string(),
    name: z.string().nullable(),
    type: z.string(),
    method: z.string(),
    title: z.string().meta({ description: "What the job does, in words." }),
    status: JobStatus,
    model_id: z.string().meta({ description: "What its result is a form of." }),
    result_model_id: z.string().nullable(),
    accepted: z.boolean().nullable().meta({ description: "Null for a job without a result." }),
    created_at: Timestamp,
    finished_at: Timestamp.nullable(),
    metrics: ComparedMetrics.nullable().meta({ description: "Null for a job without a result." }),
  })
  .meta({ id: "ComparedJob" });

const Comparison = z
  .object({
    jobs: z.array(ComparedJob).meta({ description: "In the order that was asked for." }),
    differences: z
      .array(z.object({ code: z.string(), message: z.string() }).meta({ id: "ComparisonDifference" }))
      .meta({
        description:
          "What keeps numbers from being compared: `models_differ`, `data_differ`, `metrics_differ`, `loads_differ`, `machines_differ`, or what later " +
          "versions add.",
      }),
  })
  .meta({ id: "Comparison" });

const idList = z
  .string()
  .max(2000)
  .regex(/^[^,\s]+(,[^,\s]+)*$/, "must be ids of jobs with commas between them");

const CompareQuery = z
  .strictObject({
    job_ids: idList.optional().meta({
      description: `Ids with commas between them, at most ${MOST_JOBS}.`,
      clientsMustSend: true,
    }),
    jobs: idList.optional().meta({ curlOnly: true }),
  })
  .refine((it) => (it.job_ids === undefined) !== (it.jobs === undefined), {
    path: ["job_ids"],
    error: "is required",
  });

const compareJobs = defineOperation({
  id: "compareJobs",
  method: "GET",
  path: "/v1/compare",
  tag: "Jobs",
  summary: "Compare jobs",
  description:
    "The numbers of several jobs side by side, and what keeps them from being compared. Jobs that have not ended are in it without numbers. " +
    "For the command line, `?jobs=` is the same.",
  access: "read",
  query: CompareQuery,
  responses: {
    200: { description: "The jobs.", content: { "application/json": Comparison }, example: jobExamples.comparison },
  },
  problems: ["not_found", "validation_failed"],
});

const getComparisonReport = defineOperation({
  id: "getComparisonReport",
  method: "GET",
  path: "/v1/compare/report",
  tag: "Jobs",
  summary: "Read a comparison of jobs",
  description: "The same as a page that needs nothing from the network.",
  access: "read",
  page: true,
  query: CompareQuery,
  responses: { 200: { description: "The page.", content: { "text/html": z.string() } } },
  problems: ["not_found", "validation_failed"],
});

export const COMPARE_OPERATIONS = [compareJobs, getComparisonReport];

export function registerComparison(app: FastifyInstance, { jobs }: ApiContext): void {
  /** The jobs that a query names. Throws `not_found` with all that are not there. */
  async function chosen({ job_ids, jobs: alias }: z.output<typeof CompareQuery>): Promise<readonly JobRecord[]> {
    const ids = [...new Set((job_ids ?? alias)!.split(","))];
    if (ids.length > MOST_JOBS) {
      const message = `#/query/job_ids: must have at most ${MOST_JOBS} entries.`;
      throw new ServiceError("validation_failed", message, {
        fields: [{ pointer: "#/query/job_ids", code: "too_large", message }],
      });
    }
    const found = await Promise.all(ids.map((id) => jobs.get(id)));
    const missing = ids.filter((_, i) => found[i] === undefined);
    if (missing.length > 0) throw new ServiceError("not_found", `There is no job ${missing.join(", ")}.`);
    return found.filter((job) => job !== undefined);
  }

  route(app, compareJobs, async ({ query }) => comparisonOf(await chosen(query)));

  route(app, getComparisonReport, async ({ query }, request: FastifyRequest, reply) => {
    const page = comparisonPage(comparisonOf(await chosen(query)));
    reply
      .header("content-type", "text/html; charset=utf-8")
      .header("content-security-policy", `sandbox allow-scripts; ${REPORT_POLICY}`)
      .removeHeader("origin-agent-cluster");
    return reply.send(request.method === "HEAD" ? "" : page);
  });
}

export type ComparisonOfJobs = ReturnType<typeof comparisonOf>;

function comparisonOf(jobs: readonly JobRecord[]) {
  return { jobs: jobs.map(comparedJob), differences: differencesOf(jobs) };
}

function comparedJob({ id, name, spec, status, created_at, finished_at, result }: JobRecord) {
  return {
    ...{ job_id: id, name, type: spec.type, method: methodOf(spec), title: kindOf(spec).title(spec), status },
    model_id: sourceModelId(spec),
    result_model_id: result?.model_id ?? null,
    accepted: result?.accepted ?? null,
    ...{ created_at, finished_at },
    metrics: result && comparedMetrics(result.metrics),
  };
}

function comparedMetrics(metrics: NonNullable<JobRecord["result"]>["metrics"]) {
  const { size, accuracy, latency, memory, acceptance, fidelity } = metrics;
  return {
    ...{ size, accuracy, latency, memory, acceptance },
    worst_sqnr_db: worstSqnrDb(metrics),
    fidelity_data: fidelity.data,
  };
}

/** Why the numbers of these jobs do not say which result is better. */
function differencesOf(jobs: readonly JobRecord[]) {
  const measured = jobs.filter(({ result }) => result !== null);
  const differ = (of: (job: JobRecord) => unknown, among: readonly JobRecord[] = measured) =>
    new Set(among.map((job) => JSON.stringify(of(job) ?? null))).size > 1;
  const metrics = ({ result }: JobRecord) => result!.metrics;
  const found: (readonly [boolean, string, string])[] = [
    [
      differ(({ spec }) => sourceModelId(spec), jobs),
      "models_differ",
      "The jobs start from different models: ratios and drops are against different originals.",
    ],
    [
      differ(({ spec, result }) => [spec.evaluation.dataset_id, result!.metrics.fidelity.data]),
      "data_differ",
      "The results were judged on different data.",
    ],
    [differ((job) => metrics(job).accuracy?.metric), "metrics_differ", "The results were judged by different metrics."],
    [
      differ((job) => [metrics(job).latency.batch_size, metrics(job).latency.threads]),
      "loads_differ",
      "Latency was measured with different batch sizes or numbers of threads.",
    ],
    [differ((job) => metrics(job).latency.cpu), "machines_differ", "Latency was measured on different processors."],
  ];
  return found.flatMap(([holds, code, message]) => (holds ? [{ code, message }] : []));
}
