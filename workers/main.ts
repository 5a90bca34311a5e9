import { enableCompileCache, flushCompileCache } from "node:module";

/** The worker process. What is compiled of its modules is kept for the next start: they are loaded after this line. */
enableCompileCache();
await import("./worker-process.ts");
flushCompileCache();
