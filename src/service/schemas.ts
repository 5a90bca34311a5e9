import { z } from "zod";
import { DTYPES, WARNING_CODES } from "../core/contract.ts";
import { DatasetSpec } from "./dataset-spec.ts";

/** The wire forms that several resources share, and those of models and datasets. */

/** No control characters: names are printed in terminals, headers and pages. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it refuses
export const PRINTABLE = /^[^\u0000-\u001f\u007f\u2028\u2029]*$/;

export const Name = z.string().min(1).max(200).regex(PRINTABLE, "no control characters");

export const Metadata = z
  .record(z.string().min(1).max(64), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, "at most 16 pairs")
  .meta({ id: "Metadata", description: "Up to 16 pairs of your own; keys up to 64 and values up to 512 characters." });

export const Timestamp = z.iso.datetime().meta({ description: "RFC 3339, UTC." });
export const Bytes = z.int().min(0);
export const Count = z.int().min(0);
export const Sha256 = z.string().length(64).meta({ description: "Lower-case hexadecimal." });
const DType = z.string().meta({
  id: "DType",
  description: `As onnxruntime names it; more may be added. Now: ${Object.keys(DTYPES).join(", ")}.`,
});

export const ModelParams = z.object({ model_id: z.string() });
export const DatasetParams = z.object({ dataset_id: z.string() });

export const PageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(100).default(20).meta({
    description: "Length of a page; it is shorter where it would be too many bytes.",
  }),
  cursor: z.string().max(500).optional().meta({ description: "`next_cursor` of the page before." }),
});

/** A page of `item`s, in the order that the operation says. A page may be shorter than asked for where it would be too many bytes. */
export function pageOf<Item extends z.ZodType>(id: string, item: Item) {
  return z
    .object({
      data: z.array(item),
      next_cursor: z.string().nullable().meta({ description: "Null on the last page." }),
    })
    .meta({ id });
}

export const ResultWarning = z.object({ code: z.enum(WARNING_CODES), message: z.string(), value: z.number() }).meta({
  id: "ResultWarning",
  description:
    "What was not asked about and should be known. The guide to codes says what causes each, and what its `value` is.",
});

const NonFinite = z.enum(["nan", "inf", "-inf"]);

const NonFiniteWeight = z
  .object({
    name: z.string(),
    layers: z
      .array(z.object({ name: z.string(), op: z.string() }).meta({ id: "LayerName" }))
      .meta({ description: "The nodes that multiply with it or look rows up in it; none of a bias or a gain." }),
    shape: z.array(z.int()),
    count: Count.meta({ description: "Values that are NaN or infinite." }),
    first: z
      .object({ index: z.array(Count), value: NonFinite })
      .meta({ id: "NonFiniteElement", description: "The first of them." }),
  })
  .meta({ id: "NonFiniteWeight" });

const DerivedFrom = z
  .object({ job_id: z.string(), model_id: z.string() })
  .meta({ id: "DerivedFrom", description: "The job that made the model, and the model it was made from." });

const StoredFile = z.object({ name: z.string(), size_bytes: Bytes, sha256: Sha256 }).meta({ id: "StoredFile" });

const ModelValue = z
  .object({
    name: z.string(),
    dtype: DType.nullable().meta({ description: "Null for what is no tensor." }),
    type: z
      .string()
      .optional()
      .meta({ description: "What it is when it is no tensor: `sequence(map(int64, float32))`." }),
    shape: z
      .array(z.union([z.int(), z.string()]).nullable())
      .nullable()
      .meta({
        description: "A string is a symbolic dimension, null an unknown one; null instead of a list: unknown rank.",
      }),
  })
  .meta({ id: "ModelValue" });

const OutputValue = ModelValue.extend({
  meaning: z
    .object({
      kind: z.enum(["class_scores", "shares", "numbers"]).meta({ id: "OutputKind" }),
      class_axis: z.int().nullable().meta({
        description: "Where classes lie, if that is what they are; null: along the last axis that is not of 1.",
      }),
      evident: z.boolean().meta({
        description:
          "Whether the operators say so (a Softmax, a Sigmoid); otherwise it is taken to be so by shape and name.",
      }),
    })
    .optional()
    .meta({
      id: "OutputMeaning",
      description:
        "What the numbers are: scores of classes to choose from, shares (each a number from 0 to 1 by itself), or any others. Missing for what is no tensor of floats, and of models that earlier versions added.",
    }),
}).meta({ id: "OutputValue" });

