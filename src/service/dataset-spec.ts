import { z } from "zod";
import { type DatasetSpec as CoreSpec, ROW_FORMATS, ROW_KINDS, type RowKind, TABLE_DTYPES } from "../core/contract.ts";

/** The wire form of what a dataset's file does not say itself: for each format that needs it, a `kind` of spec. */

const InputName = z.string().min(1).max(512);

const ArraySpec = z
  .strictObject({ kind: z.literal("array"), input: InputName.meta({ description: "The model input." }) })
  .meta({
    id: "ArraySpec",
    description: "For `.npy`: the array has no name, and is for this model input. The kind may be left out.",
  });

const Channels = z.array(z.number()).min(1).max(3);

const ImagesSpec = z
  .strictObject({
    kind: z.literal("images"),
    input: InputName.meta({ description: "The model input that takes the images." }),
    size: z
      .tuple([z.int().min(1).max(8192), z.int().min(1).max(8192)])
      .meta({ description: "Height and width that every image is brought to." }),
    layout: z.enum(["NCHW", "NHWC"]).meta({ id: "ImageLayout" }).default("NCHW"),
    color: z
      .enum(["rgb", "bgr", "gray"])
      .meta({ id: "ImageColor" })
      .default("rgb")
      .meta({ description: "Order of the channels; gray has one." }),
    resize: z
      .enum(["stretch", "crop", "pad"])
      .meta({ id: "ImageResize" })
      .default("stretch")
      .meta({
        description:
          "`stretch`: to `size`, whatever the proportions. `crop`: to the smallest size that covers `size`, then its " +
          "center. `pad`: to the largest size that fits, centered, with `pad_value` around. Always bilinear with " +
          "antialiasing, as Pillow and torchvision do it.",
      }),
    shorter_side: z.int().min(1).max(16384).optional().meta({
      description: "Only with `crop`: what the shorter side is scaled to before, as in resize 256, crop 224.",
    }),
    pad_value: z.int().min(0).max(255).optional().meta({ description: "Only with `pad`; 0 (black) unless given." }),
    dtype: z.enum(["float32", "uint8"]).meta({ id: "ImageDtype" }).default("float32").meta({
      description: "`float32`: value = (pixel · `scale` − `mean`) / `std`. `uint8`: the pixels, 0 to 255.",
    }),
    scale: z.number().positive().optional().meta({ description: "1/255 unless given." }),
    mean: Channels.optional().meta({ description: "One for each channel, in the order of `color`; 0 unless given." }),
    std: z
      .array(z.number().positive())
      .min(1)
      .max(3)
      .optional()
      .meta({ description: "One for each channel, in the order of `color`; 1 unless given." }),
  })
  .superRefine((spec, context) => {
    const refuse = (field: keyof typeof spec, message: string) =>
      context.addIssue({ code: "custom", path: [field], message, input: spec[field] });
    const channels = spec.color === "gray" ? 1 : 3;
    for (const field of ["mean", "std"] as const) {
      const values = spec[field];
      if (values && values.length !== channels) refuse(field, `must have one number for each channel, ${channels}`);
    }
    for (const field of ["scale", "mean", "std"] as const) {
      if (spec.dtype === "uint8" && spec[field] !== undefined) refuse(field, "is not for dtype uint8");
    }
    if (spec.pad_value !== undefined && spec.resize !== "pad") refuse("pad_value", 'is only for resize "pad"');
    if (spec.shorter_side === undefined) return;
    if (spec.resize !== "crop") refuse("shorter_side", 'is only for resize "crop"');
    else if (spec.shorter_side < Math.max(...spec.size)) refuse("shorter_side", "must not be less than a side of size");
  })
  .meta({ id: "ImagesSpec", description: "For a `.zip` of images: what becomes of an image." });

const Column = z.string().max(512);
const Labels = "Column of the labels: class numbers, class names (their sorted list becomes `classes`), or numbers.";
const Columns =
  "In this order. Unless given: all columns that no other input and not the labels take, in the order of the file.";
const TABLE_INPUT = {
  dtype: z.enum(TABLE_DTYPES).meta({ id: "TableDtype" }).default("float32"),
  shape: z
    .array(
      z
        .int()
        .min(1)
        .max(2 ** 31),
    )
    .max(16)
    .optional()
    .meta({ description: "Of one sample; one axis of all its numbers unless given." }),
};

