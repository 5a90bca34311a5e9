import { readFileSync, writeFileSync } from "node:fs";
import { WARNINGS } from "../src/core/codes.ts";
import { PROBLEMS } from "../src/service/errors.ts";

/** Writes the tables of the guide to codes from the code: every warning and every problem, and what to do. */

const GUIDE = new URL("../docs/guides/codes.md", import.meta.url);

/** The rows of both tables, as they stand in the guide. */
export function codeRows(): { readonly warnings: readonly string[]; readonly problems: readonly string[] } {
  return {
    warnings: Object.entries(WARNINGS).map(
      ([code, { meaning, cause, remedy }]) => `| \`${code}\` | ${meaning} | ${cause} | ${remedy} |`,
    ),
    problems: Object.entries(PROBLEMS).map(
      ([code, { status, title, remedy }]) => `| \`${code}\` | ${status} | ${title} | ${remedy} |`,
    ),
  };
}

if (import.meta.main) {
  const { warnings, problems } = codeRows();
  const [start, warningHead, , problemHead] = partsOf(readFileSync(GUIDE, "utf8"));
  writeFileSync(GUIDE, `${start}${warningHead}${warnings.join("\n")}\n${problemHead}${problems.join("\n")}\n`);
}

/** The text before the first table, its head, its rows, and all from there to the rows of the second. */
function partsOf(guide: string): readonly string[] {
  const [, start, warningHead, rows, problemHead] =
    /^(.*?)(\| code \|[^\n]*\n\|[- |]*\n)((?:\|[^\n]*\n)*)(.*?\| code \|[^\n]*\n\|[- |]*\n)/s.exec(guide)!;
  return [start!, warningHead!, rows!, problemHead!];
}
