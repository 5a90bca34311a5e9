import { COMPARE_OPERATIONS } from "./compare.ts";
import { DATASET_OPERATIONS } from "./dataset-operations.ts";
import { SOURCE_OPERATIONS } from "./from-source.ts";
import { JOB_FILE_OPERATIONS } from "./job-artifacts.ts";
import { JOB_OPERATIONS } from "./job-operations.ts";
import { MODEL_OPERATIONS } from "./model-operations.ts";
import type { Operation } from "./operation.ts";

import { SYSTEM_OPERATIONS } from "./system.ts";
import { UPLOAD_OPERATIONS } from "./upload-operations.ts";

/** Every operation of the API, in the order of the document. */
export const ALL_OPERATIONS = [
  ...MODEL_OPERATIONS,
  ...DATASET_OPERATIONS,
  ...SOURCE_OPERATIONS,
  ...UPLOAD_OPERATIONS,
  ...JOB_OPERATIONS,
  ...JOB_FILE_OPERATIONS,
  ...COMPARE_OPERATIONS,
  ...SYSTEM_OPERATIONS,
] as readonly Operation[];
