import { flushCompileCache } from "node:module";

/** Loads what the children of API and worker load, so that node keeps it compiled, and does nothing with it (src/tasks/compile-cache.ts). */
await import("./tasks.ts");
await import("./peak-child.ts");
flushCompileCache();
process.exit();
