import { enableCompileCache, flushCompileCache } from "node:module";

/** The API process. What is compiled of its modules is kept for the next start: they are loaded after this line. */
enableCompileCache();
await import("./api-process.ts");
flushCompileCache();
