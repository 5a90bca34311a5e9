import { z } from "zod";
import { OFFER, planOf } from "../wire.ts";
import { PipelineParams } from "./params.ts";
import { STEP_KINDS } from "./steps.ts";

/** The wire forms of the kind. */

export const PipelineJobRequest = z
  .strictObject({
    type: z.literal("pipeline"),
    model_id: z.string().nullable().default(null).meta({
      description: "What the first step works on. Null when it is a distillation that names its models itself.",
    }),
    params: PipelineParams,
    ...OFFER,
  })
  .meta({ id: "PipelineJobRequest" });

/** What is told in its plan. */
export const PipelinePlanFields = z.object({
  steps: z.array(
    z.object({ name: z.string(), plan: planOf(STEP_KINDS).meta({ id: "StepPlan" }) }).meta({ id: "PlannedStep" }),
  ),
});
