import type { Readable } from "node:stream";
import { z } from "zod";
import { PROBLEMS, type ProblemCode } from "../service/errors.ts";

/**
 * What children and their parents say to each other: one line of JSON a message. A child may have been taken over by what it reads, so
 * nothing it sends is believed to have any form before it was looked at; what has another form ends the child, and never its parent.
 */

/** The descriptor that a child writes its messages to. It reads its one task from stdin. */
export const MESSAGE_FD = 3;
/** A result holds facts or metrics; the largest models' take some MiB. */
export const MAX_MESSAGE_BYTES = 32 * 2 ** 20;
/** What a child says beyond this in one interval waits for the next: telling it apart must leave its parent time for others. */
const INTERVAL_MS = 50;
const MAX_MESSAGES_PER_INTERVAL = 500;

const Name = z.string().min(1).max(1_000);
const Path = z.string().min(1).max(4_096);
const Message = z.string().max(64 * 1024);
const Produced = z.object({ name: Name, path: Path, media_type: z.string().max(200) });

const News = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("progress"),
    // Null is what JSON makes of a number that is not finite.
    progress: z.object({ step: Name, fraction: z.number().nullable(), message: Message }),
  }),
  z.object({ kind: z.literal("log"), level: z.enum(["info", "warn"]), message: Message }),
  z.object({ kind: z.literal("metric"), data: z.record(z.string(), z.unknown()) }),
  z.object({ kind: z.literal("checkpoint"), name: Name, path: Path }),
  z.object({ kind: z.literal("cache"), name: Name, path: Path }),
]);

const Failure = z.object({
  code: z.enum(Object.keys(PROBLEMS) as [ProblemCode, ...ProblemCode[]]),
  message: Message,
  subject: z.string().max(10_000).optional(),
  fields: z.array(z.object({ pointer: z.string(), code: z.string(), message: z.string() })).optional(),
});

const Field = z.looseObject({ name: z.string() });
const ModelFacts = z.looseObject({
  inputs: z.array(Field),
  outputs: z.array(Field),
  operators: z.record(z.string(), z.number()),
  nodes: z.number(),
  parameters: z.number(),
  weight_bytes: z.number(),
  trainable: z.looseObject({ ok: z.boolean() }),
  non_finite_weights: z
    .array(
      z.looseObject({
        name: z.string(),
        layers: z.array(z.looseObject({ name: z.string(), op: z.string() })),
        count: z.number(),
        first: z.looseObject({ index: z.array(z.number()), value: z.string() }),
      }),
    )
    .max(1000)
    .optional(),
});

/** The forms of results, as far as parents look into them. */
const RESULTS: Readonly<Record<string, z.ZodType>> = {
  inspect_model: ModelFacts,
  list_layers: z.array(Field),
  inspect_dataset: z.looseObject({ samples: z.number(), fields: z.array(Field), has_labels: z.boolean() }),
  check_exclusions: z.array(z.looseObject({ pointer: z.string(), code: z.string(), message: z.string() })),
  plan_job: z.looseObject({ type: z.string() }),
  run_job: z.looseObject({
    model: z.array(Produced),
    front: z
      .array(
        z.looseObject({
          // Artifacts are called by it.
          name: z.string().regex(/^[a-z0-9-]{1,60}$/),
          files: z.array(Produced).min(1),
          facts: ModelFacts,
          renamed: Produced.nullable(),
        }),
      )
      .max(200)
      .optional(),
    reports: z.array(Produced),
    facts: ModelFacts,
    metrics: z.looseObject({}),
    accepted: z.boolean(),
  }),
};

const FromChild = z.discriminatedUnion("type", [
  z.object({ type: z.literal("ready") }),
  z.object({ type: z.literal("started") }),
  z.object({ type: z.literal("news"), news: News }),
  z.object({ type: z.literal("result"), result: z.unknown() }),
  z.object({ type: z.literal("failure"), failure: Failure }),
]);

export type CheckedMessage = z.infer<typeof FromChild>;

/** A line from a child. Throws for one that is not a message. */
export function parseMessage(line: string): CheckedMessage {
  return FromChild.parse(JSON.parse(line));
}

/** Throws for a result that is not one of that kind of task. */
export function checkResult(kind: string, result: unknown): void {
  RESULTS[kind]?.parse(result);
}

/** Of an error of the two above: what was wrong, without what the child has sent. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof z.ZodError)) return "it is not JSON";
  const [issue] = error.issues;
  return `${issue?.path.join(".") || "message"}: ${issue?.code}`;
}

export interface LineOptions {
  readonly onLine: (line: string) => void;
  /** A line is longer than `MAX_MESSAGE_BYTES`. */
  readonly onTooLong: () => void;
}

/** Reads lines, of bounded length and at a bounded pace. */
export function readLines(stream: Readable, { onLine, onTooLong }: LineOptions): void {
  let parts: Buffer[] = [];
  let bytes = 0;
  let lines = 0;
  let since = performance.now();

  stream.on("data", (chunk: Buffer) => {
    let rest = chunk;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const line = Buffer.concat([...parts, rest.subarray(0, end)]).toString("utf8");
      parts = [];
      bytes = 0;
      rest = rest.subarray(end + 1);
      lines++;
      onLine(line);
    }
    if (rest.length > 0) parts.push(rest);
    bytes += rest.length;
    if (bytes > MAX_MESSAGE_BYTES) {
      stream.destroy();
      return onTooLong();
    }
    if (lines < MAX_MESSAGES_PER_INTERVAL) return;
    const passed = performance.now() - since;
    if (passed < INTERVAL_MS) {
      stream.pause();
      setTimeout(() => stream.resume(), INTERVAL_MS - passed);
    }
    lines = 0;
    since = performance.now();
  });
  stream.on("error", () => {});
}
