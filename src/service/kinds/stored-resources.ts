import type { DatasetRecord, ModelRecord } from "../catalog.ts";

/** What is recorded of the models and datasets that a spec names, by id; what does not exist is not there. */
export interface StoredResources {
  readonly models: ReadonlyMap<string, ModelRecord>;
  readonly datasets: ReadonlyMap<string, DatasetRecord>;
}
