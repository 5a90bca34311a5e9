import { COMMAND_KINDS, isSwitch, type Kind, type Option, optionsOf, positionalsOf, selectorOf } from "./options.ts";
import { wrapped } from "./terminal.ts";

const WIDTH = 110;
const INDENT = 6;

/** Options of the command line itself, the same for all commands. */
export const OWN_OPTIONS = {
  output: {
    type: "string",
    short: "o",
    value: "DIR",
    text: "Where the model and its reports go; a directory that is made.",
  },
  force: { type: "boolean", text: "Replace the directory if it is there." },
  "data-spec": {
    type: "string",
    value: "JSON",
    text: "How datasets are to be read where the file does not say it: JSON, or a file of it.",
  },
  threads: { type: "string", value: "N", text: "Threads to compute with; by default as many as there are processors." },
  json: { type: "boolean", text: "Print the result as JSON, and nothing else, on stdout." },
  quiet: { type: "boolean", short: "q", text: "Show no progress." },
  url: { type: "string", value: "URL", text: "Have a service do it. Also: MODELPRESS_URL." },
  key: {
    type: "string",
    value: "KEY",
    text: "Its API key. Also: MODELPRESS_API_KEY, which other users of the machine cannot read.",
  },
  help: { type: "boolean", short: "h", text: "Show this." },
} as const;

const OTHERS = [
  ["inspect MODEL", "Say what a model is: inputs, outputs, operators, weights."],
  ["print MODEL", "Print a model's graph as text."],
  ["plan COMMAND …", "Say what a command would do, and do nothing."],
  ["completion bash|zsh", "Print what completes these words in a shell."],
] as const;

const TEXT: Readonly<Record<Kind["type"], string>> = {
  quantize: "Compress a model.",
  distill: "Train a smaller model, with a teacher or without one.",
  pipeline: "",
  evaluate: "Measure models against each other.",
  auto: "Try the methods of compression within a budget, and keep the models worth having.",
};

/** How a command is called: `quantize MODEL --method …`. */
export function synopsisOf(kind: Kind): string {
  const selector = selectorOf(kind);
  const models = { none: "", one: " MODEL", some: " MODEL…" }[positionalsOf(kind)];
  return `${kind.type}${models}${selector && selector.default === undefined ? ` --${selector.flag} ${selector.flag.toUpperCase()}` : ""}`;
}

export function generalHelp(): string {
  const rows = [...COMMAND_KINDS.map((kind) => [synopsisOf(kind), TEXT[kind.type]] as const), ...OTHERS].map(
    ([words, text]) => `  modelpress ${words.padEnd(32)} ${text}`,
  );
  return [
    "modelpress compresses ONNX models, on this machine or by a service (--url).",
    "",
    ...rows,
    "",
    "  modelpress COMMAND --help says what a command takes.",
    "",
    "Exit codes: 0 done, 1 failed, 2 done but a limit of --acceptance was missed, 130 interrupted.",
  ].join("\n");
}

export function helpOf(kind: Kind, method: string | undefined): string {
  const selector = selectorOf(kind);
  const own = Object.entries(OWN_OPTIONS).map(([flag, option]) => {
    const short = "short" in option ? `-${option.short}, ` : "";
    return entry(`${short}--${flag}${"value" in option ? ` ${option.value}` : ""}`, option.text);
  });
  const chosen = method ?? selector?.default ?? (selector ? undefined : kind.methods[0]!.method);
  const methods = kind.methods.map((it) => it.method).join(", ");
  return [
    `modelpress ${synopsisOf(kind)} [options]`,
    "",
    TEXT[kind.type],
    ...(selector
      ? [
          "",
          `  --${selector.flag} is one of ${methods}${selector.default ? `; ${selector.default} if not given` : ""}.`,
        ]
      : []),
    ...(chosen === undefined
      ? [`  Each has options of its own: modelpress ${kind.type} --${selector!.flag} ${kind.methods[0]!.method} --help`]
      : [
          "",
          `Options${selector ? ` of ${chosen}` : ""}:`,
          ...optionsOf(kind, chosen).filter(isOwn(selector?.flag)).map(described),
        ]),
    "",
    "Options of the command line:",
    ...own,
  ].join("\n");
}

const isOwn =
  (selector: string | undefined) =>
  ({ flag }: Option) =>
    flag !== selector;

function described(option: Option): string {
  const { flag, types, choices, many, description } = option;
  const value = option.isFile
    ? "FILE"
    : choices.length > 0
      ? choices.join("|")
      : many === "pairs"
        ? "NAME=VALUE"
        : types.has("integer") || types.has("number")
          ? "N"
          : "TEXT";
  const notes = [
    description,
    many ? "May be given several times." : "",
    option.default === undefined || option.default === null || typeof option.default === "object"
      ? ""
      : isSwitch(option) && option.default === true
        ? `On; --no-${flag} turns it off.`
        : `Default: ${option.default}.`,
  ];
  return entry(`--${flag}${isSwitch(option) ? "" : ` ${value}`}`, notes.filter(Boolean).join(" "));
}

function entry(head: string, text: string): string {
  return text === "" ? `  ${head}` : `  ${head}\n${" ".repeat(INDENT)}${wrapped(text, INDENT, WIDTH)}`;
}
