/** How the range of an activation can follow from its values, by name. */
export const CALIBRATION_METHODS = ["minmax", "moving_average", "percentile", "entropy", "mse"] as const;
export type CalibrationMethod = (typeof CALIBRATION_METHODS)[number];

/** The one that is taken where none is measured to be better. */
export const DEFAULT_METHOD: CalibrationMethod = "mse";
