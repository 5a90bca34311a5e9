/**
 * What the library says about models, datasets and results. These objects go to the user as they are (over HTTP, into
 * `report.json`), so their fields carry the wire's snake_case names.
 */
export type * from "./facts/datasets.ts";
export type * from "./facts/models.ts";
export type * from "./facts/plans.ts";
export type * from "./facts/quantization.ts";
export type * from "./facts/results.ts";
export type * from "./facts/targets.ts";
export type * from "./facts/training.ts";
