import { spawn } from "node:child_process";
import { glob } from "node:fs/promises";
import { cpus } from "node:os";
import { basename } from "node:path";
import { ENVIRONMENT } from "../src/tasks/environment.ts";

/**
 * npm run bench [name...]
 *
 * Runs the programs of bench/, one after the other so that they do not disturb each other, each in a process of its own. Each prints a
 * table. Ends with exit code 1 when one of them failed.
 */

const ROOT = new URL("..", import.meta.url).pathname;

const names = (await Array.fromAsync(glob("bench/*.ts", { cwd: ROOT }))).map((path) => basename(path, ".ts")).sort();
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !names.includes(name));
if (unknown.length > 0) {
  console.error(`No bench is called ${unknown.join(" or ")}. There are: ${names.join(", ")}.`);
  process.exit(2);
}

console.log(`${cpus()[0]?.model ?? "unknown CPU"}, ${cpus().length} cores, Node ${process.version}`);
for (const name of wanted.length > 0 ? wanted : names) {
  console.log(`\n## ${name}`);
  const child = spawn(process.execPath, [`bench/${name}.ts`], {
    cwd: ROOT,
    env: { ...process.env, ORT_DISABLE_TELEMETRY: ENVIRONMENT.ORT_DISABLE_TELEMETRY },
    stdio: "inherit",
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  if (code !== 0) process.exitCode = 1;
}
