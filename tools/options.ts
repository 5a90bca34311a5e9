import { type ParseArgsConfig, parseArgs } from "node:util";
import { z } from "zod";
import { whatItMustBe } from "../src/service/field-errors.ts";
import type { JobKind } from "../src/service/kinds/kind.ts";
import { type JobSpec, KINDS } from "../src/service/kinds/kinds.ts";

/** The options of commands. They follow from the schemas of requests: there is no second list. */

/** A kind of job that is a command, with the schemas of what can be chosen within it. */
export type Kind = (typeof KINDS)[number];

/** Pipelines are written as files and sent to a service: their steps are no flags. */
export const COMMAND_KINDS: readonly Kind[] = KINDS.filter(({ type }) => type !== "pipeline");

export interface Option {
  readonly flag: string;
  /** Where its value goes in the request. */
  readonly path: readonly string[];
  readonly types: ReadonlySet<string>;
  readonly choices: readonly string[];
  readonly default: unknown;
  readonly description: string;
  /** Whether it may be given several times: a list, or pairs of `name=value`. */
  readonly many: "list" | "pairs" | undefined;
  /** Whether it names a file; the service knows it by an id. */
  readonly isFile: boolean;
}

/** A mistake in how the command was called. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

type Json = Readonly<Record<string, unknown>>;

/** What one of the kinds' own commands takes: the method's parameters bare, the rest of the request under its name. */
export function optionsOf(kind: Kind, method: string): Option[] {
  const chosen = kind.methods.find((it) => it.method === method);
  if (!chosen) {
    const known = kind.methods.map((it) => it.method).join(", ");
    throw new UsageError(`${JSON.stringify(method)} is none of ${known}.`);
  }
  const { evaluation, acceptance } = kind.request.shape as unknown as Record<string, z.ZodType>;
  const found = [
    ...walk(schemaOf(chosen.params), ["params"]),
    ...walk(schemaOf(evaluation!), ["evaluation"]),
    ...walk(schemaOf(acceptance!), ["acceptance"]),
  ];
  const seen = new Map<string, Option>();
  for (const option of found) {
    const other = seen.get(option.flag);
    seen.set(option.flag, other ? merged(other, option) : option);
  }
  return [...seen.values()].filter(({ path }) => path.at(-1) !== "model_ids");
}

/** What chooses between the methods of a kind: `method`, `mode`; undefined where there is one only. */
export function selectorOf(kind: Kind): { readonly flag: string; readonly default: string | undefined } | undefined {
  const { chosenBy } = kind as JobKind<JobSpec>;
  return chosenBy && { flag: chosenBy.parameter, default: chosenBy.otherwise };
}

/** How many models are named without a flag. */
export function positionalsOf(kind: Kind): "none" | "one" | "some" {
  if (kind.methods.some(({ params }) => params instanceof z.ZodObject && "model_ids" in params.shape)) return "some";
  return "model_id" in kind.request.shape ? "one" : "none";
}

function schemaOf(schema: z.ZodType): Json {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as Json;
}

function walk(root: Json, prefix: readonly string[]): Option[] {
  const definitions = (root.$defs ?? {}) as Record<string, Json>;
  const resolve = (node: Json): Json => {
    const name = typeof node.$ref === "string" ? node.$ref.replace("#/$defs/", "") : undefined;
    return name === undefined ? node : { ...definitions[name], ...node, $ref: undefined };
  };
  const alternatives = (node: Json): Json[] => {
    const { anyOf, oneOf, allOf } = node as Record<string, readonly Json[] | undefined>;
    const inner = [...(anyOf ?? []), ...(oneOf ?? []), ...(allOf ?? [])];
    return inner.length === 0 ? [node] : inner.flatMap((it) => alternatives(resolve(it)));
  };
  const visit = (raw: Json, path: readonly string[]): Option[] => {
    const node = resolve(raw);
    const forms = alternatives(node);
    const objects = forms.filter((form) => form.properties !== undefined);
    const scalars = forms.filter((form) => form.properties === undefined);
    const inner = objects.flatMap((form) =>
      Object.entries(form.properties as Record<string, Json>).flatMap(([name, child]) => visit(child, [...path, name])),
    );
    const isOnlyNull = scalars.every((form) => form.type === "null");
    if (scalars.length === 0 || (objects.length > 0 && isOnlyNull)) return inner;
    return [...inner, leaf(node, scalars, path)];
  };
  return visit(root, prefix);
}

function leaf(node: Json, forms: readonly Json[], path: readonly string[]): Option {
  const types = new Set(forms.flatMap(({ type, const: value }) => (type ?? typeof value) as string | string[]));
  const choices = forms.flatMap(
    ({ enum: values, const: value }) => (values as unknown[] | undefined) ?? (value === undefined ? [] : [value]),
  );
  const isRecord = forms.some((form) => form.additionalProperties !== undefined && form.additionalProperties !== false);
  return {
    flag: flagOf(path),
    path,
    types,
    // A switch that must stay as it is has one choice, which is no value to give.
    choices: types.size === 1 && types.has("boolean") ? [] : choices.map(String),
    default: node.default,
    description: String(node.description ?? forms.find(({ description }) => description)?.description ?? ""),
    many: types.has("array") ? "list" : isRecord ? "pairs" : undefined,
    isFile: /(?:^|_)(?:model|dataset)_ids?$/.test(path.at(-1)!) || path.join("/") === "params/teacher",
  };
}

