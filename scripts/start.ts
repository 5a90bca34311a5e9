import { enableCompileCache, flushCompileCache } from "node:module";
import { resolve } from "node:path";

/** npm start. What is compiled of its modules is kept for the next start, with that of the programs: they are loaded after this line. */
enableCompileCache(process.env.NODE_COMPILE_CACHE ?? resolve(process.env.DATA_DIR || "data", "compiled"));
(await import("../src/secrets.ts")).leaveSecretsBehind();
await import("./service.ts");
flushCompileCache();
