import { Agent } from "undici";
import { guardedLookup } from "./webhook-target.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 15_000;

/** Sends requests to public addresses only; with `inside`, for hosts that the operator has allowed, to any. */
export function createWebhookAgent({ inside }: { readonly inside: boolean }): Agent {
  return new Agent({
    connect: { timeout: CONNECT_TIMEOUT_MS, ...(!inside && { lookup: guardedLookup() }) },
    headersTimeout: ANSWER_TIMEOUT_MS,
    bodyTimeout: ANSWER_TIMEOUT_MS,
    pipelining: 0, // A connection for each request: nobody gains from keeping one to a stranger.
  });
}
