import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readGauges } from "../scripts/demo/gauges.ts";
import { startStack } from "../scripts/demo/stack.ts";
import { hostileInput } from "./hostile/inputs.ts";

/**
 * Damaged models, archives, arrays, images, tables and specs. First many (COUNT, from number SEED on) in child processes, as the service inspects
 * uploads: each must be accepted or refused with a reason. A child that crashes or hangs is told, with the number of the input, and a new one goes on.
 * Then some (REQUESTS) through a whole service: no answer may be 5xx, and the API must not grow.
 */

const COUNT = Number(process.env.COUNT ?? 20_000);
const SEED = Number(process.env.SEED ?? 1);
const REQUESTS = Number(process.env.REQUESTS ?? 200);
const CHILDREN = 2;
const HANG_MS = 30_000;
/** A child is replaced after so many, as the service replaces its after each. */
const INPUTS_PER_CHILD = 1_000;

interface Answer {
  readonly seed: number;
  readonly ended: string;
  readonly residentBytes: number;
}

const endings = new Map<string, number>();
const bad: string[] = [];
let mostBytes = 0;
let next = SEED;

function count(ended: string): void {
  endings.set(ended, (endings.get(ended) ?? 0) + 1);
}

/** Undefined when the child has died, or hangs. */
async function ask(child: ChildProcess, seed: number): Promise<Answer | undefined> {
  const waiting = new AbortController();
  const timer = setTimeout(() => child.kill("SIGKILL"), HANG_MS);
  const { signal } = waiting;
  const died = once(child, "exit", { signal }).then(
    () => undefined,
    () => undefined,
  );
  const answered = once(child, "message", { signal }).then(
    ([answer]) => answer as Answer,
    () => undefined,
  );
  child.send(seed);
  const answer = await Promise.race([answered, died]);
  clearTimeout(timer);
  waiting.abort();
  return answer;
}

async function work(): Promise<void> {
  while (next < SEED + COUNT) {
    const child = fork(new URL("./hostile/child.ts", import.meta.url), [], {
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    await once(child, "message"); // It is ready: on a loaded machine that takes its time.
    for (let i = 0; i < INPUTS_PER_CHILD && next < SEED + COUNT; i++) {
      const seed = next++;
      const answer = await ask(child, seed);
      if (answer === undefined) {
        const how = child.signalCode === "SIGKILL" ? "hung" : "crashed";
        count(`child ${how}`);
        bad.push(`${seed} (${hostileInput(seed).name}): the child ${how}`);
        break;
      }
      mostBytes = Math.max(mostBytes, answer.residentBytes);
      count(answer.ended.split(":")[0]!);
      if (answer.ended.startsWith("internal")) bad.push(`${seed} (${hostileInput(seed).name}): ${answer.ended}`);
    }
    child.kill("SIGKILL");
  }
}

const before = process.memoryUsage.rss();
const started = performance.now();
await Promise.all(Array.from({ length: CHILDREN }, work));
const seconds = (performance.now() - started) / 1000;
const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
console.log(`${COUNT} inputs from number ${SEED} on, ${seconds.toFixed(0)} s`);
for (const [ended, number] of [...endings].sort(([, a], [, b]) => b - a))
  console.log(`  ${String(number).padStart(6)} ${ended}`);
console.log(
  `  children at most ${mib(mostBytes)}, parent ${mib(before)} before and ${mib(process.memoryUsage.rss())} after`,
);
for (const line of bad) console.log(`  ${line}`);

const stack = await startStack({ LOG_LEVEL: "error", RATE_LIMIT_PER_MINUTE: "0" });
try {
  const statuses = new Map<number, number>();
  const first = (await readGauges(stack.url)).residentBytes;
  for (let seed = SEED; seed < SEED + REQUESTS; seed++) {
    const { kind, name, bytes, spec } = hostileInput(seed);
    const form = new FormData();
    if (spec !== null) form.set("spec", JSON.stringify(spec));
    form.set("file", new Blob([Buffer.from(bytes)]), name);
    const answer = await fetch(`${stack.url}/v1/${kind}s`, { method: "POST", body: form });
    await answer.arrayBuffer();
    statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    if (answer.status >= 500) bad.push(`${seed} (${name}): ${answer.status}`);
  }
  const last = (await readGauges(stack.url)).residentBytes;
  console.log(`${REQUESTS} requests: ${[...statuses].map(([status, number]) => `${number} x ${status}`).join(", ")}`);
  console.log(`  API ${mib(first)} before and ${mib(last)} after`);
} finally {
  await stack.close();
}
// A crash of a child is the runtime's, and an answer of 422; what is wrong is an error without a reason, or a 5xx.
if (bad.some((line) => line.includes("internal") || / 5\d\d$/.test(line))) process.exitCode = 1;
