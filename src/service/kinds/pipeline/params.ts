import { z } from "zod";
import { each } from "../each.ts";
import { STEP_KINDS } from "./steps.ts";

const PipelineStep = z.discriminatedUnion("type", each(STEP_KINDS, "step")).meta({ id: "PipelineStep" });

export const PipelineParams = z
  .strictObject({
    steps: z
      .array(PipelineStep)
      .min(2)
      .max(10)
      .overwrite((steps) => steps.map((step, i) => ({ ...step, name: step.name ?? `step-${i + 1}` })))
      .refine((steps) => new Set(steps.map(({ name }) => name)).size === steps.length, {
        error: "must have names of their own",
      })
      .meta({ description: "In this order; each works on the model that the one before has made." }),
  })
  .meta({ id: "PipelineParams" });

export type PipelineParams = z.output<typeof PipelineParams>;
