import { z } from "zod";
import type { DistillPlan } from "../../../core/contract.ts";
import { Count } from "../../schemas.ts";
import { OFFER, StepName } from "../wire.ts";
import { DistillParams } from "./params.ts";

/** The wire forms of the kind. */

export const DistillJobRequest = z
  .strictObject({ type: z.literal("distill"), params: DistillParams, ...OFFER })
  .meta({ id: "DistillJobRequest" });

export const DistillStep = z.strictObject({ type: z.literal("distill"), name: StepName, params: DistillParams }).meta({
  id: "DistillStep",
  description: "Trains. A `model_id` of `previous` is the model of the step before: as the student, or as the teacher.",
});

/** What is told in its plan. */
export const DistillPlanFields = z.object({
  teacher_parameters: Count.nullable(),
  student_parameters: Count,
  outputs: z.array(z.object({ teacher: z.string(), student: z.string() }).meta({ id: "PairedOutputs" })),
  training_samples: Count,
  validation_samples: Count,
  optimizer_steps: Count.meta({ description: "Of one run; a baseline is a second run." }),
  networks: z
    .array(z.object({ name: z.string(), parameters: Count }).meta({ id: "PlannedNetwork" }))
    .meta({ description: "Those that are trained; of generations the first." }),
  exits: z.array(z.object({ name: z.string(), value: z.string(), macs_share: z.number() }).meta({ id: "PlannedExit" })),
}) satisfies z.ZodType<DistillPlan>;
