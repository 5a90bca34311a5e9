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

/** Whether the operator has allowed this host and port, whatever its addresses are. An entry without a port means the usual one. */
export function isAllowedInside(url: URL, allowHosts: readonly string[]): boolean {
  const usual = { "https:": "443", "http:": "80" }[url.protocol];
  if (usual === undefined) return false;
  const port = url.port || usual;
  return allowHosts.includes(`${url.hostname}:${port}`) || (port === usual && allowHosts.includes(url.hostname));
}

/** Why no webhook may be sent to a URL; undefined for one that may get some. */
export function refusalOf(url: URL | null, allowHosts: readonly string[]): string | undefined {
  if (url === null) return "It is not a URL.";
  if (url.username !== "" || url.password !== "") return "It must not contain a user name or password.";
  if (isAllowedInside(url, allowHosts)) return undefined;
  if (url.protocol !== "https:") return "It must start with https://.";
  // An address is connected to without a look-up. In a URL every way to write one has been made the usual one.
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return ipaddr.isValid(host) && !isPublicAddress(host) ? "Its address is not a public one." : undefined;
}

/** An entry of a list of hosts that stands for every public one. */
const ANY_PUBLIC = "*";

/** Why an address is not one of those that the operator has listed, for files to be fetched from or sent to; undefined for one that is. */
export function unlisted(url: URL | null, hosts: readonly string[]): string | undefined {
  if (url?.protocol === "s3:") return "An address that starts with s3:// needs the `kind` s3.";
  if (hosts.length === 0) return "The operator of this service has allowed no host.";
  const refusal = refusalOf(url, hosts);
  if (refusal !== undefined || isAllowedInside(url!, hosts) || hosts.includes(ANY_PUBLIC)) return refusal;
  return `Its host is not one that the operator has allowed: those are ${hosts.join(", ")}.`;
}

/** Addresses that lead inside although their range is a public one. */
const INSIDE = [
  "::/96", // IPv4 in an old form of IPv6: ::127.0.0.1.
  "fec0::/10", // Site-local, before there was fc00::/7.
  "64:ff9b:1::/48", // Translated to IPv4 by a local gateway.
  "168.63.129.16/32", // Azure's own host, from inside every machine there.
].map((range) => ipaddr.parseCIDR(range));

/** Whether an IP address is one of the public internet. IPv4 in IPv6 counts as what it is. */
export function isPublicAddress(address: string): boolean {
  // Written like that, `::/96` would be read as the IPv4 in it.
  if (/^::\d+\./.test(address)) return false;
  const parsed = ipaddr.process(address);
  if (parsed.range() !== "unicast") return false;
  return !INSIDE.some(([network, bits]) => network.kind() === parsed.kind() && parsed.match(network, bits));
}

/** `dns.lookup`, less the addresses that a webhook may not reach. */
export function guardedLookup(resolve: typeof dnsLookup = dnsLookup): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found: LookupAddress[]) => {
      if (error) return callback(error, []);
      const allowed = found.filter(({ address }) => isPublicAddress(address));
      const [first] = allowed;
      if (first === undefined) return callback(new Error(`${hostname} has no public address`), []);
      return options.all ? callback(null, allowed) : callback(null, first.address, first.family);
    });
  };
}
