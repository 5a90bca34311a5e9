import closeWithGrace from "close-with-grace";
import { pino } from "pino";
import { loadConfig } from "./config.ts";
import { ConfigError } from "./config-error.ts";
import { openNeighbours } from "./neighbours.ts";
import { takeSecrets } from "./secrets.ts";

/** The API process, until SIGTERM. */

/** Requests may go on for this long after SIGTERM; then their connections are cut. */
const DRAIN_MS = 15_000;
/** After this long a shutdown that hangs becomes an exit. */
const SHUTDOWN_TIMEOUT_MS = 25_000;

/** Where secrets could get into a log line that somebody adds later. */
const SECRETS = ["authorization", "cookie", "password", "secretAccessKey"].flatMap((name) => [
  name,
  `*.${name}`,
  `*.*.${name}`,
]);

try {
  takeSecrets();
  const config = loadConfig();
  if (config.redisUrl === null) {
    throw new ConfigError([
      "REDIS_URL must be set for an API of its own; `npm start` runs one with a private redis-server",
    ]);
  }
  const log = pino({ level: config.logLevel, base: { program: "api" }, redact: SECRETS });
  const [neighbours, { buildDeps }, { buildApp }] = await Promise.all([
    openNeighbours(config, config.redisUrl, log),
    import("./deps.ts"),
    import("./app.ts"),
  ]);
  const deps = await buildDeps(config, neighbours, log);
  const { context, queues } = deps;
  const app = await buildApp({ context, queues, log, trustProxy: config.trustProxy });
  await app.listen({ host: config.host, port: config.port });
  deps.prepare();

  closeWithGrace({ delay: SHUTDOWN_TIMEOUT_MS, logger: log }, async ({ signal, err }) => {
    if (err) log.fatal({ err }, "unexpected error");
    log.info({ signal }, "shutting down");
    deps.stop();
    const cut = setTimeout(() => app.server.closeAllConnections(), DRAIN_MS);
    await app.close();
    clearTimeout(cut);
    await deps.close();
  });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
