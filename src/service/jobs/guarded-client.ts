import type { Dispatcher, fetch as Fetch, RequestInit, Response } from "undici";
import { guardedLookup } from "./webhook-target.ts";

/** Requests to addresses that clients name. undici is large, and most services send none: it is loaded for the first request. */

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 15_000;

type Options = Omit<Dispatcher.RequestOptions, "origin" | "path" | "method"> & {
  readonly method?: Dispatcher.HttpMethod;
};

/** Both ways to ask connect to public addresses only, but for what may be inside. Neither should follow redirects by itself. */
export interface GuardedClient {
  request(url: URL, options: Options): Promise<Dispatcher.ResponseData>;
  fetch(url: URL, init: Omit<RequestInit, "dispatcher">): Promise<Response>;
  /** Lets requests end. */
  close(): Promise<void>;
  /** Breaks them off. */
  destroy(): Promise<void>;
}

/** `isInside`: whether the operator has allowed an address wherever it leads. */
export function createGuardedClient(isInside: (url: URL) => boolean): GuardedClient {
  let opening: ReturnType<typeof open> | undefined;

  async function open() {
    const { Agent, fetch, request } = await import("undici");
    const agent = (inside: boolean) =>
      new Agent({
        connect: { timeout: CONNECT_TIMEOUT_MS, ...(!inside && { lookup: guardedLookup() }) },
        headersTimeout: ANSWER_TIMEOUT_MS,
        bodyTimeout: ANSWER_TIMEOUT_MS,
        pipelining: 0, // A connection for each request: nobody gains from keeping one to a stranger.
      });
    const [inside, outside] = [agent(true), agent(false)];
    const dispatcherFor = (url: URL) => (isInside(url) ? inside : outside);
    return { request, fetch: fetch as typeof Fetch, dispatcherFor, agents: [inside, outside] };
  }

  const opened = () => {
    opening ??= open();
    return opening;
  };

  return {
    async request(url, options) {
      const { request, dispatcherFor } = await opened();
      return request(url, { ...options, dispatcher: dispatcherFor(url) });
    },
    async fetch(url, init) {
      const { fetch, dispatcherFor } = await opened();
      return fetch(url, { ...init, dispatcher: dispatcherFor(url) });
    },
    async close() {
      await Promise.all(((await opening)?.agents ?? []).map((agent) => agent.close()));
    },
    async destroy() {
      await Promise.all(((await opening)?.agents ?? []).map((agent) => agent.destroy()));
    },
  };
}
