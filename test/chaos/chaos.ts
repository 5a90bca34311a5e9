import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../../src/core/random.ts";
import { descendants } from "../support/processes.ts";
import type { Fleet } from "./fleet.ts";

/** Jobs from several keys to a fleet, while things are done to it; and what came of them. */

export interface ChaosOptions {
  readonly seed: number;
  readonly jobs: number;
  /** The bytes of the model that the jobs compress. */
  readonly model: Uint8Array;
  /** Between two acts, on average. */
  readonly pauseMs: number;
  readonly acts: readonly ActName[];
  /** After so many acts the jobs are left in peace: a machine that is slow must come to an end, too. */
  readonly maxActs: number;
  /** For everything that was submitted to end, after the last act. */
  readonly settleMs: number;
  readonly say: (line: string) => void;
}

export interface ChaosReport {
  readonly seed: number;
  readonly submitted: number;
  readonly succeeded: number;
  /** Jobs that were answered with 202 and have not ended, or are not there. */
  readonly lost: readonly string[];
  /** Requests that made two jobs, and jobs that ended twice. */
  readonly doubled: readonly string[];
  /** Jobs that failed: none has a reason of its own to. */
  readonly failed: readonly string[];
  /** Answers that were neither what was asked for nor 503 or 429. */
  readonly wrongAnswers: readonly string[];
  readonly acts: Readonly<Record<string, number>>;
  readonly skipped: readonly string[];
  readonly attempts: number;
  readonly seconds: number;
}

interface JobAnswer {
  readonly id: string;
  readonly status: string;
  readonly attempt: number;
  readonly error: unknown;
}

type Act = (fleet: Fleet, pick: <T>(items: readonly T[]) => T | undefined) => Promise<boolean>;

const CHILD_WAIT_MS = 20_000;

/** Each answers whether it could be done. */
const ACTS = {
  "kill a child": async (fleet, pick) => {
    // What was done before may have left no worker for now.
    for (const start = performance.now(); performance.now() - start < CHILD_WAIT_MS; await sleep(100)) {
      const worker = pick(fleet.pids("worker"));
      const children = worker === undefined ? [] : await descendants(worker, "child.ts");
      if (fleet.signal(pick(children), "SIGKILL")) return true;
    }
    return false;
  },
  "kill a worker": async (fleet, pick) => fleet.signal(pick(fleet.pids("worker")), "SIGKILL"),
  "kill an API": async (fleet, pick) => fleet.signal(pick(fleet.pids("api")), "SIGKILL"),
  "kill Redis": async (fleet) => fleet.signal(fleet.redisPid, "SIGKILL"),
  "Redis full": async ({ redis }) => {
    await redis.config("SET", "maxmemory", "1");
    await sleep(2_000);
    await redis.config("SET", "maxmemory", "0");
    return true;
  },
  "Redis read-only": async ({ redis }) => {
    await redis.call("REPLICAOF", "127.0.0.1", "1");
    await sleep(2_000);
    await redis.call("REPLICAOF", "NO", "ONE");
    return true;
  },
  "disk full": async (fleet) => {
    const free = await fleet.fillDisk();
    await sleep(3_000);
    await free?.();
    return free !== undefined;
  },
  "a clock 25 h ahead": async (fleet) => {
    const code = await fleet.runAhead();
    if (code === 0) throw new Error("A worker whose clock is 25 h ahead has worked.");
    return true;
  },
  "SIGTERM to all in turn": async (fleet) => {
    for (const pid of [...fleet.pids("worker"), ...fleet.pids("api")]) {
      fleet.signal(pid, "SIGTERM");
      await sleep(300);
    }
    return true;
  },
} satisfies Record<string, Act>;

export type ActName = keyof typeof ACTS;
export const ACT_NAMES = Object.keys(ACTS) as ActName[];

