import { withModelIds } from "../../src/service/kinds/auto/model-ids.ts";
import type { AutoSpec } from "../../src/service/kinds/auto/spec.ts";
import type { Published } from "../job-files.ts";
import { type Conduct, WHOLE } from "./conduct.ts";

/** One child tries many compressions; the models of the front are stored, and the recommended one is the result. */
export const conductSearch: Conduct<AutoSpec> = (spec, { job, perform, files, signal }) =>
  perform({ spec, ...WHOLE }, async (outcome, scratch) => {
    const stored = new Map<string, Published>();
    for (const { name, files: model, facts } of outcome.front ?? []) {
      const made = { ...outcome, model, facts, reports: [] };
      const origin = { sourceId: spec.model_id, made: name };
      stored.set(name, await files.publish(job.id, origin, made, scratch, signal));
    }
    const reports = await files.publishReports(job.id, outcome.reports, scratch, signal);
    const ids = new Map([...stored].map(([name, { modelId }]) => [name, modelId]));
    const metrics = withModelIds(outcome.metrics, ids, spec.model_id);
    const recommended = metrics.auto!.recommendation;
    const artifacts = [
      ...(stored.get(recommended.candidate)?.model ?? []),
      ...reports,
      ...[...stored].flatMap(([name, { model }]) => model.map((it) => ({ ...it, name: `${name}.${it.name}` }))),
    ];
    const { accepted } = outcome;
    return {
      result: { model_id: recommended.model_id, accepted, artifacts, metrics, steps: null },
      models: [...stored.values()].map(({ modelId, created }) => ({ modelId, created })),
    };
  });
