import { serveTask } from "../src/tasks/task-server.ts";
import { TASK_HANDLERS } from "./tasks.ts";

/** The entry of every child process. What the tasks need, the native runtime above all, is loaded here before there is one to do. */
serveTask(TASK_HANDLERS);
