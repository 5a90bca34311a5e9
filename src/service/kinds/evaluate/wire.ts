import { z } from "zod";
import type { EvaluatePlan } from "../../../tasks/protocol.ts";
import { Bytes, Count } from "../../schemas.ts";
import { OFFER } from "../wire.ts";
import { EvaluateParams } from "./params.ts";

/** The wire forms of the kind. */

export const EvaluateJobRequest = z
  .strictObject({ type: z.literal("evaluate"), params: EvaluateParams, ...OFFER })
  .meta({ id: "EvaluateJobRequest" });

/** What is told in its plan. */
export const EvaluatePlanFields = z.object({
  models: z.array(
    z.object({ model_id: z.string(), size_bytes: Bytes, parameters: Count }).meta({ id: "PlannedModel" }),
  ),
  loads: z
    .array(z.object({ batch_size: Count, threads: Count }).meta({ id: "PlannedLoad" }))
    .meta({ description: "What latency will be measured at." }),
}) satisfies z.ZodType<Omit<EvaluatePlan, "type">>;