/** `params/loss/kl_weight` is `loss.kl-weight`, `params/dataset_id` is `dataset`: of what has an id the file is given. */
export function flagOf(path: readonly string[]): string {
  const names = path[0] === "params" ? path.slice(1) : path;
  return names.map((name) => name.replace(/(^|_)(model|dataset)_id$/, "$1$2").replaceAll("_", "-")).join(".");
}

/** The same option in two alternatives of a union. */
function merged(a: Option, b: Option): Option {
  const choices = a.choices.length > 0 && b.choices.length > 0 ? [...new Set([...a.choices, ...b.choices])] : [];
  return { ...a, types: new Set([...a.types, ...b.types]), choices, many: a.many ?? b.many };
}

/** Whether it takes no value: `--flag` or `--no-flag`. */
export function isSwitch({ types }: Option): boolean {
  return types.size === 1 && types.has("boolean");
}

type Config = NonNullable<ParseArgsConfig["options"]>;

/** Reads words by these options and `own` ones. Throws `UsageError` for a flag that is none, with `help` as what to ask for. */
export function readWords(words: readonly string[], options: readonly Option[], own: Config, help: string) {
  const config: Config = { ...own };
  for (const option of options) {
    config[option.flag] = isSwitch(option)
      ? { type: "boolean" }
      : { type: "string", ...(option.many && { multiple: true as const }) };
  }
  // The parser takes a negative number for a flag unless it is joined to its own.
  const args = words.flatMap((word, i) => {
    if (/^-[\d.]/.test(word) && words[i - 1]?.startsWith("--")) return [];
    const next = words[i + 1];
    return word.startsWith("--") && next !== undefined && /^-[\d.]/.test(next) ? [`${word}=${next}`] : [word];
  });
  try {
    return parseArgs({ args, options: config, allowPositionals: true, allowNegative: true, strict: true });
  } catch (error) {
    const [, flag] = /Unknown option '(--[^']+)'/.exec((error as Error).message) ?? [];
    const message = flag ? `${flag} is no option here.` : (error as Error).message.split(". To specify")[0];
    throw new UsageError(`${message}\nWhat there is: ${help}`);
  }
}

/** Puts the values of options where the request has them. */
export function fillIn(request: Record<string, unknown>, options: readonly Option[], values: Json): void {
  for (const option of options) {
    const given = values[option.flag];
    if (given === undefined) continue;
    let at = request;
    for (const name of option.path.slice(0, -1)) {
      at[name] ??= {};
      at = at[name] as Record<string, unknown>;
    }
    at[option.path.at(-1)!] = readValue(option, given as string | boolean | readonly string[]);
  }
}

function readValue(option: Option, given: string | boolean | readonly string[]): unknown {
  if (typeof given === "boolean") return given;
  if (typeof given === "string") return scalarOf(option, given);
  if (option.many === "pairs") {
    return Object.fromEntries(
      given.map((pair) => {
        const [, name, value] = /^(.+)=(.*)$/.exec(pair) ?? [];
        if (name === undefined) throw new UsageError(`--${option.flag} wants name=value, not ${JSON.stringify(pair)}.`);
        return [name, scalarOf({ ...option, types: new Set(["number", "string"]) }, value!)];
      }),
    );
  }
  const isOne = given.length === 1 && !option.types.has("array");
  if (isOne || (given.length === 1 && /^[[{]/.test(given[0]!))) return scalarOf(option, given[0]!);
  // A union of a list with a number, as `exits`: one number is that number.
  const items = given.map((text) => scalarOf({ ...option, types: new Set(["number", "string"]) }, text));
  return items.length === 1 && typeof items[0] === "number" && option.types.has("integer") ? items[0] : items;
}

/** The text as what its schema allows; the schema itself says what is wrong with it. */
function scalarOf({ types, flag }: Option, text: string): unknown {
  if (/^[[{]/.test(text) && (types.has("array") || types.has("object"))) {
    try {
      return JSON.parse(text);
    } catch {
      throw new UsageError(`--${flag} wants JSON, and this is none: ${text}`);
    }
  }
  if (text === "null" && types.has("null")) return null;
  if ((text === "true" || text === "false") && types.has("boolean")) return text === "true";
  if (text.trim() !== "" && (types.has("number") || types.has("integer")) && Number.isFinite(Number(text))) {
    return Number(text);
  }
  return text;
}

/** The request as a spec with every default. Throws `UsageError` that names the flags. */
export function specOf(kind: Kind, request: object): JobSpec {
  const parsed = (kind.request as z.ZodType).safeParse(request, { error: whatItMustBe });
  if (!parsed.success) {
    const lines = parsed.error.issues.map(({ path, message }) => `--${flagOf(path.map(String))}: ${message}`);
    throw new UsageError([...new Set(lines)].join("\n"));
  }
  const { name, metadata, priority, webhook, deliver_to, ...spec } = parsed.data as Json;
  return spec as unknown as JobSpec;
}
