import { Socket } from "node:net";
import { createInterface } from "node:readline";
import { failureOfError } from "./failures.ts";
import { MAX_MESSAGE_BYTES, MESSAGE_FD } from "./messages.ts";
import type { TaskFailure, TaskKind, TaskNews, Tasks } from "./protocol.ts";

export interface TaskContext {
  /** Fires when the work is to stop. */
  readonly signal: AbortSignal;
  news(news: TaskNews): void;
}

export type TaskHandlers = {
  readonly [K in TaskKind]: (request: Tasks[K]["request"], context: TaskContext) => Promise<Tasks[K]["result"]>;
};

/** What the supervisor sends: one task in the life of a child, and `{ stop: true }` when it is to stop. */
export interface TaskMessage {
  readonly kind: TaskKind;
  readonly request: unknown;
}

/** What the child sends: ready, started when the task has arrived, news at any time, then a result or a failure. */
export type ChildMessage =
  | { readonly type: "ready" }
  | { readonly type: "started" }
  | { readonly type: "news"; readonly news: TaskNews }
  | { readonly type: "result"; readonly result: unknown }
  | { readonly type: "failure"; readonly failure: TaskFailure };

const CANCELLED: TaskFailure = { code: "cancelled", message: "The work was cancelled." };

/**
 * The life of a child process: says that it is ready, does the one task it is sent, answers, and waits to be killed (an orderly exit would
 * only run native destructors, whose crashes would look like ours). It is asked to stop by a message, or by SIGTERM from others; without a
 * parent it ends at once.
 */
export function serveTask(handlers: TaskHandlers): void {
  const controller = new AbortController();
  const out = new Socket({ fd: MESSAGE_FD, readable: false, writable: true });
  out.on("error", () => process.kill(process.pid, "SIGKILL"));
  const send = (message: ChildMessage) => {
    const line = JSON.stringify(message);
    if (line.length <= MAX_MESSAGE_BYTES / 4) return void out.write(`${line}\n`);
    const limit = `The answer is longer than ${MAX_MESSAGE_BYTES / 4} characters.`;
    if (message.type === "result") send({ type: "failure", failure: { code: "limit_exceeded", message: limit } });
  };
  const fail = (error: unknown) => {
    if (controller.signal.aborted) return send({ type: "failure", failure: CANCELLED });
    const failure = failureOfError(error);
    if (failure.code === "internal") console.error(error);
    return send({ type: "failure", failure });
  };

  let busy = false;
  process.on("SIGTERM", () => (busy ? controller.abort() : process.exit()));
  process.on("uncaughtException", fail);

  function start({ kind, request }: TaskMessage): void {
    busy = true;
    send({ type: "started" });
    const handle = handlers[kind] as (request: unknown, context: TaskContext) => Promise<unknown>;
    handle(request, { signal: controller.signal, news: (news) => send({ type: "news", news }) }).then(
      (result) => send({ type: "result", result }),
      fail,
    );
  }
  createInterface({ input: process.stdin })
    .on("line", (line) => {
      if (busy) controller.abort();
      else start(JSON.parse(line) as TaskMessage);
    })
    .on("close", () => process.kill(process.pid, "SIGKILL"));
  send({ type: "ready" });
}
