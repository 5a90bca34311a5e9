/** The public surface of the library. `runtime/` is not part of it: who runs models passes `openSession` in. */
export { checkDatasetFits } from "./data/fit.ts";
export { CoreError, type CoreErrorCode, checkCancelled } from "./errors.ts";
export type * from "./facts.ts";
export { DTYPES, type DType } from "./onnx/dtype.ts";
