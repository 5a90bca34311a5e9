import { CoreError } from "../errors.ts";
import type { Model } from "../onnx/ir.ts";
import type { Session, SessionOptions } from "./session.ts";

/** What each kernel of a model takes, by onnxruntime's own profiler. */

/** One node of the graph that onnxruntime runs. */
export interface KernelTime {
  /** As onnxruntime names it: the node's name, its result's, or one of its own. */
  readonly name: string;
  readonly op: string;
  /** Elements of the first output, where the profile tells. */
  readonly elements: number;
  /** Microseconds in one run, all calls of it together: the least, because what the machine does besides only makes it longer. */
  readonly us: number;
}

/**
 * Loads a model with the profiler on, lets `use` run it, and answers the profile, JSON as onnxruntime writes it, and the session: the profiler is off then,
 * and it is the caller's to close.
 */
export type ProfileModel = (
  model: Model,
  use: (session: Session) => Promise<void>,
  options?: Pick<SessionOptions, "threads">,
) => Promise<{ readonly text: string; readonly session: Session }>;

interface ProfileEvent {
  readonly cat: string;
  readonly name: string;
  /** Microseconds. */
  readonly ts: number;
  readonly dur: number;
  readonly args?: {
    readonly op_name?: string;
    readonly output_type_shape?: readonly Readonly<Record<string, readonly number[]>>[];
  };
}

const KERNEL = "_kernel_time";
/**
 * The kernels of a profile, in the order in which they ran. The first `skip` runs warm up and do not count. Throws `internal` for a profile without
 * others.
 */
export function readKernelProfile(text: string, skip: number): KernelTime[] {
  const events = (JSON.parse(text) as readonly ProfileEvent[]).toSorted((a, b) => a.ts - b.ts);
  const runs = events.filter(({ cat, name }) => cat === "Session" && name === "model_run").slice(skip);
  if (runs.length === 0) throw new CoreError("internal", "The profile has no run.");
  const kernels = events.filter(({ cat, name }) => cat === "Node" && name.endsWith(KERNEL));
  const found = new Map<string, { readonly kernel: Omit<KernelTime, "us">; readonly times: number[] }>();
  let at = 0;
  for (const { ts, dur } of runs) {
    const sums = new Map<string, number>();
    while (at < kernels.length && kernels[at]!.ts < ts) at++;
    for (; at < kernels.length && kernels[at]!.ts <= ts + dur; at++) {
      const event = kernels[at]!;
      if (!found.has(event.name)) found.set(event.name, { kernel: kernelOf(event), times: [] });
      sums.set(event.name, (sums.get(event.name) ?? 0) + event.dur);
    }
    for (const [name, us] of sums) found.get(name)!.times.push(us);
  }
  return [...found.values()].map(({ kernel, times }) => ({ ...kernel, us: Math.min(...times) }));
}

function kernelOf({ name, args = {} }: ProfileEvent): Omit<KernelTime, "us"> {
  const { op_name = "", output_type_shape } = args;
  const [first] = output_type_shape ?? [];
  const dims = first && Object.values(first)[0];
  return {
    name: name.slice(0, -KERNEL.length),
    op: op_name,
    elements: dims?.reduce((product, dim) => product * dim, 1) ?? 0,
  };
}

/** What onnxruntime appends to names of nodes that it has made of others. */
const SUFFIXES = /(?:_token_\d+|_nchwc|_nhwc|\/\w+Fusion\/?|_quant)+$/;

/** The name of the node or the value that a kernel was made of, unless onnxruntime has made up the name. */
export function originOf(name: string): string {
  return name.replace(SUFFIXES, "");
}
