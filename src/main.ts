import { enableCompileCache, flushCompileCache } from "node:module";
import { resolve } from "node:path";

/** The API process. What is compiled of its modules is kept for the next start: they are loaded after this line. */
// In the service's own directory: node's default is the temporary one, and who writes there would write what is run here.
enableCompileCache(process.env.NODE_COMPILE_CACHE ?? resolve(process.env.DATA_DIR || "data", "compiled"));
(await import("./secrets.ts")).leaveSecretsBehind();
await import("./api-process.ts");
flushCompileCache();
