import { join } from "node:path";
import type { DatasetFacts, Exclusions, LayerFacts, ModelFacts } from "../../core/index.ts";
import type { JobPlan, LocalFile, TaskKind, Tasks } from "../../tasks/protocol.ts";
import { withScratch } from "../blobs/fs.ts";
import type { CatalogFile, DatasetRecord, ModelRecord } from "../catalog.ts";
import { type FieldError, ServiceError } from "../errors.ts";
import type { JobSpec } from "../jobs/spec.ts";
import type { ApiContext } from "./context.ts";

/**
 * Looks into uploads, in child processes: nothing here parses a model or a dataset. A few run at the same time, some
 * more wait their turn, the rest is told to come back.
 */
export interface Inspector {
  model(files: readonly CatalogFile[], dims?: Readonly<Record<string, number>>): Promise<ModelFacts>;
  layers(files: readonly CatalogFile[]): Promise<readonly LayerFacts[]>;
  dataset(file: CatalogFile, spec: unknown): Promise<DatasetFacts>;
  /** The names among them that nothing in the model has. */
  exclusions(model: ModelRecord, exclude: Exclusions): Promise<readonly FieldError[]>;
  plan(spec: JobSpec, models: readonly ModelRecord[], datasets: readonly DatasetRecord[]): Promise<JobPlan>;
}

/** Waiting uploads hold a connection and disk space each. */
const MAX_WAITING = 32;

export function createInspector({ blobs, tasks, settings, stopping }: ApiContext): Inspector {
  const slots = createSlots(settings.inspectConcurrency);

  /** Runs a task on copies of `files` below a directory that is gone afterwards. */
  function inspect<K extends TaskKind>(
    kind: K,
    folders: Readonly<Record<string, readonly CatalogFile[]>>,
    requestOf: (local: Readonly<Record<string, readonly LocalFile[]>>) => Tasks[K]["request"],
  ): Promise<Tasks[K]["result"]> {
    return slots.run(() =>
      withScratch(settings.scratchDir, async (scratch) => {
        const local: Record<string, LocalFile[]> = {};
        for (const [name, files] of Object.entries(folders)) {
          const folder = await scratch.folder(name);
          local[name] = files.map((file) => ({ name: file.name, path: join(folder, file.name) }));
          await Promise.all(files.map((file) => blobs.materialize(file, join(folder, file.name))));
        }
        return tasks.run(kind, requestOf(local), { limits: settings.inspectLimits, signal: stopping });
      }),
    );
  }

  return {
    model: (files, dims = {}) => inspect("inspect_model", { model: files }, (local) => ({ files: local.model!, dims })),
    layers: (files) => inspect("list_layers", { model: files }, (local) => ({ files: local.model! })),
    exclusions: ({ files }, exclude) =>
      inspect("check_exclusions", { model: files }, (local) => ({ files: local.model!, exclude })),
    dataset: (file, spec) =>
      inspect("inspect_dataset", { dataset: [file] }, (local) => ({ file: local.dataset![0]!, spec })),
    plan: (spec, models, datasets) =>
      inspect(
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

/** Lets `count` tasks run at the same time. */
function createSlots(count: number) {
  let free = count;
  const waiting: (() => void)[] = [];
  return {
    async run<T>(task: () => Promise<T>): Promise<T> {
      if (free > 0) free--;
      else if (waiting.length >= MAX_WAITING) {
        throw new ServiceError("unavailable", "Too many uploads are being inspected.", { retryAfterSeconds: 10 });
      } else await new Promise<void>((resolve) => waiting.push(resolve));
      try {
        return await task();
      } finally {
        const next = waiting.shift();
        if (next === undefined) free++;
        else next();
      }
    },
  };
}
