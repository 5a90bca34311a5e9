import { type BasicType, parquetWriteBuffer } from "hyparquet-writer";

export interface ParquetColumn {
  /** A value a row, or nested arrays. */
  readonly data: readonly unknown[];
  readonly type: BasicType;
  /** How deep the lists are nested; 0 unless given. */
  readonly lists?: number;
}

type SchemaElement = NonNullable<Parameters<typeof parquetWriteBuffer>[0]["schema"]>[number];
type Options = Omit<Parameters<typeof parquetWriteBuffer>[0], "columnData" | "schema">;

/** A .parquet file of these columns, all nullable, with lists in the three-level form of the specification. */
export function writeParquet(columns: Readonly<Record<string, ParquetColumn>>, options: Options = {}): Uint8Array {
  const entries = Object.entries(columns);
  const schema: SchemaElement[] = [
    { name: "root", num_children: entries.length },
    ...entries.flatMap(([name, { type, lists = 0 }]) => elements(name, type, lists)),
  ];
  const columnData = entries.map(([name, { data }]) => ({ name, data: [...data] }));
  return new Uint8Array(parquetWriteBuffer({ columnData, schema, ...options }));
}

function elements(name: string, type: BasicType, lists: number): SchemaElement[] {
  if (lists > 0) {
    return [
      { name, repetition_type: "OPTIONAL", num_children: 1, converted_type: "LIST" },
      { name: "list", repetition_type: "REPEATED", num_children: 1 },
      ...elements("element", type, lists - 1),
    ];
  }
  const leaf = { name, repetition_type: "OPTIONAL" } as const;
  if (type === "STRING") return [{ ...leaf, type: "BYTE_ARRAY", converted_type: "UTF8" }];
  if (type === "TIMESTAMP") return [{ ...leaf, type: "INT64", converted_type: "TIMESTAMP_MILLIS" }];
  if (type === "FLOAT16") {
    return [{ ...leaf, type: "FIXED_LEN_BYTE_ARRAY", type_length: 2, logical_type: { type: "FLOAT16" } }];
  }
  return [{ ...leaf, type: type as "FLOAT" }];
}
