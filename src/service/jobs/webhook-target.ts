import { lookup as dnsLookup, type LookupAddress } from "node:dns";
import type { LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { ServiceError } from "../errors.ts";

/**
 * Where webhooks may be sent. A client names the URL and our machines open it, so it must not lead inside: https only, and public
 * addresses only, unless the operator has allowed the host. Names are judged when the connection is made, by the addresses they have
 * then, so that a name cannot change its meaning in between.
 */

/** Throws `validation_failed`, with a pointer to the field, for a URL that no webhook may be sent to. */
export function checkWebhookUrl(text: string, allowHosts: readonly string[], pointer: string): void {
  const refusal = refusalOf(URL.parse(text), allowHosts);
  if (refusal === undefined) return;
  throw new ServiceError("validation_failed", `The webhook cannot be sent there: ${refusal}`, {
    fields: [{ pointer, code: "invalid_webhook_url", message: refusal }],
  });
}

function refusalOf(url: URL | null, allowHosts: readonly string[]): string | undefined {
  if (url === null) return "It is not a URL.";
  if (url.username !== "" || url.password !== "") return "It must not contain a user name or password.";
  if (allowHosts.includes(url.hostname)) {
    return url.protocol === "https:" || url.protocol === "http:"
      ? undefined
      : "It must start with https:// or http://.";
  }
  if (url.protocol !== "https:") return "It must start with https://.";
  // An address is connected to without a look-up. In a URL every way to write one has been made the usual one.
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return ipaddr.isValid(host) && !isPublicAddress(host) ? "Its address is not a public one." : undefined;
}

/** Whether an IP address is one of the public internet. IPv4 in IPv6 counts as what it is. */
export function isPublicAddress(address: string): boolean {
  return ipaddr.process(address).range() === "unicast";
}

/** `dns.lookup`, less the addresses that a webhook may not reach. */
export function guardedLookup(allowHosts: readonly string[], resolve: typeof dnsLookup = dnsLookup): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found: LookupAddress[]) => {
      if (error) return callback(error, []);
      const allowed = allowHosts.includes(hostname) ? found : found.filter(({ address }) => isPublicAddress(address));
      const [first] = allowed;
      if (first === undefined) return callback(new Error(`${hostname} has no public address`), []);
      return options.all ? callback(null, allowed) : callback(null, first.address, first.family);
    });
  };
}
