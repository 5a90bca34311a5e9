import { join } from "node:path";
import type { DatasetFacts, LayerFacts, ModelFacts } from "../../core/contract.ts";
import type { JobPlan, LocalFile, TaskKind, Tasks } from "../../tasks/protocol.ts";
import { makeFolder } from "../blobs/fs.ts";
import type { CatalogFile, DatasetRecord, ModelRecord } from "../catalog.ts";
import type { FieldError } from "../errors.ts";
import { canonicalJson } from "../identity.ts";
import type { NamedExclusions } from "../kinds/exclusions.ts";
import type { JobSpec } from "../kinds/kinds.ts";
import type { ApiContext } from "./context.ts";
import { type Asker, createInspectionLane, type InspectionLane } from "./inspection-lane.ts";
import { createKeptAnswers } from "./kept-answers.ts";

/**
 * Looks into uploads and models, in child processes: nothing here parses a model or a dataset. Uploads and questions about what is there
 * already have lanes of their own, so that neither can shut out the other; askers take turns in each. What is asked of a stored model
 * again is answered from what was found before. All end with who asks.
 */
export interface Inspector {
  /** The facts of an upload. */
  upload(asker: Asker, files: readonly CatalogFile[], copy: CopyFile): Promise<ModelFacts>;
  /** The facts of an upload that is a dataset. */
  dataset(asker: Asker, file: CatalogFile, spec: unknown, copy: CopyFile): Promise<DatasetFacts>;
  /** The facts of a stored model with sizes for its symbolic dimensions. */
  model(asker: Asker, model: ModelRecord, dims: Readonly<Record<string, number>>): Promise<ModelFacts>;
  layers(asker: Asker, model: ModelRecord): Promise<readonly LayerFacts[]>;
  /** The names among them that nothing in the model has. */
  exclusions(asker: Asker, model: ModelRecord, exclude: NamedExclusions): Promise<readonly FieldError[]>;
  plan(
    asker: Asker,
    spec: JobSpec,
    models: readonly ModelRecord[],
    datasets: readonly DatasetRecord[],
  ): Promise<JobPlan>;
}

/** Copies a file to `path`. */
export type CopyFile = (file: CatalogFile, path: string) => Promise<void>;

/** Of the memory of all inspections, what uploads get; questions get the rest. */
const UPLOAD_SHARE = 2 / 3;
/** Of answers about models, in this process. */
const KEPT_BYTES = 32 * 1024 * 1024;

export function createInspector({ blobs, tasks, settings, stopping, keys }: ApiContext): Inspector {
  const { inspectConcurrency, inspectMemoryBytes, inspectTimeoutMs } = settings;
  const uploads = createInspectionLane({
    what: "uploads are being inspected",
    slots: inspectConcurrency,
    memoryBytes: Math.floor(inspectMemoryBytes * UPLOAD_SHARE),
    // Without keys there is nobody else.
    slotsPerKey: keys.open ? inspectConcurrency : Math.max(1, inspectConcurrency - 1),
  });
  const questions = createInspectionLane({
    what: "questions about models are being answered",
    slots: 1,
    memoryBytes: inspectMemoryBytes - Math.floor(inspectMemoryBytes * UPLOAD_SHARE),
    slotsPerKey: 1,
  });
  const kept = createKeptAnswers(KEPT_BYTES);

  /** Runs a task on copies of `files` below a directory that is gone afterwards. */
  function inspect<K extends TaskKind>(
    lane: InspectionLane,
    asker: Asker,
    kind: K,
    folders: Readonly<Record<string, readonly CatalogFile[]>>,
    requestOf: (local: Readonly<Record<string, readonly LocalFile[]>>) => Tasks[K]["request"],
    copy: CopyFile = blobs.materialize,
  ): Promise<Tasks[K]["result"]> {
    const bytes = Object.values(folders)
      .flat()
      .reduce((sum, { size_bytes }) => sum + size_bytes, 0);
    const signal = AbortSignal.any([asker.signal, stopping]);
    return lane.run({ ...asker, signal }, bytes, (memoryBytes) =>
      tasks.withRoom(async ({ directory, run }) => {
        const local: Record<string, LocalFile[]> = {};
        for (const [name, files] of Object.entries(folders)) {
          const folder = await makeFolder(directory, name);
          local[name] = files.map((file) => ({ name: file.name, path: join(folder, file.name) }));
          await Promise.all(files.map((file) => copy(file, join(folder, file.name))));
        }
        return run(kind, requestOf(local), { limits: { timeoutMs: inspectTimeoutMs, memoryBytes }, signal });
      }, signal),
    );
  }

  return {
    upload: (asker, files, copy) =>
      inspect(uploads, asker, "inspect_model", { model: files }, (local) => ({ files: local.model!, dims: {} }), copy),
    dataset: (asker, file, spec, copy) =>
      inspect(
        uploads,
        asker,
        "inspect_dataset",
        { dataset: [file] },
        (local) => ({ file: local.dataset![0]!, spec }),
        copy,
      ),
    model: (asker, { sha256, files }, dims) =>
      kept.ask(canonicalJson(["facts", sha256, dims]), asker, (all) =>
        inspect(questions, all, "inspect_model", { model: files }, (local) => ({ files: local.model!, dims })),
      ),
    layers: (asker, { sha256, files }) =>
      kept.ask(canonicalJson(["layers", sha256]), asker, (all) =>
        inspect(questions, all, "list_layers", { model: files }, (local) => ({ files: local.model! })),
      ),
    exclusions: (asker, { files }, exclude) =>
      inspect(questions, asker, "check_exclusions", { model: files }, (local) => ({ files: local.model!, exclude })),
    plan: (asker, spec, models, datasets) =>
      inspect(
        questions,
        asker,
        "plan_job",
        Object.fromEntries([
          ...models.map(({ id, files }) => [id, files]),
          ...datasets.map(({ id, file }) => [id, [file]]),
        ]),
        (local) => ({
          spec,
          models: Object.fromEntries(models.map(({ id, facts }) => [id, { files: local[id]!, facts }])),
          datasets: Object.fromEntries(
            datasets.map(({ id, spec, facts }) => [id, { file: local[id]![0]!, spec, facts }]),
          ),
        }),
      ),
  };
}
