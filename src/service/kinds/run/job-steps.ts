import { checkCancelled } from "../../../core/index.ts";
import type { TaskNews } from "../../../tasks/protocol.ts";

export interface JobContext {
  /** Fires when the job is to stop. */
  readonly signal: AbortSignal;
  news(news: TaskNews): void;
}

/** The steps of a job, one after the other. */
export interface JobSteps<Step extends string> {
  /** Does a step: tells that it begins, and takes its time. Throws `cancelled` instead when the job was stopped. */
  run<T>(step: Step, message: string, work: () => T | Promise<T>): Promise<T>;
  /** Tells how far a step is. A step that was not told of before begins with it, and the one before has ended. */
  progress(step: Step, fraction: number, message: string): void;
  /** Of each step that has ended. */
  readonly timingsMs: Readonly<Record<string, number>>;
}

/** `starts` are the shares of the whole job that have passed when each step begins, in ascending order. */
export function createJobSteps<Step extends string>(
  starts: Readonly<Record<Step, number>>,
  { signal, news }: JobContext,
): JobSteps<Step> {
  const timingsMs: Record<string, number> = {};
  const order = Object.values<number>(starts);
  let current: { readonly step: Step; readonly since: number } | undefined;
  const enter = (step: Step | undefined) => {
    if (current?.step === step) return;
    const now = performance.now();
    if (current) timingsMs[current.step] = (timingsMs[current.step] ?? 0) + now - current.since;
    current = step && { step, since: now };
  };
  const progress = (step: Step, done: number, message: string) => {
    enter(step);
    const end = order.find((start) => start > starts[step]) ?? 1;
    news({ kind: "progress", progress: { step, fraction: starts[step] + done * (end - starts[step]), message } });
  };
  return {
    progress,
    timingsMs,
    async run(step, message, work) {
      checkCancelled(signal);
      progress(step, 0, message);
      const result = await work();
      enter(undefined);
      return result;
    },
  };
}
