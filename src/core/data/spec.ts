import type { DType } from "../onnx/dtype.ts";
import type { RowKind } from "./row-formats.ts";

/**
 * What a file does not say about itself: how its contents become arrays for model inputs. Fields have the names of the wire, where each
 * kind belongs to one format. Defaults are filled in where the spec is checked.
 */
export type DatasetSpec = ArraySpec | ImagesSpec | CsvSpec | RowsSpec;

/** A .npy file: one array, which has no name. */
export interface ArraySpec {
  readonly kind: "array";
  /** The model input it is for. */
  readonly input: string;
}

/** A .zip of images. */
export interface ImagesSpec {
  readonly kind: "images";
  readonly input: string;
  /** Height and width that every image is brought to. */
  readonly size: readonly [height: number, width: number];
  readonly layout: "NCHW" | "NHWC";
  readonly color: "rgb" | "bgr" | "gray";
  readonly resize: "stretch" | "crop" | "pad";
  /** Only with `crop`: what the shorter side is scaled to before; at least the longer side of `size`. */
  readonly shorter_side?: number | undefined;
  /** Only with `pad`: 0…255, in every channel. */
  readonly pad_value?: number | undefined;
  /** `uint8`: the pixels as they are; else (pixel · scale − mean) / std. */
  readonly dtype: "float32" | "uint8";
  /** 1/255 unless given. */
  readonly scale?: number | undefined;
  /** One for each channel, in the order of `color`; 0 and 1 unless given. */
  readonly mean?: readonly number[] | undefined;
  readonly std?: readonly number[] | undefined;
}

/** The dtypes that numbers in text can be read as. */
export const TABLE_DTYPES = [
  "bool",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "float16",
  "float32",
  "float64",
] as const satisfies readonly DType[];
export type TableDType = (typeof TABLE_DTYPES)[number];

/** Where the numbers of one model input are in a row of a table. */
export interface TableInput<Column> {
  /** In this order; unless given, all that no other input and not the labels take, in the order of the file. */
  readonly columns?: readonly Column[] | undefined;
  readonly dtype: TableDType;
  /** Of one sample; one axis of all the numbers unless given. */
  readonly shape?: readonly number[] | undefined;
}

/** A .csv file: a row is a sample. */
export interface CsvSpec {
  readonly kind: "csv";
  readonly header: boolean;
  readonly delimiter: "," | ";" | "\t" | "|";
  /** By input; columns by name, or by number from 0. */
  readonly inputs: Readonly<Record<string, TableInput<string | number>>>;
  readonly labels?: string | number | undefined;
}

/** A file of one of `ROW_FORMATS`: its columns have names. */
export interface RowsSpec {
  readonly kind: RowKind;
  /** By input. A column holds a number, or nested lists of numbers when it is the only one. */
  readonly inputs: Readonly<Record<string, TableInput<string>>>;
  readonly labels?: string | undefined;
}
