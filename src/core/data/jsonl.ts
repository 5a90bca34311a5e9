import { CoreError } from "../errors.ts";
import type { ByteSource, ScratchBytes } from "./byte-source.ts";
import type { Contents } from "./sample-array.ts";
import type { RowsSpec, TableDType } from "./spec.ts";
import { TableRows } from "./table.ts";
import type { Cell, TableFormat } from "./table-cells.ts";
import { textLines } from "./text.ts";

const FORMAT: TableFormat = {
  row: "Line",
  numberOf(cell: Cell, dtype: TableDType) {
    if (typeof cell === "boolean" && dtype === "bool") return Number(cell);
    return typeof cell === "number" ? cell : undefined;
  },
  textOf: (cell: Cell) => (typeof cell === "string" ? cell : undefined),
};

/**
 * A .jsonl file, read once from front to back: a JSON object on each line. The fields of the first line are the columns; other lines may
 * have them in any order, and more. Throws `invalid_dataset` or `limit_exceeded`.
 */
export async function readJsonl(
  source: ByteSource,
  spec: RowsSpec,
  openScratch: () => ScratchBytes,
): Promise<Contents> {
  let names: readonly string[] = [];
  let table: TableRows | undefined;
  for (const { line, text } of textLines(source)) {
    const record = parseObject(text, line);
    if (!table) {
      names = Object.keys(record);
      table = new TableRows(names, spec, FORMAT, openScratch);
    }
    table.add(
      line,
      names.map((name) => (Object.hasOwn(record, name) ? record[name] : undefined)),
    );
  }
  if (!table) throw new CoreError("invalid_dataset", "The .jsonl file is empty.");
  return table.finish();
}

function parseObject(text: string, line: number): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CoreError("invalid_dataset", `Line ${line} of the .jsonl file is not JSON.`, undefined, { cause: error });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new CoreError(
    "invalid_dataset",
    `Line ${line} of the .jsonl file is not a JSON object: each line must be one.`,
  );
}
