import { Agent } from "undici";
import { guardedLookup } from "./webhook-target.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 15_000;

/** Sends requests to allowed hosts and public addresses only. */
export function createWebhookAgent(allowHosts: readonly string[]): Agent {
  return new Agent({
    connect: { timeout: CONNECT_TIMEOUT_MS, lookup: guardedLookup(allowHosts) },
    headersTimeout: ANSWER_TIMEOUT_MS,
    bodyTimeout: ANSWER_TIMEOUT_MS,
    pipelining: 0, // A connection for each request: nobody gains from keeping one to a stranger.
  });
}
