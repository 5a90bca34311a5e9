import type { TableDType } from "./spec.ts";

/** A cell of a row: text in .csv, a JSON value in .jsonl, a value of its column's type in others. */
export type Cell = unknown;

/** What the formats of tables differ in once they are cut into cells. */
export interface TableFormat {
  /** What a message calls the place of a row, before its number. */
  readonly row: "Line" | "Row";
  /** A number, exact; undefined for a cell that is none. */
  numberOf(cell: Cell, dtype: TableDType): number | bigint | undefined;
  /** The text of a cell that can be a name; undefined for other cells. */
  textOf(cell: Cell): string | undefined;
}

/** Throws `invalid_dataset` with the place in the file that is wrong; `why` goes on from "Line 3, column "a" …". */
export type Refuse = (why: string) => never;

/** What to say of a cell that should be a number. */
export function notANumber(cell: Cell, format: TableFormat): string {
  if (cell === undefined) return "is missing";
  if (cell === null || cell === "") return "is empty";
  // Not written out: nested deep enough, that would take the stack.
  if (typeof cell === "object") return `holds ${Array.isArray(cell) ? "a list" : "an object"}, which is not a number`;
  const text = format.textOf(cell) ?? JSON.stringify(cell);
  return text === "" ? "is empty" : `holds ${JSON.stringify(text.slice(0, 40))}, which is not a number`;
}

/** What to say of a number that is not finite, or became infinite `purpose`. */
export function notFinite(number: number | bigint, purpose = ""): string {
  return Number.isNaN(number) ? "holds NaN" : `holds ${number}, which is too large${purpose}`;
}
