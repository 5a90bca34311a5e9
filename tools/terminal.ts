/** What the command line shows. Results go to stdout; progress, and what went wrong, to stderr. */

const BAR_WIDTH = 24;

export interface ProgressLine {
  show(fraction: number, message: string): void;
  /** A line of its own, above the bar. */
  log(text: string): void;
  end(): void;
}

/** A bar that is redrawn in a terminal; elsewhere a line whenever another step begins. */
export function progressLine(stream: NodeJS.WriteStream, isQuiet: boolean): ProgressLine {
  if (isQuiet) return { show() {}, log() {}, end() {} };
  let last = "";
  const clear = () => stream.isTTY && stream.write("\r\u001b[2K");
  return {
    show(fraction, message) {
      const percent = `${Math.floor(fraction * 100)}`.padStart(3);
      if (!stream.isTTY) {
        const step = message.replace(/[:\d].*$/s, "");
        if (step !== last) stream.write(`${percent} % ${message}\n`);
        last = step;
        return;
      }
      const done = Math.round(fraction * BAR_WIDTH);
      const line = `${"█".repeat(done)}${"░".repeat(BAR_WIDTH - done)} ${percent} % ${message}`;
      clear();
      stream.write(line.slice(0, stream.columns - 1));
    },
    log(text) {
      clear();
      stream.write(`${text}\n`);
    },
    end: () => void clear(),
  };
}

/** Rows of cells as aligned columns; the first one to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>((all, row) => row.map((cell, i) => Math.max(all[i] ?? 0, cell.length)), []);
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Text in lines of at most `width`, each after the first indented by `indent`. */
export function wrapped(text: string, indent: number, width: number): string {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const line = lines.at(-1)!;
    if (line !== "" && line.length + word.length + 1 > width - indent) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.join(`\n${" ".repeat(indent)}`);
}
