import { isKeptApart, type LongTexts } from "../blobs/long-texts.ts";
import { methodOf, sourceModelId } from "../kinds/kinds.ts";
import { resourcesOf } from "../kinds/resources.ts";
import type { JobRecord, JobSummary } from "./job-store.ts";

/**
 * How a job lies in its hash in Redis: each field of the record as JSON, long ones kept apart; and under names that begin with `_` what scripts and
 * lists ask of a job, as text.
 */
export interface JobHash {
  /** Names and JSON texts of fields, in turn; what is long is kept apart. */
  encode(id: string, fields: Partial<JobRecord>): Promise<string[]>;
  /** Says that what is kept apart belongs to a record that is written. */
  settle(id: string, written: readonly string[]): Promise<void>;
  /** Lets go of all that is kept apart of a job whose record is not there. */
  release(id: string): Promise<void>;
  /** The record behind a hash; undefined for the empty hash of a job that does not exist. */
  decode(hash: Readonly<Record<string, string>>): Promise<JobRecord | undefined>;
}

/** What of a record grows with what was asked for or measured; the other fields are short. */
const LONG_FIELDS: ReadonlySet<string> = new Set<keyof JobRecord>(["spec", "sent_params", "steps", "result"]);

/** Claims the blobs of a job's long fields, as long as there is a record of it. */
const fieldsOwner = (id: string) => `record:${id}`;

/** `texts` is where long fields go. */
export function createJobHash(texts: LongTexts): JobHash {
  return {
    async encode(id, fields) {
      const pairs = Object.entries(fields).map(async ([name, value]) => [
        name,
        LONG_FIELDS.has(name) ? await texts.keep(fieldsOwner(id), JSON.stringify(value)) : JSON.stringify(value),
      ]);
      return (await Promise.all(pairs)).flat();
    },
    async settle(id, written) {
      if (written.some(isKeptApart)) await texts.settle(fieldsOwner(id));
    },
    release: (id) => texts.release(fieldsOwner(id)),
    async decode(hash) {
      if (hash._status === undefined) return undefined;
      const own = Object.entries(hash).filter(([name]) => !name.startsWith("_"));
      const fields = own.map(async ([name, kept]) => [name, JSON.parse(await texts.read(kept))]);
      const record = Object.fromEntries(await Promise.all(fields));
      // Jobs of earlier versions have no steps and no count of attempts that were handed back.
      return { steps: [], handed_back: 0, ...record, status: hash._status } as unknown as JobRecord;
    },
  };
}

/** Names and texts, in turn, of what scripts and lists ask of a new job. */
export function askedFields(job: JobRecord): string[] {
  const { models, datasets } = resourcesOf(job.spec);
  return [
    ...["_order", orderOf(job)],
    ...["_type", job.spec.type],
    ...["_method", methodOf(job.spec)],
    ...["_result", "null"],
    ...["_model", sourceModelId(job.spec)],
    ...(job.webhook === null ? [] : ["_webhook", ` ${job.webhook.events.join(" ")} `]),
    ...(job.deliver_to == null ? [] : ["_deliver", "1"]),
    ...["_resources", JSON.stringify([...models, ...datasets])],
  ];
}

/** The same, of the result that a job has come to. */
export function askedOfResult(result: NonNullable<JobRecord["result"]>): string[] {
  return ["_result", JSON.stringify(resultSummary(result))];
}

/** Newest first is descending text: an ISO time is as wide as any other. */
function orderOf(job: JobRecord): string {
  return `${job.created_at}/${job.id}`;
}

/** What lists tell of a job that is a field of its record. */
const SUMMARY_FIELDS = [
  "id",
  "name",
  "metadata",
  "priority",
  "created_at",
  "started_at",
  "finished_at",
  "retry_of",
  "attempt",
  "progress",
  "error",
] as const satisfies readonly (keyof JobRecord)[];

/** The fields of the hash that `summaryText` reads. */
export const LISTED_FIELDS = [...SUMMARY_FIELDS, "_status", "_type", "_method", "_model", "_result"] as const;

/**
 * The text of what lists tell of a job, of the values of its `LISTED_FIELDS`; undefined when the job is gone. One of a version that did not keep these
 * is told from its record, which `read` answers.
 */
export async function summaryText(
  values: readonly (string | null)[],
  read: () => Promise<JobRecord | undefined>,
): Promise<string | undefined> {
  const [status, type, method, model, result] = values.slice(SUMMARY_FIELDS.length);
  if (status == null) return undefined;
  if (type == null || method == null || model == null || result == null) {
    const job = await read();
    return job && JSON.stringify(summaryOf(job));
  }
  const fields = Object.fromEntries(SUMMARY_FIELDS.map((name, i) => [name, JSON.parse(values[i] ?? "null")]));
  return JSON.stringify({ ...fields, status, type, method, model_id: model, result: JSON.parse(result) });
}

function summaryOf(job: JobRecord): JobSummary {
  const { status, spec, result } = job;
  const fields = Object.fromEntries(SUMMARY_FIELDS.map((name) => [name, job[name]])) as Pick<
    JobRecord,
    (typeof SUMMARY_FIELDS)[number]
  >;
  return {
    ...fields,
    ...{ status, type: spec.type, method: methodOf(spec), model_id: sourceModelId(spec) },
    result: result && resultSummary(result),
  };
}

function resultSummary({ model_id, accepted }: NonNullable<JobRecord["result"]>): NonNullable<JobSummary["result"]> {
  return { model_id, accepted };
}
