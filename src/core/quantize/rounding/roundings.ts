/** How weights can be rounded, by name. */
export const ROUNDINGS = ["nearest", "adaround", "stochastic", "gptq"] as const;
export type RoundingName = (typeof ROUNDINGS)[number];
