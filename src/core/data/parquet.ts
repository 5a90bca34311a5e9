/**
 * Parquet files (https://parquet.apache.org/docs/file-format/). hyparquet decodes them. What it takes from a file on trust is checked first:
 * sizes, offsets and counts of the footer and of every page that is read, so that a file cannot ask for more memory than it may have.
 */
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from "node:zlib";
import {
  type FileMetaData,
  parquetMetadata,
  parquetRead,
  parquetSchema,
  type RowGroup,
  type SchemaTree,
} from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { CoreError } from "../errors.ts";
import type { ByteSource, ScratchBytes } from "./byte-source.ts";
import type { Contents } from "./sample-array.ts";
import type { RowsSpec, TableDType } from "./spec.ts";
import { TableRows } from "./table.ts";
import type { Cell, TableFormat } from "./table-cells.ts";

const MAX_FOOTER_BYTES = 16 * 1024 * 1024;
/** Of the columns that are used, in one row group: all of it is in memory at once, */
const MAX_GROUP_VALUES = 2 ** 26;
/** and so are its pages, unpacked. */
const MAX_GROUP_BYTES = 2 ** 30;

const MAGIC = "PAR1";
/** The footer's length and the magic number, after the footer. */
const TAIL_BYTES = 8;

const FORMAT: TableFormat = {
  row: "Row",
  numberOf(cell: Cell, dtype: TableDType) {
    if (typeof cell === "boolean" && dtype === "bool") return Number(cell);
    return typeof cell === "number" || typeof cell === "bigint" ? cell : undefined;
  },
  textOf: (cell: Cell) => (typeof cell === "string" ? cell : undefined),
};

type Decompress = (input: Uint8Array, outputBytes: number) => Uint8Array;

/** Codecs besides Snappy, which hyparquet has. None writes more than the page's header says. */
const DECOMPRESS: Readonly<Record<"GZIP" | "ZSTD" | "BROTLI", Decompress>> = {
  GZIP: (input, bytes) => gunzipSync(input, { maxOutputLength: Math.max(1, bytes) }),
  ZSTD: (input, bytes) => zstdDecompressSync(input, { maxOutputLength: Math.max(1, bytes) }),
  BROTLI: (input, bytes) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, bytes) }),
};
const CODECS: readonly string[] = ["UNCOMPRESSED", "SNAPPY", ...Object.keys(DECOMPRESS)];

/**
 * A .parquet file, read once, one row group at a time: of each only the columns that the spec uses. Throws `invalid_dataset` for a file that
 * is damaged and for columns that are not numbers, text or lists of them; `limit_exceeded` for row groups that are too large.
 */
export async function readParquet(
  source: ByteSource,
  spec: RowsSpec,
  openScratch: () => ScratchBytes,
): Promise<Contents> {
  const { metadata, columns } = await reading("footer", () => {
    const metadata = readFooter(source);
    return { metadata, columns: parquetSchema(metadata).children };
  });
  const names = columns.map(({ element }) => element.name);
  const table = new TableRows(names, spec, FORMAT, openScratch);
  const used = usedColumns(columns, spec);
  for (const { column } of used) checkColumn(column);
  let row = 0;
  for (const [index, group] of metadata.row_groups.entries()) {
    const values = await reading(`row group ${index}`, () => readGroup(source, metadata, index, group, used));
    const cells: Cell[] = new Array(names.length);
    for (let i = 0; i < values.rows; i++) {
      for (const [k, { place }] of used.entries()) cells[place] = values.columns[k]![i];
      table.add(++row, cells);
    }
  }
  return table.finish();
}

