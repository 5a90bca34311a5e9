import { createReadStream } from "node:fs";
import { lstat, mkdir, realpath } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import type { BlobStore } from "../src/service/blobs/blob-store.ts";
import type { BlobClaims } from "../src/service/blobs/claims.ts";
import { type Catalog, type CatalogFile, newId } from "../src/service/catalog.ts";
import { ServiceError } from "../src/service/errors.ts";
import { bundleSha256, madeIdentity } from "../src/service/identity.ts";
import type { Artifact, FinishedStep } from "../src/service/jobs/job.ts";
import { type JobSpec, kindOf } from "../src/service/kinds/kinds.ts";
import type { SingleSpec } from "../src/service/kinds/pipeline/steps.ts";
import { resourcesOf } from "../src/service/kinds/resources.ts";
import type { JobInputs, JobOutcome, LocalFile, ProducedFile } from "../src/tasks/protocol.ts";

/** Moves bytes between the blob store and a job's directory: the child sees local files only. */
export interface JobFiles {
  /** Brings the models and the datasets that a spec names into `directory`; with `modelIds` these models and no others. */
  fetchInputs(spec: JobSpec, directory: string, modelIds?: readonly string[]): Promise<JobInputs>;
  /**
   * Stores what a job, or a step of it, has made below `directory`, claimed by the job, and adds the model to the catalog. The same bytes
   * made twice of one model are one model. `outcome` has a model: see `publishReports`.
   */
  publish(
    jobId: string,
    origin: Origin,
    outcome: JobOutcome,
    directory: string,
    signal: AbortSignal,
  ): Promise<Published>;
  /** Stores reports below `directory`, claimed by the job. */
  publishReports(
    jobId: string,
    reports: readonly ProducedFile[],
    directory: string,
    signal: AbortSignal,
  ): Promise<readonly Artifact[]>;
  /** Those of the steps, up to the first whose model was deleted. */
  keptSteps(steps: readonly FinishedStep[]): Promise<readonly FinishedStep[]>;
  /** Takes back what was stored for a job that ends without a result, and those of its models that the catalog did not have before. */
  withdraw(jobId: string, models: readonly Pick<Published, "modelId" | "created">[]): Promise<void>;
}

/** What a model was made of, and what is put behind the name of that to name it. */
export interface Origin {
  readonly sourceId: string;
  readonly made: string;
}

/** Where the model comes from that a job of one child makes. */
export function originOf(spec: SingleSpec): Origin {
  const kind = kindOf(spec);
  return { sourceId: kind.sourceModelId(spec), made: kind.made(spec) };
}

export interface Published {
  readonly modelId: string;
  /** False when the catalog had this model before. */
  readonly created: boolean;
  /** The model's files. */
  readonly model: readonly Artifact[];
  readonly reports: readonly Artifact[];
}

/** Beyond what is computed with: logs, reports, checkpoints. */
const SPARE_BYTES = 64 * 2 ** 20;
/** Copies of a model that a job may have on its disk at a time: the input, the result, and one that is tried. */
const MODEL_COPIES = 3;

