import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { FieldError } from "../src/service/errors.ts";
import { kindOf } from "../src/service/kinds/kinds.ts";
import { TaskError } from "../src/tasks/protocol.ts";
import { completionScript, completionsOf } from "./completion.ts";
import { generalHelp, helpOf, OWN_OPTIONS, synopsisOf } from "./help.ts";
import { modelFiles, openLocalJobs } from "./local-jobs.ts";
import {
  COMMAND_KINDS,
  fillIn,
  flagOf,
  type Kind,
  optionsOf,
  positionalsOf,
  readWords,
  selectorOf,
  specOf,
  UsageError,
} from "./options.ts";
import { flagAt, openService, ServiceRefusal } from "./remote-jobs.ts";
import { summaryOf } from "./summary.ts";
import { progressLine } from "./terminal.ts";

const EXIT = { done: 0, failed: 1, missed: 2, interrupted: 130 } as const;

/** Where a command writes, and what stops it. */
export interface Surroundings {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
}

interface Values {
  readonly [flag: string]: string | boolean | (string | boolean)[] | undefined;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Does what the words ask for. Resolves to the exit code. */
export async function runCommand(words: readonly string[], around: Surroundings): Promise<number> {
  const { stderr, stdout, signal } = around;
  const asJson = words.includes("--json");
  try {
    return await command(words, around);
  } catch (error) {
    if (signal.aborted) {
      stderr.write("Interrupted: nothing was kept.\n");
      return EXIT.interrupted;
    }
    const { code, message, fields } = described(error);
    if (asJson) stdout.write(`${JSON.stringify({ error: { code, message, ...(fields && { fields }) } }, null, 2)}\n`);
    const lines = fields?.map((field) => `${flagAt(field.pointer, flagOf)}: ${field.message}`) ?? [message];
    stderr.write(`${lines.join("\n")}\n`);
    return EXIT.failed;
  }
}

function described(error: unknown): { code: string; message: string; fields?: readonly FieldError[] | undefined } {
  if (error instanceof TaskError) return { code: error.code, message: error.message, fields: error.fields };
  if (error instanceof UsageError) return { code: "usage", message: error.message };
  if (error instanceof ServiceRefusal) return { code: error.code, message: error.message, fields: error.fields };
  if (error instanceof Error && "code" in error) return { code: String(error.code), message: error.message };
  throw error;
}

async function command(words: readonly string[], around: Surroundings): Promise<number> {
  const { stdout } = around;
  const [name, ...rest] = words;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    stdout.write(`${generalHelp()}\n`);
    return name === undefined ? EXIT.failed : EXIT.done;
  }
  if (name === "complete") {
    const lines = completionsOf(rest[0] === "--" ? rest.slice(1) : rest);
    stdout.write(lines.map((line) => `${line}\n`).join(""));
    return EXIT.done;
  }
  if (name === "completion") {
    const script = completionScript(rest[0]);
    if (script === undefined) throw new UsageError("completion wants a shell: bash or zsh.");
    stdout.write(`${script}\n`);
    return EXIT.done;
  }
  if (name === "inspect" || name === "print") return show(name, rest, around);
  const isPlan = name === "plan";
  const [wanted, ...args] = isPlan ? rest : words;
  const kind = COMMAND_KINDS.find(({ type }) => type === wanted);
  if (!kind) {
    const known = COMMAND_KINDS.map(({ type }) => type).join(", ");
    const which = isPlan ? `plan wants a command: ${known}` : `${JSON.stringify(name)} is no command`;
    throw new UsageError(`${which}. See modelpress --help.`);
  }
  return job(kind, args, isPlan, around);
}

const OWN_CONFIG = Object.fromEntries(
  Object.entries(OWN_OPTIONS).map(([flag, { type, ...rest }]) => [
    flag,
    { type, ...("short" in rest && { short: rest.short }) },
  ]),
);

async function show(name: "inspect" | "print", words: readonly string[], around: Surroundings): Promise<number> {
  const { stdout, signal } = around;
  const help = `modelpress ${name} MODEL [--url URL] [--key KEY]`;
  const { values, positionals } = readWords(words, [], OWN_CONFIG, help);
  if (values.help) {
    stdout.write(`${help}\n`);
    return EXIT.done;
  }
  const [path, ...more] = positionals;
  if (path === undefined || more.length > 0) throw new UsageError(`${name} wants one model.`);
  if (name === "print") {
    const [{ openModel }, { printModel }] = await Promise.all([
      import("../workers/model-files.ts"),
      import("../src/core/onnx/print.ts"),
    ]);
    stdout.write(printModel(openModel(modelFiles(path))));
    return EXIT.done;
  }
  const service = serviceOf(values, around);
  let facts: unknown;
  if (service) facts = await openService(service, signal).inspect(path);
  else {
    const jobs = await openLocalJobs(signal);
    facts = await jobs.inspect(path).finally(() => jobs.close());
  }
  stdout.write(`${JSON.stringify(facts, null, 2)}\n`);
  return EXIT.done;
}

