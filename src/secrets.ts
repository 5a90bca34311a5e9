import { closeSync, readFileSync } from "node:fs";
import { ConfigError } from "./config-error.ts";

/**
 * Secrets do not stay in the environment that a process was started with: every process of the same user can read that, as
 * /proc/<pid>/environ, for as long as the process lives. They come as files (`REDIS_URL_FILE`); or in a variable, of which a program rids
 * itself by starting itself anew, in its place; or through a descriptor from the program that starts it.
 */

const SECRETS = [
  "REDIS_URL",
  "WEBHOOK_SECRET",
  "LINK_SECRET",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "MLFLOW_TRACKING_PASSWORD",
  "MLFLOW_TRACKING_TOKEN",
  "HF_TOKEN",
] as const;
/** Those that may be given as `<name>_FILE`. For the AWS ones there is AWS_SHARED_CREDENTIALS_FILE. */
const IN_FILES = [
  "REDIS_URL",
  "WEBHOOK_SECRET",
  "LINK_SECRET",
  "MLFLOW_TRACKING_PASSWORD",
  "MLFLOW_TRACKING_TOKEN",
  "HF_TOKEN",
] as const;

/** Tells a program the descriptor that its secrets come through. */
const DESCRIPTOR = "MODELPRESS_SECRETS_FD";
export const SECRETS_FD = 3;

/** Puts what is in a variable into a pipe, drops the variable, and goes on as the program that follows. */
const HAND_OVER = `
exec ${SECRETS_FD}<<END
$MODELPRESS_SECRETS
END
unset MODELPRESS_SECRETS
exec "$@"
`;

/**
 * To be called first by every program, before it loads what it works with. A program that was given secrets in variables starts anew, in its
 * own place; this does not return then.
 */
export function leaveSecretsBehind(): void {
  const { env } = process;
  const given = env[DESCRIPTOR] === undefined && SECRETS.some((name) => env[name]);
  if (!given || process.execve === undefined) return;
  const args = ["sh", "-c", HAND_OVER, "sh", process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  process.execve("/bin/sh", args, {
    ...environmentWithoutSecrets(),
    MODELPRESS_SECRETS: secretsAsJson(),
    [DESCRIPTOR]: String(SECRETS_FD),
  });
}

/**
 * Puts the secrets into `process.env`. Waits for the program that started this one to hand them over, if it does. Throws a `ConfigError` for
 * a file that cannot be read.
 */
export function takeSecrets(): void {
  const { env } = process;
  if (env[DESCRIPTOR] !== undefined) {
    const descriptor = Number(env[DESCRIPTOR]);
    Object.assign(env, JSON.parse(readFileSync(descriptor, "utf8")));
    closeSync(descriptor);
    delete env[DESCRIPTOR];
  }
  const problems = IN_FILES.flatMap((name) => readSecretFile(name, env));
  if (problems.length > 0) throw new ConfigError(problems);
}

function readSecretFile(name: (typeof IN_FILES)[number], env: NodeJS.ProcessEnv): string[] {
  const path = env[`${name}_FILE`];
  if (!path) return [];
  if (env[name]) return [`${name} and ${name}_FILE are both set: only one of them may be`];
  try {
    env[name] = readFileSync(path, "utf8").trim();
    return [];
  } catch (error) {
    return [`${name}_FILE cannot be read: ${(error as Error).message}`];
  }
}

/** The environment for programs that need no secrets. */
export function environmentWithoutSecrets(): Record<string, string> {
  const isPublic = ([name, value]: [string, string | undefined]) =>
    value !== undefined && !(SECRETS as readonly string[]).includes(name) && name !== DESCRIPTOR;
  return Object.fromEntries(Object.entries(process.env).filter(isPublic)) as Record<string, string>;
}

/** The environment for a program that gets its secrets, those of `secretsAsJson`, through `SECRETS_FD`. */
export function environmentForProgram(): Record<string, string> {
  const files = IN_FILES.map((name) => `${name}_FILE`);
  const rest = Object.entries(environmentWithoutSecrets()).filter(([name]) => !files.includes(name));
  return { ...Object.fromEntries(rest), [DESCRIPTOR]: String(SECRETS_FD) };
}

/** The secrets of this process, and those in `more`. */
export function secretsAsJson(more: Readonly<Record<string, string>> = {}): string {
  const own = SECRETS.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : []));
  return JSON.stringify({ ...Object.fromEntries(own), ...more });
}