export async function runChaos(fleet: Fleet, options: ChaosOptions): Promise<ChaosReport> {
  const { seed, jobs, say } = options;
  const random = new Random(seed, "chaos");
  const pick = <T>(items: readonly T[]) => (items.length === 0 ? undefined : items[random.integer(items.length)]);
  const started = performance.now();
  const wrong: string[] = [];
  const ids = new Map<string, Set<string>>();
  const keyOf = (i: number) => fleet.keys[i % fleet.keys.length]!;

  /** Asks until there is an answer that is not "later", at one API process after the other, as clients behind a load balancer do. */
  async function ask(i: number, method: string, path: string, init: RequestInit = {}): Promise<unknown> {
    for (let turn = i; ; turn++) {
      const url = fleet.urls[turn % fleet.urls.length]! + path;
      const headers = { authorization: `Bearer ${keyOf(i)}`, ...(init.headers as Record<string, string>) };
      const answer = await fetch(url, { ...init, method, headers }).catch(() => undefined);
      const text = await answer?.text().catch(() => undefined);
      if (answer?.ok && text !== undefined) return JSON.parse(text);
      if (answer !== undefined && !answer.ok && ![429, 503].includes(answer.status)) {
        wrong.push(`${method} ${path}: ${answer.status} ${text}`);
        if (answer.status < 500) return undefined;
      }
      await sleep(250);
    }
  }

  const upload = { body: Buffer.from(options.model), headers: { "content-type": "application/octet-stream" } };
  const model = (await ask(0, "POST", "/v1/models?name=chaos", upload)) as { id: string } | undefined;
  if (model === undefined) throw new Error(`The model is refused: ${wrong.at(-1)}`);
  const model_id = model.id;

  let isOver = false;
  const done: Record<string, number> = {};
  const skipped = new Set<string>();
  async function disturb(): Promise<void> {
    // Each once in an order of chance, also when the jobs are fast, then any until they are done.
    const first = options.acts.map((act) => [random.uniform(), act] as const).sort(([a], [b]) => a - b);
    for (let turn = 0; turn < options.maxActs; turn++) {
      await sleep(options.pauseMs * (0.5 + random.uniform()));
      if (isOver && turn >= first.length) return;
      const name = first[turn]?.[1] ?? pick(options.acts)!;
      if (await ACTS[name](fleet, pick)) {
        done[name] = (done[name] ?? 0) + 1;
        say(`${((performance.now() - started) / 1000).toFixed(1)} s: ${name}`);
      } else skipped.add(name);
    }
  }

  async function submit(i: number): Promise<string> {
    const spec = {
      type: "quantize",
      model_id,
      params: { method: "float16", seed: i },
      evaluation: { samples: 1, latency: { runs: 1 } },
    };
    const headers = { "content-type": "application/json", "idempotency-key": `chaos-${seed}-${i}` };
    const { id } = (await ask(i, "POST", "/v1/jobs", { body: JSON.stringify(spec), headers })) as JobAnswer;
    // Asked again, as who has lost the answer does.
    const again = (await ask(i, "POST", "/v1/jobs", { body: JSON.stringify(spec), headers })) as JobAnswer;
    ids.set(`request ${i}`, new Set([id, again.id]));
    return id;
  }

  const disturbing = disturb();
  const submitted = await Promise.all(
    Array.from({ length: jobs }, async (_, i) => {
      // Over the time that each act takes its turn in: none finds all work done.
      await sleep(random.uniform() * options.pauseMs * options.acts.length);
      return submit(i);
    }),
  );
  say(`${submitted.length} jobs submitted`);
  const ended = new Map<string, JobAnswer>();
  const deadline = () => performance.now() - started > options.settleMs;
  while (ended.size < submitted.length && !deadline()) {
    for (const [i, id] of submitted.entries()) {
      if (ended.has(id)) continue;
      const job = (await ask(i, "GET", `/v1/jobs/${id}`)) as JobAnswer | undefined;
      if (job === undefined || ["succeeded", "failed", "cancelled"].includes(job.status)) {
        ended.set(id, job ?? { id, status: "missing", attempt: 0, error: null });
      }
    }
    // The last jobs end in peace: what is to be shown is that nothing needs a hand.
    if (ended.size > 0.9 * submitted.length) isOver = true;
    await sleep(500);
  }
  isOver = true;
  await disturbing;

  const doubled = [...ids].filter(([, made]) => made.size > 1).map(([request]) => request);
  for (const id of submitted) {
    const events = (await ask(submitted.indexOf(id), "GET", `/v1/jobs/${id}/events?limit=1000`)) as {
      data: { type: string; data: { status?: string } }[];
    };
    const ends = events.data.filter(
      ({ type, data }) => type === "status" && ["succeeded", "failed"].includes(String(data.status)),
    );
    if (ends.length > 1) doubled.push(id);
  }
  const answers = [...ended.values()];
  return {
    seed,
    submitted: submitted.length,
    succeeded: answers.filter(({ status }) => status === "succeeded").length,
    lost: [
      ...submitted.filter((id) => !ended.has(id)),
      ...answers.filter(({ status }) => status === "missing").map(({ id }) => id),
    ],
    doubled,
    failed: answers
      .filter(({ status }) => status === "failed" || status === "cancelled")
      .map(({ id, error }) => `${id} ${JSON.stringify(error)}`),
    wrongAnswers: wrong,
    acts: done,
    skipped: [...skipped],
    attempts: answers.reduce((sum, { attempt }) => sum + attempt, 0),
    seconds: Math.round((performance.now() - started) / 100) / 10,
  };
}
