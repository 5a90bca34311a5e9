import type { z } from "zod";
import type { FieldError } from "../errors.ts";
import { type DeliveryLists, deliveryRefusal } from "../jobs/delivery-address.ts";
import { type JobSpec, kindOf } from "../kinds/kinds.ts";
import type { DeliveryTarget } from "../kinds/wire.ts";

/** What is wrong with where a job of this type is to deliver: an address that nothing is sent to, and a file that the job or the place does not take. */
export function deliveryErrors(
  { kind, url, artifact }: z.output<typeof DeliveryTarget>,
  type: JobSpec["type"],
  lists: DeliveryLists,
): readonly FieldError[] {
  const errors: FieldError[] = [];
  const refusal = deliveryRefusal(kind, url, lists);
  if (refusal !== undefined) {
    const pointer = "/deliver_to/url";
    errors.push({ pointer, code: "delivery_refused", message: `${pointer}: ${refusal}` });
  }
  const pointer = "/deliver_to/artifact";
  if (!kindOf({ type }).makesModel && artifact === "model.onnx") {
    errors.push({
      pointer,
      code: "no_effect",
      message: `${pointer}: a job of the type ${type} makes no model, but reports.`,
    });
  } else if (kind === "mlflow" && artifact !== "model.onnx") {
    const message = `${pointer}: a version in MLflow is made of the model, with its reports beside it; leave this out.`;
    errors.push({ pointer, code: "no_effect", message });
  }
  return errors;
}
