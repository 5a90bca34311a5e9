import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { isTerminal } from "../jobs/job.ts";
import type { JobRecord } from "../jobs/job-store.ts";
import { askerOf } from "./connection.ts";
import type { ApiContext } from "./context.ts";

/** `Prefer: wait=N` (RFC 7240): an answer that comes when the job has ended, or after N seconds with the job as it is then. */

/** Proxies cut what is quiet for longer. */
const MAX_WAIT_S = 60;

export const PREFER = z
  .string()
  .optional()
  .meta({
    description: `\`wait=N\`: answer when the job has ended, or after N seconds (at most ${MAX_WAIT_S}) with the job as it is then. \`Preference-Applied\` in the answer says that it was taken.`,
  });

/** The seconds that a client wants to wait, as far as it may; undefined when it does not say, or says no number. */
function waitSecondsOf(prefer: string | undefined): number | undefined {
  for (const preference of (prefer ?? "").split(",")) {
    const [, seconds] = /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;|$)/i.exec(preference) ?? [];
    // Of a preference that is there twice the first one counts.
    if (seconds !== undefined) return Math.min(Number(seconds), MAX_WAIT_S);
  }
  return undefined;
}

/** The job once it has ended, or as it is when the client need not wait any longer. Says in the answer for how long it would have waited. */
export async function afterWait(
  { jobs, stopping }: Pick<ApiContext, "jobs" | "stopping">,
  job: JobRecord,
  prefer: string | undefined,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<JobRecord> {
  const seconds = waitSecondsOf(prefer);
  if (seconds === undefined || request.method === "HEAD") return job;
  reply.header("preference-applied", `wait=${seconds}`);
  if (isTerminal(job.status) || seconds === 0) return job;
  const signals = [AbortSignal.timeout(seconds * 1000), askerOf(request, reply).signal, stopping];
  await jobs.ended(job.id, AbortSignal.any(signals));
  return (await jobs.get(job.id)) ?? job;
}