export const Model = z
  .object({
    id: z.string(),
    object: z.literal("model"),
    name: z.string(),
    created_at: Timestamp,
    sha256: Sha256.meta({
      description: "Of the file; of several files, of `sha256sum`'s lines for them, sorted by name.",
    }),
    size_bytes: Bytes.meta({ description: "All files together." }),
    files: z.array(StoredFile).meta({ description: "First the `.onnx`, then its external data." }),
    ir_version: z.int(),
    opset_imports: z.record(z.string(), z.int()),
    producer: z.string(),
    inputs: z.array(ModelValue),
    outputs: z.array(OutputValue),
    nodes: Count.meta({ description: "Of the graph and its subgraphs." }),
    operators: z.record(z.string(), Count),
    parameters: Count.meta({ description: "Elements of all weights." }),
    weight_bytes: Bytes,
    weight_bytes_by_dtype: z.record(z.string(), Bytes),
    activation_bytes: Bytes.nullable().meta({ description: "For one sample; null where shapes are not known." }),
    macs: Count.nullable().meta({
      description: "Multiply-accumulates for one sample; null where shapes are not known.",
    }),
    trainable: z
      .object({ ok: z.boolean(), subject: z.string().nullable(), message: z.string().nullable() })
      .meta({ id: "Trainability", description: "Whether it can be trained; if not, why, and which node or tensor." }),
    non_finite_weights: z
      .array(NonFiniteWeight)
      .meta({ description: "Weights with NaN, and layers' weights with infinities: the first 100." }),
    warnings: z.array(ResultWarning).meta({ description: "What is strange about the model." }),
    derived_from: DerivedFrom.nullable(),
    metadata: Metadata,
  })
  .meta({ id: "Model" });
const ModelSummary = Model.pick({
  ...{ id: true, object: true, name: true, created_at: true, sha256: true, size_bytes: true },
  ...{ nodes: true, parameters: true, weight_bytes: true, derived_from: true, metadata: true },
}).meta({ id: "ModelSummary", description: "What lists tell of a model; ask for the model to know more." });
export const ModelPage = pageOf("ModelPage", ModelSummary);

const Layer = z
  .object({
    name: z.string(),
    op: z.string(),
    weight: z.string().meta({ description: "Name of the weight." }),
    shape: z.array(z.int()),
    parameters: Count,
    bytes: Bytes,
    dtype: DType,
    weight_min: z.number().nullable(),
    weight_max: z.number().nullable(),
    channel_range_spread: z.number().nullable().meta({
      description:
        "Largest over smallest per-channel max|w|, dead channels left out: above 10 or so, per-tensor scales lose much.",
    }),
    dead_channels: Count.nullable().meta({
      description:
        "Channels whose weights are less than 2^-24 of the layer's largest: they add nothing. Null where weights have no channels.",
    }),
  })
  .meta({ id: "Layer" });
export const LayerList = pageOf("LayerList", Layer);

const CONTENT = {
  min: z.number().nullable().meta({ description: "Of the finite values; null where there are none." }),
  max: z.number().nullable(),
  non_finite: Count.meta({ description: "Values that are NaN or infinite." }),
  first_non_finite: z
    .object({ sample: Count, value: NonFinite })
    .meta({ id: "NonFinitePlace", description: "The first of them." })
    .nullable(),
};

const DatasetField = z
  .object({
    name: z.string(),
    dtype: DType,
    shape: z.array(z.int()),
    content: z
      .object(CONTENT)
      .meta({ id: "FieldContent", description: "What the values are like." })
      .nullable()
      .meta({ description: "Null for images, and for datasets of earlier versions." }),
  })
  .meta({ id: "DatasetField", description: "`shape` is that of one sample." });

