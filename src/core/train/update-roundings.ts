/** How updated weights can be rounded to bfloat16, by name. */
export const UPDATE_ROUNDINGS = ["nearest", "stochastic"] as const;
export type UpdateRounding = (typeof UPDATE_ROUNDINGS)[number];
