import type { ByteSource, ScratchBytes } from "./byte-source.ts";
import { readJsonl } from "./jsonl.ts";
import type { Contents } from "./sample-array.ts";
import type { RowsSpec } from "./spec.ts";

/** A format of rows with named columns, a row being a sample. */
interface RowFormat {
  /** Of the file's name. */
  readonly suffix: string;
  /** What a sample is, for the document. */
  readonly row: string;
  /** What a column is, and what is in it. */
  readonly column: string;
  /** Reads the file once. Throws `invalid_dataset` or `limit_exceeded`. */
  read(source: ByteSource, spec: RowsSpec, openScratch: () => ScratchBytes): Promise<Contents>;
}

/** By kind of spec. A format is added with its reader and a row here: specs, suffixes and the document follow this record. */
export const ROW_FORMATS = {
  jsonl: {
    suffix: ".jsonl",
    row: "a line is a sample, a JSON object",
    column:
      "A column is a field of the objects: a number, or, when it is the input's only one, nested lists of numbers.",
    read: readJsonl,
  },
  parquet: {
    suffix: ".parquet",
    row: "a row is a sample",
    column: "A column holds a number a row, or, when it is the input's only one, a list of numbers, nested or not.",
    // Loaded when there is such a file, which most processes never see.
    read: async (...args) => (await import("./parquet.ts")).readParquet(...args),
  },
} satisfies Readonly<Record<string, RowFormat>>;

export type RowKind = keyof typeof ROW_FORMATS;

export const ROW_KINDS = Object.keys(ROW_FORMATS) as [RowKind, ...RowKind[]];
