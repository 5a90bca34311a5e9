import { spawn } from "node:child_process";
import { chmodSync, readdirSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";

/**
 * A child that its model has taken over, in the place of workers/child.ts: it speaks the protocol as far as it likes. What it does is the
 * name of its first file; the path has what it needs to know, as JSON.
 */

const MESSAGE_FD = 3;
const say = (message: unknown) => writeSync(MESSAGE_FD, `${JSON.stringify(message)}\n`);

interface Targets {
  /** A file of the service that is no business of the child. */
  readonly secret: string;
  /** A stored blob. */
  readonly blob: string;
  /** The copy of it that the child was given. */
  readonly input: string;
  readonly port: number;
  /** How long the process lives that shall outlive the child: by that it is found. */
  readonly seconds: string;
}

function reached(attempt: () => unknown): boolean {
  try {
    return attempt() !== false;
  } catch {
    return false;
  }
}

function overwrite(path: string): void {
  chmodSync(path, 0o644);
  writeFileSync(path, "poisoned");
}

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => resolve(true));
    socket.once("error", () => resolve(false));
  });
}

async function reach({ secret, blob, input, port }: Targets): Promise<object> {
  return {
    "environment of its parent": reached(() =>
      readFileSync(`/proc/${process.ppid}/environ`, "latin1").includes("A_SECRET="),
    ),
    "environment of any process": readdirSync("/proc").some((pid) =>
      reached(() => readFileSync(`/proc/${pid}/environ`, "latin1").includes("A_SECRET=")),
    ),
    "memory of its parent": reached(() => process.ppid > 1 && readFileSync(`/proc/${process.ppid}/maps`).length > 0),
    "files of the service": reached(() => readFileSync(secret)),
    "the store": reached(() => overwrite(blob)),
    "its input": reached(() => overwrite(input)),
    "the program": reached(() => writeFileSync(`${import.meta.dirname}/written-by-a-child`, "")),
    "compiled code": reached(() => writeFileSync(`${process.env.NODE_COMPILE_CACHE}/written-by-a-child`, "")),
    "the network": await connects(port),
    "other network interfaces": Object.keys(networkInterfaces()).some((name) => name !== "lo"),
    "signals to its parent": reached(() => process.ppid > 1 && process.kill(process.ppid, 0)),
  };
}

const ACTS: Record<string, (targets: Targets) => unknown> = {
  async reach(targets) {
    const producer = JSON.stringify(await reach(targets));
    const facts = { inputs: [], outputs: [], operators: {}, nodes: 0, parameters: 0, weight_bytes: 0 };
    say({ type: "result", result: { ...facts, producer, trainable: { ok: true } } });
  },
  garbage: () => writeSync(MESSAGE_FD, Buffer.from([0, 0, 0, 8, 0xff, 0x0f, 0x99, 0x99, 1, 2, 10, 4, 10])),
  null: () => say(null),
  "null news": () => say({ type: "news", news: null }),
  "null progress": () => say({ type: "news", news: { kind: "progress", progress: null } }),
  "handle of node": () => say({ cmd: "NODE_HANDLE", type: "net.Socket" }),
  "result without facts": () => say({ type: "result", result: { producer: "nobody" } }),
  "unknown failure": () => say({ type: "failure", failure: { code: "nothing", message: "" } }),
  "endless line": () => {
    const part = Buffer.alloc(1 << 20, "x");
    for (;;) writeSync(MESSAGE_FD, part);
  },
  flood: () => {
    const line = { type: "news", news: { kind: "log", level: "info", message: "x".repeat(60_000) } };
    for (;;) say(line);
  },
  outlive({ seconds }) {
    const script = `setsid sh -c 'exec env -i sleep ${seconds}' & sleep 0.3`;
    spawn("/bin/sh", ["-c", script], { detached: true, stdio: "ignore" }).unref();
    setTimeout(() => say({ type: "failure", failure: { code: "unsupported", message: "left" } }), 1_000);
  },
};

say({ type: "ready" });
let input = "";
process.stdin.setEncoding("utf8").on("data", (chunk: string) => {
  input += chunk;
  if (!input.endsWith("\n")) return;
  const [{ name, path }] = JSON.parse(input).request.files;
  ACTS[name]?.(JSON.parse(path));
  setInterval(() => {}, 1_000);
});
