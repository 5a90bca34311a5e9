import { readFileSync, writeFileSync } from "node:fs";
import { DATASET_WARNINGS, DROPPED, PROVISIONS, WARNINGS } from "../src/core/codes.ts";
import { NOTES } from "../src/core/note-codes.ts";
import { PROBLEMS } from "../src/service/errors.ts";
import { FIELD_CODES } from "../src/service/field-codes.ts";

/** Writes the tables of the guide to codes from the code: every code there is, with what causes it. */

const GUIDE = new URL("../docs/guides/codes.md", import.meta.url);

type Cell = string | number | readonly string[];

/** The tables by the heading that each stands under: its columns, and its rows by code. */
const TABLES: Readonly<Record<string, readonly [columns: readonly string[], rows: readonly (readonly Cell[])[]]>> = {
  Warnings: [
    ["meaning", "caused by", "what to do"],
    rowsOf(WARNINGS, ({ meaning, cause, remedy }) => [meaning, cause, remedy]),
  ],
  "Notes on nodes": [
    ["in", "meaning", "caused by"],
    rowsOf(NOTES, ({ kinds, meaning, cause }) => [kinds, meaning, cause]),
  ],
  "What a plan leaves open": [["meaning", "caused by"], rowsOf(PROVISIONS, ({ meaning, cause }) => [meaning, cause])],
  "Candidates of a search": [["meaning", "caused by"], rowsOf(DROPPED, ({ meaning, cause }) => [meaning, cause])],
  Datasets: [["meaning", "caused by"], rowsOf(DATASET_WARNINGS, ({ meaning, cause }) => [meaning, cause])],
  Problems: [
    ["status", "meaning", "caused by", "what to do"],
    rowsOf(PROBLEMS, ({ status, title, cause, remedy }) => [status, title, cause, remedy]),
  ],
  "Wrong fields": [["caused by"], rowsOf(FIELD_CODES, (cause) => [cause])],
};

function rowsOf<T>(
  table: Readonly<Record<string, T>>,
  cells: (facts: T) => readonly Cell[],
): readonly (readonly Cell[])[] {
  return Object.entries(table).map(([code, facts]) => [`\`${code}\``, ...cells(facts)]);
}

/** The guide with the tables that follow from the code. Throws when a heading is not there. */
export function codesGuide(guide: string): string {
  return Object.entries(TABLES).reduce((text, [heading, [columns, rows]]) => {
    const lines = [["code", ...columns], ["", ...columns].map(() => "---"), ...rows].map(
      (cells) => `| ${cells.map((cell) => (Array.isArray(cell) ? cell.join(", ") : cell)).join(" | ")} |\n`,
    );
    const place = new RegExp(`(^## ${heading}\n(?:(?!#)(?!\\|).*\n)*)(?:\\|.*\n)*`, "m");
    if (!place.test(text)) throw new Error(`The guide has no heading "${heading}".`);
    return text.replace(place, (_, start: string) => start + lines.join(""));
  }, guide);
}

export const readGuide = () => readFileSync(GUIDE, "utf8");

if (import.meta.main) writeFileSync(GUIDE, codesGuide(readGuide()));
