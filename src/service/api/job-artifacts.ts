import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import { REPORT_POLICY } from "../../report/script.ts";
import { ServiceError } from "../errors.ts";
import type { JobRecord } from "../jobs/job-store.ts";
import { kindOf, sourceModelId } from "../kinds/kinds.ts";
import { Timestamp } from "../schemas.ts";
import type { ApiContext } from "./context.ts";
import { blobDownload, DIGEST_HEADER, DOWNLOAD_HEADERS, DownloadHeaders, sendDownload } from "./download.ts";
import { artifactFileName } from "./download-names.ts";
import * as examples from "./examples.ts";
import { JobParams } from "./job-schemas.ts";
import { defineOperation, route } from "./operation.ts";

/** The files that jobs have made, and links that open them without a key. */

const REPORT = "report.html";
const MAX_LINK_S = 7 * 24 * 60 * 60;

const ArtifactParams = z.object({ job_id: z.string(), name: z.string() });

const LinkedArtifact = z
  .strictObject({
    artifact: z
      .string()
      .max(255)
      .default(REPORT)
      .meta({ description: "By its name in `result.artifacts`. `report.html` is opened as a page." }),
    expires_in_s: z.int().min(1).max(MAX_LINK_S).default(3600).meta({ description: "At most 7 days." }),
  })
  .meta({ id: "LinkedArtifact" });

const Link = z
  .object({
    url: z.string().meta({ description: "Absolute. It opens this file, and nothing else, without a key." }),
    expires_at: Timestamp,
  })
  .meta({ id: "Link" });

const createJobLink = defineOperation({
  id: "createJobLink",
  method: "POST",
  path: "/v1/jobs/{job_id}/links",
  tag: "Jobs",
  summary: "Make a link to a file of a job",
  description:
    "For browsers, chats and people without a key: the link opens the report or one other artifact until it expires. It cannot be taken back " +
    "before, other than by deleting the job.",
  access: "read",
  params: JobParams,
  body: LinkedArtifact,
  responses: { 201: { description: "The link.", content: { "application/json": Link }, example: examples.link } },
  problems: ["not_found", "validation_failed", "unsupported_media_type", "too_large"],
  examples: { report: { artifact: REPORT, expires_in_s: 86_400 }, model: { artifact: "model.onnx" } },
});

const FILE_RESPONSES = (mediaType: string) => ({
  200: {
    description: "All bytes.",
    content: { [mediaType]: null },
    headers: { ...DOWNLOAD_HEADERS, ...DIGEST_HEADER },
  },
  206: {
    description: "The bytes that Range asks for.",
    content: { [mediaType]: null },
    headers: { ...DOWNLOAD_HEADERS, ...DIGEST_HEADER, "Content-Range": "Which bytes these are." },
  },
  304: { description: "The bytes are the ones that If-None-Match names." },
});

const downloadJobArtifact = defineOperation({
  id: "downloadJobArtifact",
  method: "GET",
  path: "/v1/jobs/{job_id}/artifacts/{name}",
  tag: "Jobs",
  summary: "Download a file that a job made",
  description:
    "By its name in `result.artifacts`. Whatever it is, it comes as bytes to be saved; `media_type` there says what it is. It is to be saved " +
    "under the name of the model that the job has made. A link of `createJobLink` needs no key.",
  access: "read",
  linked: true,
  params: ArtifactParams,
  headers: DownloadHeaders,
  responses: FILE_RESPONSES("application/octet-stream"),
  problems: ["not_found", "range_not_satisfiable", "invalid_link"],
});

const getJobReport = defineOperation({
  id: "getJobReport",
  method: "GET",
  path: "/v1/jobs/{job_id}/report",
  tag: "Jobs",
  summary: "Read a job's report",
  description:
    "A page that needs nothing from the network. Its numbers are the artifact `report.json`. A link of `createJobLink` needs no key.",
  access: "read",
  page: true,
  linked: true,
  params: JobParams,
  headers: DownloadHeaders,
  responses: FILE_RESPONSES("text/html"),
  problems: ["not_found", "range_not_satisfiable", "invalid_link"],
});

export const JOB_FILE_OPERATIONS = [createJobLink, downloadJobArtifact, getJobReport];

/** Where an artifact is, below the service. */
export function artifactPath(jobId: string, name: string): string {
  return `/v1/jobs/${jobId}/artifacts/${encodeURIComponent(name)}`;
}

/** The file that a request of a linked operation is for. */
export function linkedFileOf({ params }: FastifyRequest): { readonly jobId: string; readonly artifact: string } {
  const { job_id, name } = params as { readonly job_id: string; readonly name?: string };
  return { jobId: job_id, artifact: name ?? REPORT };
}

/** What the service is called from outside: as its operator says, or as this client calls it. */
function originOf(request: FastifyRequest, { publicUrl }: ApiContext["settings"]): string {
  return publicUrl ?? `${request.protocol}://${request.host}`;
}

export function registerJobFiles(app: FastifyInstance, { jobs, catalog, blobs, links, settings }: ApiContext): void {
  /** An artifact, and what it is saved as. */
  async function artifact(jobId: string, name: string) {
    const job = await jobs.get(jobId);
    if (job === undefined) throw new ServiceError("not_found", `There is no job ${jobId}.`);
    const found = job.result?.artifacts.find((it) => it.name === name);
    if (found === undefined)
      throw new ServiceError("not_found", `Job ${jobId} is ${job.status} and has no artifact ${name}.`);
    return { found, filename: artifactFileName(name, await madeName(job)) };
  }

  /** The name of the model that a job has made, or the one that it would have where it was deleted. */
  async function madeName({ spec, result }: JobRecord): Promise<string | undefined> {
    const made = await catalog.models.get(result!.model_id);
    if (made !== undefined) return made.name;
    const source = await catalog.models.get(sourceModelId(spec));
    return source && `${source.name} ${kindOf(spec).made(spec)}`;
  }

  route(app, createJobLink, async ({ params, body }, request, reply) => {
    const file = { jobId: params.job_id, artifact: body.artifact };
    await artifact(file.jobId, file.artifact);
    const until = new Date(Math.ceil(Date.now() / 1000 + body.expires_in_s) * 1000);
    const query = await links.sign(file, until);
    const path = file.artifact === REPORT ? `/v1/jobs/${file.jobId}/report` : artifactPath(file.jobId, file.artifact);
    return reply
      .code(201)
      .send({ url: `${originOf(request, settings)}${path}?${query}`, expires_at: until.toISOString() });
  });

  route(app, downloadJobArtifact, async ({ params }, request, reply) => {
    const { found, filename } = await artifact(params.job_id, params.name);
    const look = { filename, mediaType: "application/octet-stream" };
    return sendDownload(request, reply, blobDownload(blobs, found, look));
  });

  route(app, getJobReport, async ({ params }, request, reply) => {
    const { found, filename } = await artifact(params.job_id, REPORT);
    // It names what the uploaded model contains: it may look as it likes and sort its tables, in an origin of its own, but reach nothing.
    reply.header("content-security-policy", `sandbox allow-scripts; ${REPORT_POLICY}`);
    // Browsers complain when such an origin is to have a process by its name.
    reply.removeHeader("origin-agent-cluster");
    const look = { filename, mediaType: "text/html; charset=utf-8", inline: true };
    return sendDownload(request, reply, blobDownload(blobs, found, look));
  });
}
