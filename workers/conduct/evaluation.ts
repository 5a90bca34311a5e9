import { EVALUATE, type EvaluateSpec } from "../../src/service/kinds/evaluate/spec.ts";
import { type Conduct, WHOLE } from "./conduct.ts";

/** One child measures models that there are; what it makes is reports. */
export const conductEvaluation: Conduct<EvaluateSpec> = (spec, { job, perform, files, signal }) =>
  perform({ spec, ...WHOLE }, async ({ accepted, metrics, reports }, scratch) => {
    const artifacts = await files.publishReports(job.id, reports, scratch, signal);
    return {
      result: { model_id: EVALUATE.sourceModelId(spec), accepted, artifacts, metrics, steps: null },
      models: [],
    };
  });
