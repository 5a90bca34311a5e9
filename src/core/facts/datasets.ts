/** What the library says about datasets. */
import type { DatasetWarningCode } from "../codes.ts";
import type { DType } from "../onnx/dtype.ts";
import type { NonFinite } from "./models.ts";

/** What the values of an array are like. */
export interface FieldContent {
  /** Of the finite values; null where there are none. */
  readonly min: number | null;
  readonly max: number | null;
  /** How many values are NaN or infinite, and where the first one is. */
  readonly non_finite: number;
  readonly first_non_finite: { readonly sample: number; readonly value: NonFinite } | null;
}

/** An integer among the labels. */
export interface LabelValue {
  readonly value: number;
  readonly count: number;
  readonly first_sample: number;
}

export interface LabelFacts extends FieldContent {
  readonly dtype: DType;
  /** Without the sample axis. */
  readonly shape: readonly number[];
  /** Labels of all samples. */
  readonly count: number;
  /** Whether all are whole numbers, whatever their dtype. */
  readonly integers: boolean;
  /** Whether every row along the last axis has a single 1 among zeros. */
  readonly one_hot: boolean;
  /** How many different integers there are; null when they are not integers, or too many to count. */
  readonly distinct: number | null;
  /** The smallest and the largest integers, ascending: all of them when they are few. */
  readonly outermost: readonly LabelValue[];
}

export interface DatasetWarning {
  readonly code: DatasetWarningCode;
  readonly field: string;
  readonly message: string;
}

export interface DatasetFacts {
  readonly samples: number;
  /** Shapes without the sample axis. `content` is null for images, which are always finite, and missing where it was not looked for. */
  readonly fields: readonly {
    readonly name: string;
    readonly dtype: DType;
    readonly shape: readonly number[];
    readonly content?: FieldContent | null;
  }[];
  readonly has_labels: boolean;
  readonly classes: readonly string[] | null;
  /** Null without labels; missing where they were not looked at. */
  readonly labels?: LabelFacts | null;
  readonly warnings?: readonly DatasetWarning[];
}
