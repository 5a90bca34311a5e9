import { enableCompileCache, flushCompileCache } from "node:module";
import { resolve } from "node:path";

/** The worker process. What is compiled of its modules is kept for the next start: they are loaded after this line. */
// In the service's own directory: node's default is the temporary one, and who writes there would write what is run here.
enableCompileCache(process.env.NODE_COMPILE_CACHE ?? resolve(process.env.DATA_DIR || "data", "compiled"));
(await import("../src/secrets.ts")).leaveSecretsBehind();
await import("./worker-process.ts");
flushCompileCache();
