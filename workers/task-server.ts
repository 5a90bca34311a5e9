import { CoreError } from "../src/core/index.ts";
import { ServiceError } from "../src/service/errors.ts";
import { TaskError, type TaskFailure, type TaskKind, type TaskNews, type Tasks } from "../src/service/tasks.ts";
import { isOutOfMemory } from "./exit-cause.ts";

export interface TaskContext {
  /** Fires when the work is to stop. */
  readonly signal: AbortSignal;
  news(news: TaskNews): void;
}

export type TaskHandlers = {
  readonly [K in TaskKind]: (request: Tasks[K]["request"], context: TaskContext) => Promise<Tasks[K]["result"]>;
};

/** What the supervisor sends: one task in the life of a child. */
export interface TaskMessage {
  readonly kind: TaskKind;
  readonly request: unknown;
}

/** What the child sends: ready once, news at any time, then a result or a failure. */
export type ChildMessage =
  | { readonly type: "ready" }
  | { readonly type: "news"; readonly news: TaskNews }
  | { readonly type: "result"; readonly result: unknown }
  | { readonly type: "failure"; readonly failure: TaskFailure };

/**
 * The life of a child process: says that it is ready, does the one task it is sent, answers, and waits to be killed (an orderly exit would
 * only run native destructors, whose crashes would look like ours). SIGTERM asks the task to stop; without a parent it ends at once.
 */
export function serveTask(handlers: TaskHandlers): void {
  const controller = new AbortController();
  const send = (message: ChildMessage) => process.send?.(message);
  const fail = (error: unknown) => {
    console.error(error);
    send({ type: "failure", failure: failureOf(error, controller.signal) });
  };

  let busy = false;
  process.on("SIGTERM", () => (busy ? controller.abort() : process.exit()));
  process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
  process.on("uncaughtException", fail);
  process.once("message", ({ kind, request }: TaskMessage) => {
    busy = true;
    const handle = handlers[kind] as (request: unknown, context: TaskContext) => Promise<unknown>;
    handle(request, { signal: controller.signal, news: (news) => send({ type: "news", news }) }).then(
      (result) => send({ type: "result", result }),
      fail,
    );
  });
  send({ type: "ready" });
}

function failureOf(error: unknown, signal: AbortSignal): TaskFailure {
  if (signal.aborted) return { code: "cancelled", message: "The work was cancelled." };
  if (error instanceof CoreError || error instanceof TaskError) {
    const { code, message, subject } = error;
    return subject === undefined ? { code, message } : { code, message, subject };
  }
  if (error instanceof ServiceError) return { code: error.code, message: error.message };
  const text = error instanceof Error ? error.message : String(error);
  if (isOutOfMemory(text)) return { code: "out_of_memory", message: "The work could not get the memory it needs." };
  return { code: "internal", message: `The work failed in an unexpected way: ${text}` };
}
