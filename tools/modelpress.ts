#!/usr/bin/env node
import { enableCompileCache } from "node:module";

/** The command line: `npx modelpress --help`. */
enableCompileCache();
const { runCommand } = await import("./command-line.ts");

const controller = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => controller.abort());

const { stdout, stderr, env } = process;
const code = await runCommand(process.argv.slice(2), { stdout, stderr, env, signal: controller.signal });
// What is still on its way to a pipe goes out first.
stdout.write("", () => process.exit(code));
