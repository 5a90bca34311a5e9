import { OWN_OPTIONS } from "./help.ts";
import { COMMAND_KINDS, optionsOf, selectorOf } from "./options.ts";

/** What bash runs for each word that is to be completed; zsh runs it through bashcompinit. */
const BASH = `_modelpress() {
  local IFS=$'\\n'
  COMPREPLY=($(modelpress complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _modelpress modelpress`;

export function completionScript(shell: string | undefined): string | undefined {
  if (shell === "bash") return BASH;
  if (shell === "zsh") return `autoload -Uz bashcompinit && bashcompinit\n${BASH}`;
  return undefined;
}

const COMMANDS = [...COMMAND_KINDS.map(({ type }): string => type), "inspect", "print", "plan", "completion"];

/** What the last of the words can become; nothing where it is a file. */
export function completionsOf(words: readonly string[]): readonly string[] {
  const [first = "", ...rest] = words[0] === "plan" && words.length > 1 ? words.slice(1) : words;
  const last = words.at(-1) ?? "";
  const starting = (all: readonly string[]) => all.filter((word) => word.startsWith(last));
  if (rest.length === 0) return starting(COMMANDS);
  if (first === "completion") return starting(["bash", "zsh"]);
  const kind = COMMAND_KINDS.find(({ type }) => type === first);
  if (!kind) return [];
  const selector = selectorOf(kind);
  const before = rest.at(-2);
  if (selector && before === `--${selector.flag}`) return starting(kind.methods.map(({ method }) => method));
  const given = selector && rest[rest.indexOf(`--${selector.flag}`) + 1];
  const known = kind.methods.find(({ method }) => method === given) ?? kind.methods[0]!;
  const options = optionsOf(kind, known.method);
  const wanted = options.find(({ flag }) => before === `--${flag}`);
  if (wanted && wanted.choices.length > 0) return starting(wanted.choices);
  if (!last.startsWith("-")) return [];
  return starting([...options.map(({ flag }) => flag), ...Object.keys(OWN_OPTIONS)].map((flag) => `--${flag}`));
}
