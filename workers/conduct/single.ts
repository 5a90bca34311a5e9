import type { SingleSpec } from "../../src/service/kinds/pipeline/steps.ts";
import { originOf } from "../job-files.ts";
import { type Conduct, WHOLE } from "./conduct.ts";

/** One child makes one model. */
export const conductSingle: Conduct<SingleSpec> = (spec, { job, perform, files, signal }) =>
  perform({ spec, ...WHOLE }, async (outcome, scratch) => {
    const { modelId, created, model, reports } = await files.publish(job.id, originOf(spec), outcome, scratch, signal);
    const { accepted, metrics } = outcome;
    const artifacts = [...model, ...reports];
    return {
      result: { model_id: modelId, accepted, artifacts, metrics, steps: null },
      models: [{ modelId, created }],
    };
  });
