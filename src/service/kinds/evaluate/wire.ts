import { z } from "zod";
import { Bytes, Count } from "../../schemas.ts";
import { ALL_DEFAULTS, OFFER, SENT_PARAMS, STATE } from "../wire.ts";
import { EvaluateParams } from "./params.ts";

/** The wire forms of the kind. */

export const CreateEvaluateJobRequest = z
  .strictObject({ type: z.literal("evaluate"), params: EvaluateParams, ...OFFER })
  .meta({ id: "CreateEvaluateJobRequest" });

export const EvaluateJob = z
  .object({
    ...STATE,
    type: z.literal("evaluate"),
    model_id: z
      .string()
      .meta({ description: "The first of the models, which is the reference; so is that of the result." }),
    params: SENT_PARAMS,
    effective_params: EvaluateParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "EvaluateJob" });

export const EvaluatePlanSchema = z
  .object({
    type: z.literal("evaluate"),
    models: z.array(
      z.object({ model_id: z.string(), size_bytes: Bytes, parameters: Count }).meta({ id: "PlannedModel" }),
    ),
    loads: z
      .array(z.object({ batch_size: Count, threads: Count }).meta({ id: "PlannedLoad" }))
      .meta({ description: "What latency will be measured at." }),
  })
  .meta({ id: "EvaluatePlan" });
