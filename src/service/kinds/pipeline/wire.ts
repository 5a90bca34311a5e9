import { z } from "zod";
import { each } from "../each.ts";
import { ALL_DEFAULTS, OFFER, SENT_PARAMS, STATE } from "../wire.ts";
import { PipelineParams } from "./params.ts";
import { STEP_KINDS } from "./steps.ts";

/** The wire forms of the kind. */

export const CreatePipelineJobRequest = z
  .strictObject({
    type: z.literal("pipeline"),
    model_id: z.string().nullable().default(null).meta({
      description: "What the first step works on. Null when it is a distillation that names its models itself.",
    }),
    params: PipelineParams,
    ...OFFER,
  })
  .meta({ id: "CreatePipelineJobRequest" });

export const PipelineJob = z
  .object({
    ...STATE,
    type: z.literal("pipeline"),
    model_id: z.string().meta({ description: "The model that the first step makes another of." }),
    params: SENT_PARAMS,
    effective_params: PipelineParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "PipelineJob" });

export const PipelinePlanSchema = z
  .object({
    type: z.literal("pipeline"),
    steps: z.array(
      z
        .object({ name: z.string(), plan: z.discriminatedUnion("type", each(STEP_KINDS, "plan")) })
        .meta({ id: "PlannedStep" }),
    ),
  })
  .meta({ id: "PipelinePlan" });