async function job(kind: Kind, words: readonly string[], isPlan: boolean, around: Surroundings): Promise<number> {
  const { stdout, stderr, signal } = around;
  const selector = selectorOf(kind);
  const loose = parseArgs({
    args: [...words],
    options: {
      ...(selector && { [selector.flag]: { type: "string" as const } }),
      help: { type: "boolean", short: "h" },
    },
    strict: false,
  }).values;
  const method = selector && ((loose[selector.flag] as string | undefined) ?? selector.default);
  if (loose.help) {
    stdout.write(`${helpOf(kind, method)}\n`);
    return EXIT.done;
  }
  if (selector && method === undefined) {
    const known = kind.methods.map((it) => it.method).join(", ");
    throw new UsageError(`--${selector.flag} is missing: one of ${known}.`);
  }
  const options = optionsOf(kind, method ?? kind.methods[0]!.method);
  const help = `modelpress ${kind.type}${selector ? ` --${selector.flag} ${method}` : ""} --help`;
  const { values, positionals } = readWords(words, options, OWN_CONFIG, help) as {
    values: Values;
    positionals: string[];
  };
  const request: Record<string, unknown> = { type: kind.type, params: selector ? { [selector.flag]: method } : {} };
  takeModels(kind, positionals, request);
  fillIn(request, options, values);
  const spec = specOf(kind, request);
  const reading = readingOf(values["data-spec"] as string | undefined);
  const service = serviceOf(values, around);
  const threads = threadsOf(values.threads as string | undefined);
  const directory =
    (values.output as string | undefined) ??
    `${basename(positionals[0] ?? kind.type, ".onnx")}.${kindOf(spec).methodOf(spec)}`;

  const line = progressLine(stderr, values.quiet === true);
  const local = service ? undefined : await openLocalJobs(signal, isPlan ? undefined : dirname(resolve(directory)));
  const remote = service && openService(service, signal);
  try {
    if (isPlan) {
      const plan = await (local ?? remote!).plan(spec, reading);
      stdout.write(`${JSON.stringify(plan, null, 2)}\n`);
      return EXIT.done;
    }
    const shared = { directory, force: values.force === true, reading };
    const outcome = local
      ? await local.run(spec, {
          ...{ ...shared, threads },
          onNews(news) {
            if (news.kind === "progress") line.show(news.progress.fraction, news.progress.message);
            else if (news.kind === "log") line.log(news.message);
          },
        })
      : await remote!.run(spec, { ...shared, onProgress: line.show });
    line.end();
    stdout.write(`${values.json ? JSON.stringify(outcome, null, 2) : summaryOf(outcome)}\n`);
    return outcome.accepted ? EXIT.done : EXIT.missed;
  } finally {
    line.end();
    await local?.close();
  }
}

function takeModels(kind: Kind, positionals: readonly string[], request: Record<string, unknown>): void {
  const takes = positionalsOf(kind);
  const [first, ...more] = positionals;
  if (takes === "none") {
    if (first !== undefined) throw new UsageError(`${first} is too much: ${kind.type} takes its models by options.`);
  } else if (first === undefined) {
    throw new UsageError(`There is no model: modelpress ${synopsisOf(kind)}`);
  } else if (takes === "some") {
    (request.params as Record<string, unknown>).model_ids = positionals;
  } else {
    if (more.length > 0) throw new UsageError(`One model at a time, and there are ${positionals.length}.`);
    request.model_id = first;
  }
}

function readingOf(text: string | undefined): unknown {
  if (text === undefined) return null;
  try {
    return JSON.parse(existsSync(text) ? readFileSync(text, "utf8") : text);
  } catch (error) {
    throw new UsageError(`--data-spec is neither JSON nor a file of it: ${(error as Error).message}`);
  }
}

function threadsOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const threads = Number(text);
  if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
    throw new UsageError("--threads must be a whole number from 1 to 256.");
  }
  return threads;
}

function serviceOf(values: Readonly<Record<string, unknown>>, { env }: Surroundings) {
  const url = (values.url as string | undefined) ?? env.MODELPRESS_URL;
  const key = (values.key as string | undefined) ?? env.MODELPRESS_API_KEY;
  return url === undefined || url === "" ? undefined : { url, key: key === "" ? undefined : key };
}
