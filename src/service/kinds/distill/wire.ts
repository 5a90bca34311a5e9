import { z } from "zod";
import { Count } from "../../schemas.ts";
import { ALL_DEFAULTS, OFFER, SENT_PARAMS, STATE, StepName } from "../wire.ts";
import { DistillParams } from "./params.ts";

/** The wire forms of the kind. */

export const CreateDistillJobRequest = z
  .strictObject({ type: z.literal("distill"), params: DistillParams, ...OFFER })
  .meta({ id: "CreateDistillJobRequest" });

export const DistillStep = z.strictObject({ type: z.literal("distill"), name: StepName, params: DistillParams }).meta({
  id: "DistillStep",
  description: "Trains. A `model_id` of `previous` is the model of the step before: as the student, or as the teacher.",
});

export const DistillJob = z
  .object({
    ...STATE,
    type: z.literal("distill"),
    model_id: z.string().meta({ description: "The uploaded student, or the teacher that the student is made from." }),
    params: SENT_PARAMS,
    effective_params: DistillParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "DistillJob" });

export const DistillPlanSchema = z
  .object({
    type: z.literal("distill"),
    teacher_parameters: Count.nullable(),
    student_parameters: Count,
    outputs: z.array(z.object({ teacher: z.string(), student: z.string() }).meta({ id: "PairedOutputs" })),
    training_samples: Count,
    validation_samples: Count,
    steps: Count.meta({ description: "Optimizer steps of one run; a baseline is a second run." }),
    networks: z
      .array(z.object({ name: z.string(), parameters: Count }).meta({ id: "PlannedNetwork" }))
      .meta({ description: "Those that are trained; of generations the first." }),
    exits: z.array(
      z.object({ name: z.string(), value: z.string(), macs_share: z.number() }).meta({ id: "PlannedExit" }),
    ),
  })
  .meta({ id: "DistillPlan" });
