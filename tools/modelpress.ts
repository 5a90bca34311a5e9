#!/usr/bin/env node
import { enableCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

/** The command line: `npx modelpress --help`. */
// In the user's own directory: node's default is the temporary one, and who writes there would write what is run here.
enableCompileCache(process.env.NODE_COMPILE_CACHE ?? join(homedir(), ".cache", "modelpress"));
const { runCommand } = await import("./command-line.ts");

const controller = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => controller.abort());

const { stdout, stderr, env } = process;
const code = await runCommand(process.argv.slice(2), { stdout, stderr, env, signal: controller.signal });
// What is still on its way to a pipe goes out first.
stdout.write("", () => process.exit(code));