const CsvColumn = z.union([Column, z.int().min(0).max(1_000_000)]);
const CsvSpec = z
  .strictObject({
    kind: z.literal("csv"),
    header: z.boolean().default(true).meta({ description: "Whether the first row has the names of the columns." }),
    delimiter: z
      .enum([",", ";", "\t", "|"])
      .default(",")
      .meta({ description: "What stands between columns: a comma, a semicolon, a tab or a `|`." }),
    inputs: z
      .record(
        InputName,
        z
          .strictObject({
            columns: z.array(CsvColumn).min(1).max(100_000).optional().meta({ description: Columns }),
            ...TABLE_INPUT,
          })
          .meta({ id: "CsvColumns" }),
      )
      .meta({ description: "By model input. Columns are given by name, or by number from 0." }),
    labels: CsvColumn.optional().meta({ description: Labels }),
  })
  .superRefine(checkInputs)
  .meta({ id: "CsvSpec", description: "For `.csv`: a row is a sample." });

/** The spec of one of the formats whose columns have names. */
function rowsSpec(kind: RowKind) {
  const { suffix, row, column } = ROW_FORMATS[kind];
  const id = kind[0]!.toUpperCase() + kind.slice(1);
  return z
    .strictObject({
      kind: z.literal(kind),
      inputs: z
        .record(
          InputName,
          z
            .strictObject({
              columns: z.array(Column).min(1).max(100_000).optional().meta({ description: Columns }),
              ...TABLE_INPUT,
            })
            .meta({ id: `${id}Columns` }),
        )
        .meta({ description: `By model input. ${column}` }),
      labels: Column.optional().meta({ description: Labels }),
    })
    .superRefine(checkInputs)
    .meta({ id: `${id}Spec`, description: `For \`${suffix}\`: ${row}.` });
}

function checkInputs(
  { inputs }: { readonly inputs: Readonly<Record<string, { readonly columns?: unknown }>> },
  context: z.core.$RefinementCtx,
): void {
  const names = Object.keys(inputs);
  const refuse = (path: string[], message: string) =>
    context.addIssue({ code: "custom", path, message, input: inputs });
  if (names.length === 0) refuse(["inputs"], "must name a model input");
  const open = names.filter((name) => inputs[name]!.columns === undefined);
  if (open.length > 1) refuse(["inputs", open[1]!, "columns"], "only one input can take all the other columns");
}

const KINDS = z
  .discriminatedUnion("kind", [ArraySpec, ImagesSpec, CsvSpec, ...ROW_KINDS.map(rowsSpec)], {
    error: (issue) =>
      issue.code === "invalid_union"
        ? `must be "images" (for .zip), "csv", ${ROW_KINDS.map((kind) => `"${kind}", `).join("")}or "array" (for .npy, where it may be left out)`
        : undefined,
  })
  .meta({
    id: "DatasetSpec",
    description: "What the file itself does not say. `.npz` and `.safetensors` say it all and take none.",
  }) satisfies z.ZodType<CoreSpec>;

/** The document has every kind; `{ "input": "x" }` alone is taken, too. */
export const DatasetSpec = z.preprocess((value) => (isBareInput(value) ? { kind: "array", ...value } : value), KINDS);

function isBareInput(value: unknown): value is { readonly input: unknown } {
  return typeof value === "object" && value !== null && Object.keys(value).join() === "input";
}

export type DatasetSpecKind = CoreSpec["kind"];

/** The formats, by the suffix of a file's name, and the kind of spec that each needs. */
export const DATASET_FORMATS: Readonly<Record<string, DatasetSpecKind | undefined>> = {
  ".npz": undefined,
  ".npy": "array",
  ".safetensors": undefined,
  ".zip": "images",
  ".csv": "csv",
  ...Object.fromEntries(ROW_KINDS.map((kind) => [ROW_FORMATS[kind].suffix, kind])),
};

/** A spec of each kind that is short and works: what to send when there is none. */
const SPEC_EXAMPLES: Readonly<Record<DatasetSpecKind, object>> = {
  array: { input: "x" },
  images: { kind: "images", input: "x", size: [224, 224] },
  csv: { kind: "csv", inputs: { x: { columns: ["height", "width"] } }, labels: "label" },
  ...(Object.fromEntries(
    ROW_KINDS.map((kind) => [kind, { kind, inputs: { x: { columns: ["pixels"] } }, labels: "label" }]),
  ) as Record<RowKind, object>),
};

/** What is wrong with a spec, or with there being none, for a file of this suffix; undefined when nothing is. */
export function specMismatch(suffix: string, spec: CoreSpec | undefined): string | undefined {
  const needed = DATASET_FORMATS[suffix];
  if (needed === undefined) return spec && `a ${suffix} file needs no spec: it names its arrays itself; leave it out`;
  const kind = spec?.kind;
  if (kind === needed) return undefined;
  const such = `such as ${JSON.stringify(SPEC_EXAMPLES[needed])}`;
  return kind === undefined
    ? `a ${suffix} file needs a spec, ${such}`
    : `a ${suffix} file needs a spec of kind "${needed}", ${such}; this one is of kind "${kind}"`;
}