export function createJobFiles(deps: {
  blobs: BlobStore;
  claims: BlobClaims;
  catalog: Catalog;
  /** Bytes that are free where a directory is. */
  freeBytes: (directory: string) => Promise<number>;
}): JobFiles {
  const { blobs, claims, catalog, freeBytes } = deps;

  /** Throws `unavailable`: it is not the job's fault that it came to a machine without room for it. */
  async function checkSpace(directory: string, models: number, datasets: number): Promise<void> {
    const needed = MODEL_COPIES * models + datasets + SPARE_BYTES;
    const free = await freeBytes(directory);
    if (free >= needed) return;
    const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
    throw new ServiceError("unavailable", `The job needs ${mib(needed)} of disk, and its worker has ${mib(free)}.`);
  }

  async function fetch(files: readonly CatalogFile[], directory: string): Promise<LocalFile[]> {
    return Promise.all(
      files.map(async (file) => {
        const path = join(directory, file.name);
        await mkdir(dirname(path), { recursive: true });
        await blobs.materialize(file, path);
        return { name: file.name, path };
      }),
    );
  }

  async function store(
    file: ProducedFile,
    root: string,
    owners: readonly string[],
    signal: AbortSignal,
  ): Promise<CatalogFile> {
    signal.throwIfAborted();
    await checkProduced(file, root);
    const ref = await blobs.put(createReadStream(file.path), {
      maxBytes: Number.MAX_SAFE_INTEGER, // The disk it was written to has set the limit.
      signal,
      claim: async (ref) => {
        for (const owner of owners) await claims.claim(owner, ref);
      },
    });
    return { ...ref, name: file.name };
  }

  async function publishReports(
    jobId: string,
    reports: readonly ProducedFile[],
    directory: string,
    signal: AbortSignal,
  ): Promise<Artifact[]> {
    const root = await realpath(directory);
    const artifacts: Artifact[] = [];
    for (const file of reports) {
      artifacts.push({ ...(await store(file, root, [jobId], signal)), media_type: file.media_type });
    }
    return artifacts;
  }

  return {
    async fetchInputs(spec, directory, modelIds) {
      const resources = resourcesOf(spec);
      const modelRecords = await recordsOf(modelIds ?? resources.models, catalog.models);
      const datasetRecords = await recordsOf(resources.datasets, catalog.datasets);
      await mkdir(directory, { recursive: true });
      await checkSpace(
        directory,
        sum(modelRecords.flatMap((it) => it.files)),
        sum(datasetRecords.map((it) => it.file)),
      );
      const models: Record<string, JobInputs["models"][string]> = {};
      for (const { id, files, facts, name, sha256 } of modelRecords) {
        models[id] = { files: await fetch(files, join(directory, id)), facts, name, sha256 };
      }
      const datasets: Record<string, JobInputs["datasets"][string]> = {};
      for (const { id, file, spec, facts } of datasetRecords) {
        const [local] = await fetch([file], join(directory, id));
        datasets[id] = { file: local!, spec, facts };
      }
      return { spec, models, datasets };
    },

    async publish(jobId, { sourceId, made }, outcome, directory, signal) {
      const root = await realpath(directory);
      const id = newId("mdl");
      try {
        const files: CatalogFile[] = [];
        for (const file of outcome.model) files.push(await store(file, root, [id, jobId], signal));
        const reports = await publishReports(jobId, outcome.reports, directory, signal);
        signal.throwIfAborted();
        // Before there is a model: after that nothing may fail any more.
        await claims.settle(jobId);
        const sha256 = bundleSha256(files);
        const source = await catalog.models.get(sourceId);
        const { record, created } = await catalog.models.add({
          id,
          identity: madeIdentity(sha256, sourceId),
          content: sha256,
          name: `${source?.name ?? sourceId} ${made}`.slice(0, 200),
          created_at: new Date().toISOString(),
          sha256,
          size_bytes: files.reduce((sum, file) => sum + file.size_bytes, 0),
          files,
          facts: outcome.facts,
          derived_from: { job_id: jobId, model_id: sourceId },
          metadata: {},
        });
        const model = outcome.model.map((file, i): Artifact => ({ ...files[i]!, media_type: file.media_type }));
        return { modelId: record.id, created, model, reports };
      } catch (error) {
        await claims.abandon(id);
        throw error;
      }
    },

    async publishReports(jobId, reports, directory, signal) {
      const artifacts = await publishReports(jobId, reports, directory, signal);
      await claims.settle(jobId);
      return artifacts;
    },

    async keptSteps(steps) {
      const models = await Promise.all(steps.map(({ model_id }) => catalog.models.get(model_id)));
      const lost = models.indexOf(undefined);
      return lost < 0 ? steps : steps.slice(0, lost);
    },

    async withdraw(jobId, models) {
      for (const { created, modelId } of models) if (created) await catalog.models.withdraw(modelId);
      await claims.release(jobId);
    },
  };
}

/** Throws `not_found` for the first that is not there. */
async function recordsOf<R>(
  ids: readonly string[],
  { get }: { get(id: string): Promise<R | undefined> },
): Promise<R[]> {
  const records: R[] = [];
  for (const id of ids) {
    const record = await get(id);
    if (record === undefined) throw missing(id);
    records.push(record);
  }
  return records;
}

const sum = (files: readonly CatalogFile[]) => files.reduce((total, { size_bytes }) => total + size_bytes, 0);

function missing(id: string): ServiceError {
  return new ServiceError("not_found", `${id} was deleted before the job has read it.`);
}

/** A child that was taken over by its model must not be able to publish other files of this machine. */
export async function checkProduced({ name, path }: LocalFile, root: string): Promise<void> {
  const segments = name.split("/");
  if (/[\\\p{C}]/u.test(name) || segments.some((segment) => segment === "" || segment === "." || segment === "..")) {
    throw new ServiceError("internal", "The job made a file with a name that cannot be used.");
  }
  const real = await realpath(path);
  if (!real.startsWith(root + sep) || !(await lstat(path)).isFile()) {
    throw new ServiceError("internal", `The job named a file that is not its own: ${name}.`);
  }
}
