import type { Artifact } from "../../src/service/jobs/job.ts";
import { artifactName, withModelIds } from "../../src/service/kinds/auto/model-ids.ts";
import type { AutoSpec } from "../../src/service/kinds/auto/spec.ts";
import type { Published } from "../job-files.ts";
import { type Conduct, WHOLE } from "./conduct.ts";

/** One child tries many compressions; the models of the front are stored, and the recommended one is the result. */
export const conductSearch: Conduct<AutoSpec> = (spec, { job, perform, files, signal }) =>
  perform({ spec, ...WHOLE }, async (outcome, scratch) => {
    const stored = new Map<string, Published>();
    const models: Artifact[] = [];
    for (const { name, files: model, facts, renamed } of outcome.front ?? []) {
      const made = { ...outcome, model, facts, reports: [] };
      const origin = { sourceId: spec.model_id, made: name };
      const published = await files.publish(job.id, origin, made, scratch, signal);
      stored.set(name, published);
      const [main, ...data] = published.model.map((it) => ({ ...it, name: artifactName(name, it.name) }));
      // As the model's own files are it would look for its data under the name that they have there.
      const first = renamed ? await files.publishReports(job.id, [renamed], scratch, signal) : [main!];
      models.push(...first, ...data);
    }
    const reports = await files.publishReports(job.id, outcome.reports, scratch, signal);
    const ids = new Map([...stored].map(([name, { modelId }]) => [name, modelId]));
    const metrics = withModelIds(outcome.metrics, ids, spec.model_id);
    const recommended = metrics.auto!.recommendation;
    const artifacts = [...(stored.get(recommended.candidate)?.model ?? []), ...reports, ...models];
    const { accepted } = outcome;
    return {
      result: { model_id: recommended.model_id, accepted, artifacts, metrics, steps: null },
      models: [...stored.values()].map(({ modelId, created }) => ({ modelId, created })),
    };
  });