/** What a part of the file holds; whatever hyparquet makes of damage there becomes `invalid_dataset`. */
async function reading<T>(part: string, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof CoreError) throw error;
    throw damaged(`its ${part} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

function damaged(why: string, options?: ErrorOptions): CoreError {
  return new CoreError("invalid_dataset", `The .parquet file is damaged: ${why}.`, undefined, options);
}

function tooLarge(index: number, what: string): CoreError {
  const remedy = "Write it with smaller row groups (row_group_size of pyarrow and pandas).";
  return new CoreError("limit_exceeded", `Row group ${index} of the .parquet file holds ${what}. ${remedy}`);
}

function readFooter(source: ByteSource): FileMetaData {
  const isMagic = (offset: number) => Buffer.from(source.read(offset, MAGIC.length)).toString("latin1") === MAGIC;
  if (source.size < MAGIC.length + TAIL_BYTES || !isMagic(0)) {
    throw new CoreError("invalid_dataset", "The file is not a .parquet file: it does not begin with PAR1.");
  }
  if (!isMagic(source.size - MAGIC.length))
    throw damaged("it does not end with PAR1, so that it is cut off or encrypted");
  const footerBytes = Buffer.from(source.read(source.size - TAIL_BYTES, 4)).readUInt32LE();
  if (footerBytes > MAX_FOOTER_BYTES) {
    throw new CoreError(
      "limit_exceeded",
      `The footer of the .parquet file claims ${footerBytes} bytes; at most ${MAX_FOOTER_BYTES} are read.`,
    );
  }
  const start = source.size - TAIL_BYTES - footerBytes;
  if (start < MAGIC.length) throw damaged("its footer is longer than the file");
  return parquetMetadata(Uint8Array.from(source.read(start, source.size - start)), { geoparquet: false });
}

/** A column, and its place among all of the table. */
interface UsedColumn {
  readonly column: SchemaTree;
  readonly place: number;
}

function usedColumns(columns: readonly SchemaTree[], { inputs, labels }: RowsSpec): UsedColumn[] {
  const named = Object.values(inputs).map((input) => input.columns);
  const wanted = new Set([...named.flatMap((names) => names ?? []), ...(labels === undefined ? [] : [labels])]);
  const all = columns.map((column, place) => ({ column, place }));
  const used = named.includes(undefined) ? all : all.filter(({ column }) => wanted.has(column.element.name));
  const names = used.map(({ column }) => column.element.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new CoreError("invalid_dataset", `There are two columns "${twice}".`, twice);
  return used;
}

/** Throws unless a column holds numbers, text, or lists of them, nested or not. */
function checkColumn(column: SchemaTree): void {
  const { name } = column.element;
  const refused = (what: string) =>
    new CoreError(
      "invalid_dataset",
      `The column "${name}" holds ${what}; numbers, booleans, text and lists of them can be read.`,
      name,
    );
  let level = column;
  while (level.children.length > 0) {
    const [repeated] = level.children as [SchemaTree];
    const isList = level.element.converted_type === "LIST" && level.children.length === 1;
    if (!isList || repeated.element.repetition_type !== "REPEATED" || repeated.children.length > 1) {
      throw refused("structs or maps");
    }
    level = repeated.children[0] ?? repeated;
  }
  const { type, converted_type: converted, logical_type: logical, repetition_type: repetition } = level.element;
  if (level === column && repetition === "REPEATED") throw refused("repeated values that are not marked as a list");
  const meaning = logical?.type ?? converted;
  const isNumber =
    ["BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE"].includes(type ?? "") &&
    (meaning === undefined || meaning === "INTEGER" || /^U?INT_\d+$/.test(meaning));
  const isHalf = type === "FIXED_LEN_BYTE_ARRAY" && meaning === "FLOAT16";
  const isText = type === "BYTE_ARRAY" && ["STRING", "UTF8", "ENUM"].includes(meaning ?? "");
  if (!isNumber && !isHalf && !isText) throw refused(`${meaning ?? type}`);
}

/** The rows of a group: the values of each used column, in their order. */
async function readGroup(
  source: ByteSource,
  metadata: FileMetaData,
  index: number,
  group: RowGroup,
  used: readonly UsedColumn[],
) {
  const rows = sizeOf(group.num_rows, "number of rows");
  const names = used.map(({ column }) => column.element.name);
  checkGroup(source, index, group, names);
  const pieces = new Map<string, ArrayLike<unknown>[]>(names.map((name) => [name, []]));
  await parquetRead({
    file: {
      byteLength: source.size,
      slice: (start, end = source.size) => Uint8Array.from(source.read(start, end - start)).buffer,
    },
    metadata: { ...metadata, num_rows: group.num_rows, row_groups: [group] },
    columns: names,
    compressors: DECOMPRESS,
    onChunk: ({ columnName, columnData }) => pieces.get(columnName)?.push(columnData),
  });
  const columns = names.map((name) => {
    const own = pieces.get(name)!;
    const values = own.length === 1 ? own[0]! : own.flatMap((piece) => Array.from(piece));
    if (values.length === rows) return values;
    throw damaged(`row group ${index} has ${rows} rows and ${values.length} values of the column "${name}"`);
  });
  return { rows, columns };
}

/** Throws for a row group that lies outside the file, is compressed in a way that cannot be read, or unpacks to too much. */
function checkGroup(source: ByteSource, index: number, group: RowGroup, names: readonly string[]): void {
  let [values, unpacked] = [0, 0];
  const found = new Set<string>();
  for (const { meta_data: chunk } of group.columns) {
    const name = chunk?.path_in_schema[0];
    if (!chunk || name === undefined || !names.includes(name)) continue;
    if (found.has(name)) throw damaged(`row group ${index} has the column "${name}" twice`);
    found.add(name);
    if (!CODECS.includes(chunk.codec)) {
      const known = CODECS.join(", ");
      const message = `The column "${name}" is compressed with ${chunk.codec}; what can be read is ${known}.`;
      throw new CoreError("invalid_dataset", message, name);
    }
    const start = sizeOf(chunk.dictionary_page_offset || chunk.data_page_offset, "offset of a column");
    const bytes = sizeOf(chunk.total_compressed_size, "size of a column");
    if (start + bytes > source.size) throw damaged(`the column "${name}" of row group ${index} is not in the file`);
    const chunkValues = sizeOf(chunk.num_values, "number of values");
    values += chunkValues;
    if (values > MAX_GROUP_VALUES) throw tooLarge(index, `more than ${MAX_GROUP_VALUES} values`);
    unpacked += unpackedBytes(source.read(start, bytes), chunkValues);
    if (unpacked > MAX_GROUP_BYTES) throw tooLarge(index, `more than ${MAX_GROUP_BYTES} bytes`);
  }
  const missing = names.find((name) => !found.has(name));
  if (missing !== undefined) throw damaged(`row group ${index} does not have the column "${missing}"`);
}

/** The size of all pages of a column chunk, unpacked, as their headers say, which are checked. */
function unpackedBytes(chunk: Uint8Array, values: number): number {
  const reader = { view: new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength), offset: 0 };
  let [unpacked, counted] = [0, 0];
  while (reader.offset < chunk.byteLength - 1) {
    const header = parquetHeader(reader);
    const packed = sizeOf(header.compressed_page_size, "size of a page");
    reader.offset += packed;
    if (reader.offset > chunk.byteLength) throw damaged("a page is longer than its column");
    const own = sizeOf(header.uncompressed_page_size, "unpacked size of a page");
    unpacked += own;
    const { data_page_header: page, data_page_header_v2: pageV2, dictionary_page_header: dictionary } = header;
    if (pageV2) {
      for (const count of [pageV2.num_nulls, pageV2.num_rows]) sizeOf(count, "count of a page", pageV2.num_values);
      sizeOf(pageV2.definition_levels_byte_length, "size of levels", packed);
      sizeOf(pageV2.repetition_levels_byte_length, "size of levels", packed);
    }
    // No entry of a dictionary takes less than a byte.
    if (dictionary) sizeOf(dictionary.num_values, "size of a dictionary", own);
    const count = page?.num_values ?? pageV2?.num_values;
    if (count !== undefined) counted += sizeOf(count, "number of values of a page", values - counted);
  }
  return unpacked;
}

/** A count of the file as a number; throws unless it is one, 0 to `max`. */
function sizeOf(value: unknown, what: string, max = Number.MAX_SAFE_INTEGER): number {
  const size = typeof value === "bigint" ? Number(value) : value;
  if (typeof size === "number" && Number.isSafeInteger(size) && size >= 0 && size <= max) return size;
  throw damaged(`a ${what} is not possible`);
}
