import { z } from "zod";
import type { AutoPlan } from "../../../tasks/protocol.ts";
import { CandidateSpec } from "../metrics-schemas.ts";
import { OFFER } from "../wire.ts";
import { AutoParams } from "./params.ts";

/** The wire forms of the kind. */

export const AutoJobRequest = z
  .strictObject({ type: z.literal("auto"), model_id: z.string(), params: AutoParams, ...OFFER })
  .meta({ id: "AutoJobRequest" });

/** What is told in its plan. */
export const AutoPlanFields = z.object({
  candidates: z
    .array(z.object({ name: z.string(), spec: CandidateSpec }).meta({ id: "PlannedCandidate" }))
    .meta({ description: "In this order, as far as the budget goes." }),
}) satisfies z.ZodType<Omit<AutoPlan, "type">>;
