import type { z } from "zod";
import { unlistedObject } from "../blobs/objects.ts";
import type { FieldError } from "../errors.ts";
import { unlisted } from "../jobs/webhook-target.ts";
import type { DeliveryTarget } from "../kinds/wire.ts";
import type { ApiSettings } from "./context.ts";

/** What is wrong with where a job of this type is to deliver: an address that nothing is sent to, and a model where none is made. */
export function deliveryErrors(
  { kind, url, artifact }: z.output<typeof DeliveryTarget>,
  type: string,
  { deliverAllowHosts, deliverAllowBuckets }: Pick<ApiSettings, "deliverAllowHosts" | "deliverAllowBuckets">,
): readonly FieldError[] {
  const errors: FieldError[] = [];
  const refusal =
    kind === "s3"
      ? unlistedObject(url, deliverAllowBuckets, "DELIVER_ALLOW_BUCKETS")
      : unlisted(URL.parse(url), deliverAllowHosts);
  if (refusal !== undefined) {
    const pointer = "/deliver_to/url";
    errors.push({ pointer, code: "delivery_refused", message: `${pointer}: ${refusal}` });
  }
  if (type === "evaluate" && artifact === "model.onnx") {
    const pointer = "/deliver_to/artifact";
    errors.push({ pointer, code: "no_effect", message: `${pointer}: an evaluation makes no model, but reports.` });
  }
  return errors;
}
