/** HTML that is safe to put into a page: made by `html`, or a literal of this project's own. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Content = Markup | string | number | null | undefined | readonly Content[];

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** A template whose values are escaped, unless they are markup themselves. Lists are joined; null and undefined leave nothing. */
export function html(strings: TemplateStringsArray, ...values: readonly Content[]): Markup {
  return new Markup(strings.reduce((text, part, i) => text + textOf(values[i - 1]) + part));
}

function textOf(content: Content): string {
  if (content instanceof Markup) return content.text;
  if (Array.isArray(content)) return content.map(textOf).join("");
  return String(content ?? "").replace(/[&<>"']/g, (character) => ESCAPES[character]!);
}

/** The words of some content, without its tags; they are escaped already. */
export function plainText(content: Content): Markup {
  return new Markup(textOf(content).replace(/<[^>]*>/g, ""));
}