const DatasetLabels = z
  .object({
    dtype: DType,
    shape: z.array(z.int()),
    count: Count,
    ...CONTENT,
    integers: z.boolean().meta({ description: "All are whole numbers, whatever their dtype." }),
    one_hot: z.boolean().meta({ description: "Every row along the last axis has a single 1 among zeros." }),
    distinct: Count.nullable().meta({ description: "Null when they are not integers, or too many to count." }),
    outermost: z
      .array(z.object({ value: z.number(), count: Count, first_sample: Count }).meta({ id: "LabelValue" }))
      .meta({ description: "The smallest and the largest integers: all of them when they are few." }),
  })
  .meta({ id: "DatasetLabels", description: "What the labels are like. `shape` is that of one sample." });

const DatasetWarning = z
  .object({ code: z.string(), field: z.string(), message: z.string() })
  .meta({ id: "DatasetWarning", description: "`non_finite`, `all_zero`, `constant`, or what later versions add." });

export const Dataset = z
  .object({
    id: z.string(),
    object: z.literal("dataset"),
    name: z.string(),
    created_at: Timestamp,
    size_bytes: Bytes,
    sha256: Sha256,
    samples: Count,
    fields: z.array(DatasetField),
    has_labels: z.boolean(),
    classes: z.array(z.string()).nullable().meta({
      description:
        "What the labels are numbers of. Null where they have no names, and where those are too long for here.",
    }),
    class_count: Count.nullable().meta({
      description: "Null where labels have no names; all of them: `listDatasetClasses`.",
    }),
    labels: DatasetLabels.nullable().meta({
      description: "Null without labels, and for datasets of earlier versions.",
    }),
    warnings: z.array(DatasetWarning).meta({ description: "What is strange about the values." }),
    metadata: Metadata,
  })
  .meta({ id: "Dataset" });
const DatasetSummary = Dataset.pick({
  ...{ id: true, object: true, name: true, created_at: true, size_bytes: true, sha256: true },
  ...{ samples: true, has_labels: true, metadata: true },
}).meta({ id: "DatasetSummary", description: "What lists tell of a dataset; ask for the dataset to know more." });
export const DatasetPage = pageOf("DatasetPage", DatasetSummary);

/** `?limit=…&cursor=…` of what is in a fixed order: the cursor counts. */
export const PartQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(100).meta({ description: "Length of a page." }),
  cursor: z
    .string()
    .regex(/^\d{1,9}$/, "must be a next_cursor")
    .optional()
    .meta({ description: "`next_cursor` of the page before." }),
});

export const DatasetClassPage = z
  .object({
    data: z.array(z.string()),
    next_cursor: z.string().nullable().meta({ description: "Null on the last page." }),
  })
  .meta({ id: "DatasetClassPage" });

const UploadReference = z
  .strictObject({
    upload_id: z.string().max(100).meta({ description: "The last part of the finished upload's URL." }),
    filename: z.string().max(255),
  })
  .meta({ id: "UploadReference" });

export const ModelFromUploads = z
  .strictObject({
    uploads: z.array(UploadReference).min(1).max(4096),
    name: Name.optional(),
    metadata: Metadata.default({}),
  })
  .meta({ id: "ModelFromUploads", description: "A model from finished resumable uploads, which are used up by it." });

export const DatasetFromUploads = z
  .strictObject({
    uploads: z.array(UploadReference).length(1),
    name: Name.optional(),
    metadata: Metadata.default({}),
    spec: DatasetSpec.optional(),
  })
  .meta({
    id: "DatasetFromUploads",
    description: "A dataset from a finished resumable upload, which is used up by it.",
  });

/** `?dims=w:320,n:1` */
export const Dims = z
  .string()
  .max(2000)
  .regex(/^[^,:]+:[1-9]\d{0,8}(,[^,:]+:[1-9]\d{0,8})*$/, "write it like w:320,n:1")
  .transform((text) => Object.fromEntries(text.split(",").map((pair) => pair.split(":"))) as Record<string, string>)
  .transform((pairs) => Object.fromEntries(Object.entries(pairs).map(([name, size]) => [name, Number(size)])))
  .meta({
    description: "Sizes for symbolic dimensions, as in `w:320,n:1`: counts MACs and activation bytes for them.",
  });
