import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { ServiceError } from "../service/errors.ts";
import { compileCacheDirectory } from "./compile-cache.ts";

/**
 * What a child can reach. It runs native code on what users send, so it may be taken over; then it must find nothing: no network, no other
 * process, no file but those of its own room (read and write) and of the program, compiled or not (read only). How that is had depends on the machine.
 */
export const SANDBOX_LEVELS = ["bubblewrap", "unshare", "none"] as const;
export type SandboxLevel = (typeof SANDBOX_LEVELS)[number];

export interface Sandbox {
  readonly level: SandboxLevel;
  /** The command line that runs `command` where it sees the files below `room` only. */
  wrap(command: readonly string[], room: string): readonly string[];
}

export const NO_SANDBOX: Sandbox = { level: "none", wrap: (command) => command };

/** Of the system: programs, libraries, and what the processor is. */
const SYSTEM = [
  "/usr",
  "/bin",
  "/sbin",
  "/lib",
  "/lib64",
  "/etc/ld.so.cache",
  "/etc/alternatives",
  "/sys/devices/system",
];
/** Of the checkout: code. Not the rest of it, where people keep keys and data. */
const CODE = ["src", "workers", "test", "node_modules", "package.json"];
const PROBE_TIMEOUT_MS = 20_000;

/**
 * The strongest sandbox that this machine allows, or the one that is `wanted`; it is tried. Says which in the log. Throws `unavailable` when
 * the wanted one cannot be had.
 */
export async function openSandbox(options: {
  readonly wanted: SandboxLevel | "auto";
  /** The module that children run. */
  readonly entry: URL;
  /** An existing directory, to try it with. */
  readonly directory: string;
  readonly log: Logger;
}): Promise<Sandbox> {
  const { wanted, entry, directory, log } = options;
  const visible = visiblePaths(entry);
  const problems: string[] = [];
  for (const level of wanted === "auto" ? SANDBOX_LEVELS : [wanted]) {
    if (level === "none") break;
    const sandbox = SANDBOXES[level](visible);
    const problem = await tryOut(sandbox, directory);
    if (problem === undefined) {
      log.info({ sandbox: level, passed_over: problems }, "child processes are sandboxed");
      return sandbox;
    }
    problems.push(`${level}: ${problem}`);
  }
  if (wanted !== "auto" && wanted !== "none") {
    throw new ServiceError("unavailable", `SANDBOX is ${wanted}, which does not work here (${problems.join("; ")}).`);
  }
  log.warn(
    { sandbox: "none", problems },
    "child processes are NOT sandboxed: one that is taken over by a model can reach the network and every file of this user. Install bubblewrap, or allow user namespaces",
  );
  return NO_SANDBOX;
}

function visiblePaths(entry: URL): string[] {
  const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
  const code = [...CODE.map((name) => join(root, name)), dirname(fileURLToPath(entry)), process.execPath];
  const compiled = compileCacheDirectory();
  if (compiled !== undefined) code.push(compiled);
  const real = code.filter((path) => existsSync(path)).map((path) => realpathSync(path));
  const all = [...SYSTEM.filter((path) => existsSync(path)), ...real];
  // What is below another one is there already.
  return [...new Set(all)].filter((path) => !all.some((other) => path.startsWith(other + sep)));
}

/**
 * Builds the file system of a child from nothing, enters it and gives up every capability. Arguments: the room, visible paths, "--", the
 * command. It stays as the first process of its namespace: signals that a process sends itself have no effect on that one.
 */
const ENTER = `
set -e
room=$1; shift
new=$room/.root
mkdir -p "$new"
mount -t tmpfs -o mode=755,size=1m none "$new"
give() {
  if [ -d "$1" ]; then mkdir -p "$new$1"; else mkdir -p "$new\${1%/*}"; : > "$new$1"; fi
  mount --rbind "$1" "$new$1"
  [ "$2" = rw ] || mount -o remount,bind,ro "$new$1"
}
while [ "$1" != -- ]; do give "$1" ro; shift; done
shift
for file in null zero full random urandom; do give "/dev/$file" rw; done
mkdir -p "$new/proc" "$new/tmp"
mount -t proc proc "$new/proc"
give "$room" rw
cd "$new"
mkdir .old
pivot_root . .old
umount -l .old
rmdir .old
cd "$room"
setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs "$@" && exit 0
exit $?
`;

const SANDBOXES: Readonly<Record<Exclude<SandboxLevel, "none">, (visible: readonly string[]) => Sandbox>> = {
  bubblewrap: (visible) => ({
    level: "bubblewrap",
    wrap: (command, room) => [
      ...["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"],
      ...["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"],
      ...visible.flatMap((path) => ["--ro-bind", path, path]),
      ...["--bind", room, room, "--chdir", room, "--", ...command],
    ],
  }),
  unshare: (visible) => ({
    level: "unshare",
    wrap: (command, room) => [
      ...["unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork"],
      ...["--kill-child=SIGKILL", "/bin/sh", "-c", ENTER, "sh", room, ...visible, "--", ...command],
    ],
  }),
};

/** What is wrong with it here; undefined when a program can be run in it. */
function tryOut(sandbox: Sandbox, directory: string): Promise<string | undefined> {
  const [file, ...args] = sandbox.wrap([process.execPath, "-e", "0"], directory);
  const child = spawn(file!, args, { stdio: ["ignore", "ignore", "pipe"], env: {}, timeout: PROBE_TIMEOUT_MS });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-300);
  });
  return new Promise((resolve) => {
    child.once("error", (error) =>
      resolve("code" in error && error.code === "ENOENT" ? "it is not installed" : error.message),
    );
    child.once("close", (code, signal) =>
      resolve(code === 0 ? undefined : said.trim() || `it ended with ${signal ?? code}`),
    );
  });
}
