import closeWithGrace from "close-with-grace";
import { pino } from "pino";
import { loadConfig } from "../src/config.ts";
import { ConfigError } from "../src/config-error.ts";
import { takeSecrets } from "../src/secrets.ts";
import { startWorker } from "./worker.ts";

/** The worker process: takes jobs from the queue and runs each in a child process, until SIGTERM. */

/** After this long a shutdown that hangs, for example because Redis is away, becomes an exit. */
const SHUTDOWN_TIMEOUT_MS = 25_000;

try {
  takeSecrets();
  const config = loadConfig();
  if (config.redisUrl === null) {
    throw new ConfigError([
      "REDIS_URL must be set for a worker of its own; `npm start` runs one with a private redis-server",
    ]);
  }
  const log = pino({ level: config.logLevel, base: { program: "worker" } });
  const starting = startWorker({
    config,
    redisUrl: config.redisUrl,
    childEntry: new URL("./child.ts", import.meta.url),
    log,
    onStuck() {
      log.fatal("jobs wait, but none arrives here: this process gives up, for a new one to take over");
      process.exit(1);
    },
  });
  // From now on: who is told to end while it starts has files to take away as well.
  closeWithGrace({ delay: SHUTDOWN_TIMEOUT_MS, logger: log }, async () => (await starting).close());
  await starting;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
