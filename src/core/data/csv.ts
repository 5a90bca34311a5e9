import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { CsvError, parse } from "csv-parse";
import { CoreError } from "../errors.ts";
import type { ByteSource, ScratchBytes } from "./byte-source.ts";
import { LIMITS } from "./limits.ts";
import type { Contents } from "./sample-array.ts";
import type { CsvSpec, TableDType } from "./spec.ts";
import { TableRows } from "./table.ts";
import type { Cell, TableFormat } from "./table-cells.ts";
import { utf8Chunks } from "./text.ts";

/** Written out in full the longest double has 1,076 characters; what is longer is not looked at. */
const MAX_NUMBER_LENGTH = 1_100;
const NUMBER = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/;
const INTEGER = /^[+-]?\d+$/;
const BOOLS: Readonly<Record<string, number>> = { true: 1, false: 0 };

const FORMAT: TableFormat = {
  row: "Line",
  numberOf(cell: Cell, dtype: TableDType) {
    const text = (cell as string).trim();
    if (text.length > MAX_NUMBER_LENGTH) return undefined;
    if (NUMBER.test(text)) {
      const number = Number(text);
      return !Number.isSafeInteger(number) && INTEGER.test(text) ? BigInt(text.replace(/^\+/, "")) : number;
    }
    return dtype === "bool" ? BOOLS[text.toLowerCase()] : undefined;
  },
  textOf: (cell: Cell) => (cell as string).trim(),
};

/**
 * A .csv file (RFC 4180, any line ends, UTF-8), read once from front to back. Numbers are plain decimals: NaN, infinity and empty cells
 * are refused. Throws `invalid_dataset` or `limit_exceeded`.
 */
export async function readCsv(source: ByteSource, spec: CsvSpec, openScratch: () => ScratchBytes): Promise<Contents> {
  let table: TableRows | undefined;
  const addRecord = (cells: string[], endLine: number): void => {
    const isHeader = spec.header && !table;
    table ??= new TableRows(
      cells.map((cell, i) => (isHeader ? cell.trim() : String(i))),
      spec,
      FORMAT,
      openScratch,
    );
    if (!isHeader) table.add(endLine, cells);
  };
  const parser = parse({
    bom: true,
    delimiter: spec.delimiter,
    max_record_size: LIMITS.lineBytes,
    skip_empty_lines: true,
    // Called for each record; what it answers would go into the output, which nobody reads.
    on_record: (cells: string[], { lines }) => void addRecord(cells, lines),
  });
  try {
    await pipeline(Readable.from(utf8Chunks(source)), parser.resume());
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    const reason = error.message.replace(/\p{C}/gu, "?").slice(0, 200);
    throw new CoreError("invalid_dataset", `The .csv file cannot be read: ${reason}.`, undefined, { cause: error });
  }
  if (!table) throw new CoreError("invalid_dataset", "The .csv file is empty.");
  return table.finish();
}
