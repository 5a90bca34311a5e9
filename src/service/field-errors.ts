import type { z } from "zod";
import { type FieldError, pointerOf } from "./errors.ts";

/** What a request is told about its fields: sentences and codes of our own, whatever validates them. */

type RawIssue = Parameters<z.core.$ZodErrorMap>[0];
type Issue = z.core.$ZodIssue;

/**
 * Says what a field must be; for schemas that do not say it themselves. Give it to `safeParse` as `error`. Undefined leaves the
 * sentence to the schema.
 */
export function whatItMustBe(issue: RawIssue): string | undefined {
  switch (issue.code) {
    case "invalid_type":
      return issue.input === undefined ? "is required" : `must be ${kindOf(issue.expected)}`;
    case "invalid_value":
      return `must be ${oneOf(issue.values)}`;
    case "invalid_union":
      return memberOf(issue);
    case "too_small":
      return bounded(issue.origin, issue.minimum, issue.inclusive === false ? "more than" : "at least");
    case "too_big":
      return bounded(issue.origin, issue.maximum, issue.inclusive === false ? "less than" : "at most");
    case "not_multiple_of":
      return `must be a multiple of ${issue.divisor}`;
    case "invalid_format":
      return `is not written as ${issue.format === "regex" ? "it must be" : `a ${issue.format} is`}`;
    default:
      return undefined;
  }
}

/** A schema's complaints, each with a JSON pointer (RFC 6901) below `prefix`. */
export function fieldErrorsOf(error: z.ZodError, prefix: string): FieldError[] {
  return error.issues.flatMap((issue) => {
    const pointer = pointerOf(prefix, issue.path);
    if (issue.code !== "unrecognized_keys") {
      return [{ pointer, code: codeOf(issue), message: sentence(pointer, issue.message) }];
    }
    // One error for each unknown key, at that key.
    return issue.keys.map((key) => {
      const at = pointerOf(pointer, [key]);
      return { pointer: at, code: "unrecognized_key", message: sentence(at, "there is no such field") };
    });
  });
}

/** Stable, and told in the guide to codes. */
function codeOf({ code, message }: Issue): FieldError["code"] {
  if (message === "is required") return "required";
  const codes = {
    invalid_type: "wrong_type",
    invalid_value: "not_allowed",
    invalid_union: "not_allowed",
    invalid_format: "wrong_format",
    not_multiple_of: "not_allowed",
    too_big: "too_large",
    too_small: "too_small",
  } as const;
  return code in codes ? codes[code as keyof typeof codes] : "invalid";
}

function sentence(pointer: string, message: string): string {
  return `${pointer === "" ? "The body" : pointer}: ${message.replace(/\.$/, "")}.`;
}

const KINDS: Readonly<Record<string, string>> = {
  ...{ int: "a whole number", number: "a number", string: "a text", boolean: "true or false" },
  ...{ array: "a list", object: "an object", record: "an object", null: "null" },
};

function kindOf(expected: string): string {
  return KINDS[expected] ?? expected;
}

/** `2, 4 or 8`; `"rtn" or "gptq"`. */
function oneOf(values: readonly unknown[]): string {
  return either(values.map((value) => (typeof value === "bigint" ? `${value}` : JSON.stringify(value))));
}

function either(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** What the members of a union want, where each wants one plain thing of the value itself. */
function memberOf(issue: Extract<RawIssue, { code: "invalid_union" }>): string | undefined {
  const { discriminator, options, errors, input } = issue as {
    discriminator?: string;
    options?: readonly unknown[];
  } & typeof issue;
  if (discriminator !== undefined && options !== undefined) {
    const given = (input as Record<string, unknown> | null | undefined)?.[discriminator];
    return given === undefined ? "is required" : `must be ${oneOf(options)}`;
  }
  if (input === undefined) return "is required";
  const wanted = errors.map(([first, ...others]) => (first === undefined || others.length > 0 ? undefined : first));
  if (!wanted.every((it) => it !== undefined && it.path.length === 0)) return undefined;
  const words = wanted.map((it) => it!.message.match(/^must be (.*)$/)?.[1]);
  return words.every((word) => word !== undefined) ? `must be ${either(words.flatMap((word) => word!))}` : undefined;
}

function bounded(origin: string, limit: number | bigint, how: string): string {
  if (origin === "string")
    return limit === 1 && how === "at least" ? "must not be empty" : `must have ${how} ${limit} characters`;
  if (origin === "array" || origin === "set") return `must have ${how} ${limit} ${limit === 1 ? "entry" : "entries"}`;
  if (origin === "object" || origin === "record") return `must have ${how} ${limit} fields`;
  return `must be ${how} ${limit}`;
}
