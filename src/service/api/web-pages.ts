import type { FastifyRequest } from "fastify";
import { ServiceError } from "../errors.ts";

/**
 * Web pages of strangers are not users: a browser sends what they say to this machine as well. Where there are no keys, nothing else tells
 * their requests from others, so that the browser's own headers have to: the host that the page believes to talk to (a name of its own that
 * leads here is DNS rebinding), and where the request comes from.
 */

const CHANGES_NOTHING = new Set(["GET", "HEAD", "OPTIONS"]);

/** What is wrong with a request to a service without keys, as far as web pages are concerned. `ownHosts` are names, with or without port. */
export function webPageRefusal(request: FastifyRequest, ownHosts: readonly string[]): ServiceError | undefined {
  const { host, method, headers } = request;
  if (!isOwn(host, ownHosts)) {
    const message = `There are no keys, and ${JSON.stringify(host)} is not a name of this service: call it by localhost, or name it in ALLOWED_HOSTS.`;
    return new ServiceError("forbidden", message);
  }
  if (CHANGES_NOTHING.has(method)) return undefined;
  const origin = headers.origin;
  const isForeign = origin !== undefined && !isSameOrigin(origin, host, ownHosts);
  if (!isForeign && headers["sec-fetch-site"] !== "cross-site") return undefined;
  const from = JSON.stringify(origin ?? headers.referer ?? "another site");
  const message = `There are no keys, and this request comes from a web page of ${from}: pages of others may change nothing.`;
  return new ServiceError("forbidden", message);
}

/** Whether a `Host` is a name of this machine's loopback interface, or one that the operator has named. */
function isOwn(host: string, ownHosts: readonly string[]): boolean {
  const url = URL.parse(`http://${host}`);
  if (url === null) return false;
  const { hostname } = url;
  if (hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname)) return true;
  return ownHosts.includes(hostname) || ownHosts.includes(host.toLowerCase());
}

/** Another port of the same machine is somebody else, unless the operator has named it. */
function isSameOrigin(origin: string, host: string, ownHosts: readonly string[]): boolean {
  const from = URL.parse(origin)?.host;
  return from === host.toLowerCase() || ownHosts.some((own) => own === from);
}
