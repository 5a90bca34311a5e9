import { startRuntime } from "../src/core/runtime/session.ts";
import { serveTask } from "../src/tasks/task-server.ts";
import { TASK_HANDLERS } from "./tasks.ts";

/** The entry of every child process. What the tasks need, the native runtime above all, is loaded and started here before there is one to do. */
await startRuntime();
serveTask(TASK_HANDLERS);
