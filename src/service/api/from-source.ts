import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { DatasetSpec } from "../dataset-spec.ts";
import { Metadata, Name } from "../schemas.ts";
import { askerOf } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import { ADDED_DATASET, DATASET_UPLOAD_PROBLEMS } from "./dataset-operations.ts";
import { type DatasetIntake, suffixOf } from "./datasets.ts";
import * as examples from "./examples.ts";
import { IdempotencyHeaders } from "./idempotent.ts";
import { ADDED_MODEL, MODEL_UPLOAD_PROBLEMS } from "./model-operations.ts";
import type { ModelIntake } from "./models.ts";
import { defineOperation, route } from "./operation.ts";
import { createSources, SOURCE_KINDS } from "./sources/sources.ts";
import { MAX_FILES } from "./upload-intake.ts";

/** Models and datasets that the service fetches itself. */

const SourceFile = z
  .strictObject({
    url: z
      .string()
      .max(4000)
      .meta({
        description:
          "`https`: at a host that the operator has allowed; presigned ones too. `s3`: `s3://bucket/key`, the key as it is, in a bucket that the operator " +
          "has allowed. `mlflow`: `models:/name/3` or `models:/name@alias`, a version of a registered model that the operator has allowed: its ONNX with " +
          "all of its files. `huggingface`: `hf://org/name@revision/path`, a file of a repository that the operator has allowed (`hf://datasets/org/name/path` of datasets; " +
          "without a revision the newest of `main`).",
      }),
    filename: z
      .string()
      .max(255)
      .optional()
      .meta({ description: "As the address ends after its last slash, when it is not given." }),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/, "must be a sha256 in lower-case hexadecimal")
      .optional()
      .meta({ description: "What the file must be; another one is refused." }),
  })
  .meta({ id: "SourceFile" });

const DATASET_SOURCE_KINDS = SOURCE_KINDS.filter((kind) => kind !== "mlflow");

const ModelFromSource = z
  .strictObject({
    source: z
      .strictObject({
        kind: z.enum(SOURCE_KINDS).meta({ id: "SourceKind" }),
        files: z.array(SourceFile).min(1).max(MAX_FILES),
      })
      .meta({ id: "ModelSource", description: "The `.onnx`, and its external data under the names that it uses." }),
    name: Name.optional(),
    metadata: Metadata.default({}),
  })
  .meta({ id: "ModelFromSource" });

const DatasetFromSource = z
  .strictObject({
    source: z
      .strictObject({
        kind: z.enum(DATASET_SOURCE_KINDS).meta({ id: "DatasetSourceKind" }),
        files: z.array(SourceFile).min(1).max(1),
      })
      .meta({ id: "DatasetSource", description: "One file; the suffix of its name tells the format." }),
    name: Name.optional(),
    metadata: Metadata.default({}),
    spec: DatasetSpec.optional(),
  })
  .meta({ id: "DatasetFromSource" });

const DESCRIPTION =
  "for files that the service fetches: the answer comes when it has them. Hosts must be on the operator's list (`SOURCE_ALLOW_HOSTS`), and so must " +
  "those that they redirect to; buckets (`SOURCE_ALLOW_BUCKETS`), registered models of MLflow (`SOURCE_ALLOW_REGISTERED_MODELS`) and repositories of Hugging Face " +
  "(`SOURCE_ALLOW_REPOSITORIES`) must be on others, and are read with the operator's credentials. Send an `Idempotency-Key` to ask again without a second fetch counting as another one.";

const createModelFromSource = defineOperation({
  id: "createModelFromSource",
  method: "POST",
  path: "/v1/models/from-source",
  tag: "Models",
  summary: "Make a model of files at an address",
  description: `As \`createModel\`, ${DESCRIPTION}`,
  access: "write",
  headers: IdempotencyHeaders,
  body: ModelFromSource,
  responses: ADDED_MODEL,
  problems: [...MODEL_UPLOAD_PROBLEMS, "validation_failed", "source_failed", "idempotency_conflict", "conflict"],
  examples: { fetched: examples.modelFromSource },
});

const createDatasetFromSource = defineOperation({
  id: "createDatasetFromSource",
  method: "POST",
  path: "/v1/datasets/from-source",
  tag: "Datasets",
  summary: "Make a dataset of a file at an address",
  description: `As \`createDataset\`, ${DESCRIPTION}`,
  access: "write",
  headers: IdempotencyHeaders,
  body: DatasetFromSource,
  responses: ADDED_DATASET,
  problems: [...DATASET_UPLOAD_PROBLEMS, "source_failed"],
  examples: { fetched: examples.datasetFromSource },
});

export const SOURCE_OPERATIONS = [createModelFromSource, createDatasetFromSource];

export function registerSources(
  app: FastifyInstance,
  context: ApiContext,
  models: ModelIntake,
  datasets: DatasetIntake,
): void {
  const sources = createSources(context);
  app.addHook("onClose", () => sources.close());

  route(app, createModelFromSource, async ({ body: { source, name, metadata } }, request, reply) => {
    sources.check(source);
    const asker = askerOf(request, reply);
    const added = await models.add(request, asker, async (id) => ({
      files: await sources.fetch(source, id, { signal: asker.signal, mostFiles: MAX_FILES }),
      ...{ name, metadata },
    }));
    return models.answer(reply, added);
  });

  route(app, createDatasetFromSource, async ({ body: { source, name, metadata, spec } }, request, reply) => {
    sources.check(source);
    const asker = askerOf(request, reply);
    const added = await datasets.add(request, asker, async (id) => ({
      files: await sources.fetch(source, id, { signal: asker.signal, mostFiles: 1, checkName: suffixOf }),
      ...{ name, metadata, spec },
    }));
    return datasets.answer(reply, added);
  });
}
