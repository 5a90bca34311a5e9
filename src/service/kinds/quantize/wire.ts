import { z } from "zod";
import { Bytes, Count } from "../../schemas.ts";
import { NodeNote, ResultWarning } from "../metrics-schemas.ts";
import { ALL_DEFAULTS, OFFER, SENT_PARAMS, STATE, StepName } from "../wire.ts";
import { QuantizeParams } from "./params.ts";

/** The wire forms of the kind. */

export const CreateQuantizeJobRequest = z
  .strictObject({ type: z.literal("quantize"), model_id: z.string(), params: QuantizeParams, ...OFFER })
  .meta({ id: "CreateQuantizeJobRequest" });

export const QuantizeStep = z
  .strictObject({ type: z.literal("quantize"), name: StepName, params: QuantizeParams })
  .meta({ id: "QuantizeStep", description: "Compresses the model of the step before." });

export const QuantizeJob = z
  .object({
    ...STATE,
    type: z.literal("quantize"),
    model_id: z.string(),
    params: SENT_PARAMS,
    effective_params: QuantizeParams.meta(ALL_DEFAULTS),
  })
  .meta({ id: "QuantizeJob" });

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

export const QuantizePlanSchema = z
  .object({
    type: z.literal("quantize"),
    method: z.string(),
    weights: z.array(WeightPlanSchema),
    values: z.array(ValuePlanSchema),
    quantized_nodes: z.array(NodeNote),
    skipped_nodes: z.array(NodeNote),
    size: z.object({ before_bytes: Bytes, predicted_bytes: Bytes, ratio: z.number() }).meta({ id: "PredictedSize" }),
    warnings: z.array(ResultWarning).meta({ description: "Those that are known before anything is computed." }),
  })
  .meta({ id: "QuantizePlan" });
