import { type ChildProcess, spawn } from "node:child_process";
import type { Logger } from "pino";

/**
 * Kills process groups when this process is gone, however it went: a process killed with SIGKILL cannot clean up, and a child
 * that sits in a native call does not notice. So a small shell waits, detached, at the other end of a pipe; the kernel closes that when
 * we die, and the shell kills every group it was told of and not told to forget.
 */
export interface Reaper {
  watch(group: number): void;
  forget(group: number): void;
  close(): void;
}

const SCRIPT = `
trap '' HUP INT TERM
groups=' '
while read -r verb group; do
  case $verb in
    watch) groups="$groups$group " ;;
    forget) groups="\${groups%% $group *} \${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done 2> /dev/null
`;

export function createReaper(log: Logger): Reaper {
  const groups = new Set<number>();
  let closed = false;
  let shell = start();

  function start(): ChildProcess {
    const started = spawn("/bin/sh", ["-c", SCRIPT], { stdio: ["pipe", "ignore", "ignore"], detached: true, env: {} });
    started.stdin?.on("error", () => {}); // Its exit says the same.
    started.once("error", (error) => log.error({ err: error }, "the reaper cannot be started"));
    started.once("exit", (code, signal) => {
      if (closed) return;
      log.warn({ code, signal }, "the reaper died; starting another one");
      shell = start();
      for (const group of groups) tell("watch", group);
    });
    // Neither the shell nor the pipe keeps this process alive.
    started.unref();
    if (started.stdin !== null && "unref" in started.stdin) (started.stdin as unknown as { unref(): void }).unref();
    return started;
  }

  function tell(verb: "watch" | "forget", group: number): void {
    shell.stdin?.write(`${verb} ${group}\n`);
  }

  return {
    watch(group) {
      groups.add(group);
      tell("watch", group);
    },
    forget(group) {
      if (groups.delete(group)) tell("forget", group);
    },
    close() {
      closed = true;
      shell.stdin?.end();
    },
  };
}
