import { isObjectAddress, unlistedObject } from "../blobs/objects.ts";
import { parseModelAddress, unlistedModel } from "../mlflow/address.ts";
import type { DeliveryKind } from "./job.ts";
import { unlisted } from "./webhook-target.ts";

/** Where jobs may deliver their results to: the kinds of addresses, and what the operator must have listed for each. */

/** What the operator has allowed. */
export interface DeliveryLists {
  readonly deliverAllowHosts: readonly string[];
  readonly deliverAllowBuckets: readonly string[];
  readonly deliverAllowRegisteredModels: readonly string[];
}

const MODEL_SCHEME = "models:/";

/** What an address that was taken is one of. */
export function deliveryKindOf(url: string): DeliveryKind {
  if (isObjectAddress(url)) return "s3";
  return url.startsWith(MODEL_SCHEME) ? "mlflow" : "put";
}

/** Why nothing is delivered to an address; undefined for one that may be delivered to. */
export function deliveryRefusal(kind: DeliveryKind, url: string, lists: DeliveryLists): string | undefined {
  switch (kind) {
    case "s3":
      return unlistedObject(url, lists.deliverAllowBuckets, "DELIVER_ALLOW_BUCKETS");
    case "mlflow": {
      const { deliverAllowRegisteredModels } = lists;
      const form = "models:/name, of which the delivery makes a new version";
      return unlistedModel(
        parseModelAddress(url),
        form,
        deliverAllowRegisteredModels,
        "DELIVER_ALLOW_REGISTERED_MODELS",
      );
    }
    case "put":
      return unlisted(URL.parse(url), lists.deliverAllowHosts);
  }
}
