import closeWithGrace from "close-with-grace";
import { pino } from "pino";
import { loadConfig } from "../../src/config.ts";
import { startWorker } from "../../workers/worker.ts";

/** A real worker whose children act (acting-child.ts). argv: environment variables as JSON, and the drain grace in ms. */
const [, , env = "{}", drainGraceMs = "0"] = process.argv;
// Acting children remember their first attempts in a place that a sandbox would hide.
const config = loadConfig({ SANDBOX: "none", ...JSON.parse(env) });
const log = pino({ level: config.logLevel });
const starting = startWorker({
  config,
  redisUrl: config.redisUrl!,
  childEntry: new URL("./acting-child.ts", import.meta.url),
  log,
  onStuck: () => process.exit(2),
  drainGraceMs: Number(drainGraceMs),
});
// As the real one: it may be told to end while it starts.
closeWithGrace({ logger: log }, async () => (await starting).close());
await starting;
