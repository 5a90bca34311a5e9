import { z } from "zod";
import { PROVISION_CODES, type QuantizePlan } from "../../../core/contract.ts";
import { Bytes, Count, ResultWarning } from "../../schemas.ts";
import { NodeNote } from "../metrics-schemas.ts";
import { OFFER, StepName } from "../wire.ts";
import { QuantizeParams } from "./params.ts";

/** The wire forms of the kind. */

export const QuantizeJobRequest = z
  .strictObject({ type: z.literal("quantize"), model_id: z.string(), params: QuantizeParams, ...OFFER })
  .meta({ id: "QuantizeJobRequest" });

export const QuantizeStep = z
  .strictObject({ type: z.literal("quantize"), name: StepName, params: QuantizeParams })
  .meta({ id: "QuantizeStep", description: "Compresses the model of the step before." });

const WeightPlanSchema = z
  .object({
    name: z.string(),
    nodes: z.array(z.string()),
    bits: Count,
    signed: z.boolean(),
    symmetric: z.boolean(),
    granularity: z.enum(["tensor", "channel", "block"]),
    block_size: Count.nullable(),
    storage: z.string(),
  })
  .meta({ id: "WeightPlan", description: "How a weight is quantized, and the form that it has in the file." });

const ValuePlanSchema = z
  .object({ name: z.string(), dtype: z.enum(["uint8", "int8"]) })
  .meta({ id: "ValuePlan", description: "A value that is rounded while the model runs." });

const ProvisionSchema = z
  .object({
    code: z.enum(PROVISION_CODES),
    message: z.string(),
    nodes: z.array(z.string()).meta({ description: "Those that it may concern; none: any." }),
  })
  .meta({ id: "Provision", description: "Why entries of a plan may come out otherwise in the job." });

/** What is told in its plan. */
export const QuantizePlanFields = z.object({
  method: z.string(),
  weights: z.array(WeightPlanSchema),
  values: z.array(ValuePlanSchema),
  quantized_nodes: z.array(NodeNote),
  skipped_nodes: z.array(NodeNote),
  size: z.object({ before_bytes: Bytes, predicted_bytes: Bytes, ratio: z.number() }).meta({ id: "PredictedSize" }),
  warnings: z.array(ResultWarning).meta({ description: "Those that are known before anything is computed." }),
  provisional: z.array(ProvisionSchema).meta({
    description:
      "What may come out otherwise in the job, and why; empty: it does what is planned. Whatever is planned, a node that onnxruntime turns " +
      "out not to run is left as it was, with the code `does_not_run`.",
  }),
}) satisfies z.ZodType<QuantizePlan>;
